"""The work of mlx_ddtree.generate: load, read the prompt, answer."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any

from mlx_ddtree._blas import use_fast_blas
from mlx_ddtree.errors import PromptError
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.generation.prompts import chat_token_ids, text_token_ids
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs import answers, arguments
from mlx_ddtree.programs.cache_file import CacheFile, read_cache_file, rest_token_ids
from mlx_ddtree.programs.compare import print_comparison
from mlx_ddtree.programs.loading import load_pair


@dataclass(frozen=True)
class PreparedPrompt:
    """A prompt as the target reads it.

    ids: its tokens, or those that follow a cache file.
    source: what they were made of, chat messages or text.
    template: further arguments of the chat template.
    """

    ids: list[int]
    source: list[dict[str, str]] | str
    template: dict[str, Any]


def answer(args: argparse.Namespace) -> int:
    """Load, read the prompt, and print what the options ask for."""
    # 1. What is wrong with the command line is said before the models load.
    text = read_prompt(args.prompt)
    options = arguments.generation_options(args)
    cache = None if args.prompt_cache_file is None else read_cache_file(args.prompt_cache_file, args.model)
    if cache is not None:
        args.model = cache.model
        args.extra_eos_token = [*args.extra_eos_token, *cache.end_tokens]
    # 2. The models, and the prompt as the target reads it.
    pair = load_pair(args, need_drafter=args.compare)
    if cache is not None:
        cache.check(pair)
    if args.verbose:
        print_notes(pair)
    prompt = prepare_prompt(pair, text, args, cache)
    options = protect_prompt(pair, prompt, options)
    # 3. The answer, or several.
    if args.compare:
        return print_comparison(pair, prompt.ids, options, args.json)
    if args.n > 1:
        return answers.print_branches(pair, prompt.ids, options, args)
    return answers.print_answer(pair, prompt.ids, options, args, None if cache is None else cache.layers)


def read_prompt(given: str) -> str:
    """The prompt's text; '-' is standard input.  Raises PromptError."""
    text = sys.stdin.read() if given == "-" else given
    if not text.strip():
        raise PromptError("the prompt is empty: give --prompt TEXT, or '-' and text on stdin")
    return text


def prepare_prompt(pair: Pair, text: str, args: argparse.Namespace, cache: CacheFile | None) -> PreparedPrompt:
    """Token ids, through the chat template unless told otherwise, as mlx_lm.generate makes them.

    Raises PromptError.
    """
    if args.ignore_chat_template or not pair.tokenizer.has_chat_template:
        raw = text + (args.prefill_response or "")
        return PreparedPrompt(text_token_ids(pair.tokenizer, raw), raw, {})
    messages = [{"role": "user", "content": text}]
    if args.system_prompt:
        messages.insert(0, {"role": "system", "content": args.system_prompt})
    begun = args.prefill_response is not None
    if begun:
        messages.append({"role": "assistant", "content": args.prefill_response})
    template = args.chat_template_args
    if cache is None:
        ids = chat_token_ids(pair.tokenizer, messages, template, continue_last=begun)
    else:
        ids = rest_token_ids(pair.tokenizer, messages, template, continue_last=begun)
    return PreparedPrompt(ids, messages, template)


def protect_prompt(pair: Pair, prompt: PreparedPrompt, options: GenerationOptions) -> GenerationOptions:
    """The options with what is protected in this prompt, if it is to be compressed; only here the template is known."""
    compression = options.make_compression()
    if not compression.concerns(len(prompt.ids)):
        return options
    return options.with_compression(compression.protecting(pair, prompt.source, prompt.ids, **prompt.template))


def print_notes(pair: Pair) -> None:
    """How the models were loaded, on stderr."""
    notes = {key: value for key, value in pair.notes.items() if key != "target_config"}
    notes["taps"] = pair.target.taps
    notes["blas"] = use_fast_blas()
    for key, value in notes.items():
        print(f"{key}: {value}", file=sys.stderr)
