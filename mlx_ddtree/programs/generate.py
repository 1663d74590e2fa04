"""mlx_ddtree.generate: answer one prompt from the command line."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlx_ddtree._blas import use_fast_blas
from mlx_ddtree.errors import OptionError, PromptError
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.generation.prompts import chat_token_ids, text_token_ids
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs import answers, arguments, cli
from mlx_ddtree.programs.cache_file import CacheFile, read_cache_file, rest_token_ids
from mlx_ddtree.programs.compare import compare, print_comparison

EXAMPLES = """\
  mlx_ddtree.generate --prompt "Write a function that reverses a string."
  mlx_ddtree.generate --compare --prompt "Write a function that counts vowels."
  mlx_ddtree.generate --show-tree --tree-budget 12 --prompt "Write a function that counts vowels."
  mlx_ddtree.generate --model mlx-community/Qwen3-8B-4bit --max-tokens 512 --prompt -  < question.txt
  mlx_ddtree.generate --n 4 --temp 0.8 --seed 1 --prompt "Write a function that counts vowels."
  mlx_ddtree.generate --model ./my-model --draft-model ./my-drafter --temp 0.7 --seed 1 --json --prompt "Hello"
"""
DEFAULT_PROMPT = "Write a function that checks whether a number is prime."


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


def make_arguments() -> argparse.ArgumentParser:
    """The program's options."""
    parser = cli.make_parser(
        "Generate text with DFlash drafts and DDTree draft trees, losslessly.", EXAMPLES, "mlx_ddtree.generate"
    )
    parser.add_argument("--prompt", "-p", default=DEFAULT_PROMPT, help="the user's message; '-' reads stdin")
    arguments.add_template_options(parser)
    prompt = parser.add_argument_group("prompt, of one answer")
    prompt.add_argument("--ignore-chat-template", action="store_true", help="use the prompt as raw text")
    prompt.add_argument(
        "--chat-template-config", type=arguments.json_object, default={}, metavar="JSON", help="template options"
    )
    prompt.add_argument("--prefill-response", metavar="TEXT", help="how the answer begins; it is not printed again")
    prompt.add_argument(
        "--prompt-cache-file", metavar="FILE", help="what mlx_lm.cache_prompt wrote: the beginning of the prompt"
    )
    arguments.add_model_options(parser)
    arguments.add_generation_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--n",
        type=arguments.positive,
        default=1,
        metavar="N",
        help="answers with consecutive seeds, decoded together; above temperature 0 (default: %(default)s)",
    )
    output.add_argument("--compare", action="store_true", help="answer by ar, dflash and ddtree, and compare them")
    output.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    output.add_argument("--show-tree", action="store_true", help="draw every round's draft tree on stderr")
    arguments.add_output_options(parser, "say how models were loaded, and statistics (default: a line on a terminal)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(answer, make_arguments().parse_args(argv), several=True)


def answer(args: argparse.Namespace) -> int:
    """Load, read the prompt, and print what the options ask for."""
    # 1. What is wrong with the command line is said before the models load.
    text = read_prompt(args.prompt)
    refuse_conflicts(args)
    options = arguments.generation_options(args)
    cache = None if args.prompt_cache_file is None else read_cache_file(args.prompt_cache_file, args.model)
    if cache is not None:
        args.model = cache.model
        args.extra_eos_token = [*args.extra_eos_token, *cache.end_tokens]
    # 2. The models, and the prompt as the target reads it.
    pair = arguments.load_pair(args, need_drafter=args.compare)
    if cache is not None:
        cache.check(pair)
    if args.verbose:
        print_notes(pair)
    prompt = prepare_prompt(pair, text, args, cache)
    options = protect_prompt(pair, prompt, options)
    # 3. The answer, or several.
    if args.compare:
        if options.seed is None:
            options = options.changed(seed=secrets.randbits(31))  # all methods draw the same tokens
        return print_comparison(compare(pair, prompt.ids, options), args.json)
    if args.n > 1:
        return answers.print_branches(pair, prompt.ids, options, args)
    return answers.print_answer(pair, prompt.ids, options, args, None if cache is None else cache.layers)


def read_prompt(given: str) -> str:
    """The prompt's text; '-' is standard input.  Raises PromptError."""
    text = sys.stdin.read() if given == "-" else given
    if not text.strip():
        raise PromptError("the prompt is empty: give --prompt TEXT, or '-' and text on stdin")
    return text


def refuse_conflicts(args: argparse.Namespace) -> None:
    """Raise OptionError for options that exclude each other."""
    if args.n > 1 and (args.compare or args.show_tree):
        raise OptionError("--n decodes several answers together: leave out --compare and --show-tree")
    if args.compare and args.show_tree:
        raise OptionError("--show-tree shows one method's trees: leave out --compare")
    if args.prompt_cache_file is not None and (args.n > 1 or args.compare):
        raise OptionError("--prompt-cache-file goes on with one answer: leave out --n and --compare")


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
    template = args.chat_template_config
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


if __name__ == "__main__":
    sys.exit(main())
