"""mlx_ddtree.generate: answer one prompt from the command line."""

from __future__ import annotations

import argparse
import json
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_lm.sample_utils import LogitsProcessor, make_logits_processors

import mlx_ddtree
from mlx_ddtree import cli
from mlx_ddtree.compare import compare, comparison_table
from mlx_ddtree.decoding.sampling import Sampler, make_sampler
from mlx_ddtree.decoding.stream import GenerationResponse, generate, stream_generate, summary
from mlx_ddtree.draw import draw_tree
from mlx_ddtree.errors import OptionError, PromptError
from mlx_ddtree.pair import Pair

EXAMPLES = """\
  mlx_ddtree.generate --prompt "Write a function that reverses a string."
  mlx_ddtree.generate --compare --prompt "Write a function that counts vowels."
  mlx_ddtree.generate --show-tree --tree-budget 12 --prompt "Write a function that counts vowels."
  mlx_ddtree.generate --model mlx-community/Qwen3-8B-4bit --max-tokens 512 --prompt -  < question.txt
  mlx_ddtree.generate --model ./my-model --draft-model ./my-drafter --temp 0.7 --seed 1 --json --prompt "Hello"
"""
DEFAULT_PROMPT = "Write a function that checks whether a number is prime."


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser("Generate text with DFlash drafts and DDTree draft trees, losslessly.", EXAMPLES)
    parser.add_argument("--prompt", "-p", default=DEFAULT_PROMPT, help="the user's message; '-' reads stdin")
    parser.add_argument("--system-prompt", help="system message for the chat template")
    parser.add_argument("--ignore-chat-template", action="store_true", help="use the prompt as raw text")
    parser.add_argument("--chat-template-config", type=json.loads, default={}, metavar="JSON", help="template options")
    parser.add_argument("--max-tokens", "-m", type=int, default=256, help="exact limit; -1 is the model's context")
    parser.add_argument("--stop", nargs="+", default=[], metavar="TEXT", help="strings that end the answer")
    cli.add_model_options(parser)
    cli.add_sampling_options(parser)
    cli.add_decoding_options(parser)
    cli.add_kv_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--compare", action="store_true", help="answer by ar, dflash and ddtree, and compare them")
    output.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    output.add_argument("--show-tree", action="store_true", help="draw every round's draft tree on stderr")
    output.add_argument("--verbose", "-v", action="store_true", help="say how models were loaded, and statistics")
    output.add_argument("--version", action="version", version=mlx_ddtree.__version__)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(answer, make_arguments().parse_args(argv))


def answer(args: argparse.Namespace) -> int:
    prompt_text = sys.stdin.read() if args.prompt == "-" else args.prompt
    if not prompt_text.strip():
        raise PromptError("the prompt is empty: give --prompt TEXT, or '-' and text on stdin")
    cli.kv_budget(args.kv_budget, args.kv_page_size, args.kv_offload)  # refused before the models load
    pair = cli.load_pair(args, need_drafter=args.compare)
    if args.verbose:
        print_notes(pair)
    prompt = chat_prompt(pair, prompt_text, args)
    options = decoding_options(args)
    if args.compare:
        if args.show_tree:
            raise OptionError("--show-tree shows one method's trees: leave out --compare")
        return print_comparison(pair, prompt, options, args.json)
    show = not args.json
    text, tokens, response = "", [], None
    for response in stream_generate(pair, prompt, method=args.method, **options):
        text += response.text
        tokens += response.tokens
        if args.show_tree and response.nodes:
            show_tree(response, pair)
        if show:
            print(response.text, end="", flush=True)
    assert response is not None
    if args.json:
        print(json.dumps(report(text, tokens, response, args)))
    else:
        print()
        if args.verbose:
            print(summary(response), file=sys.stderr)
    return 0


def chat_prompt(pair: Pair, text: str, args: argparse.Namespace) -> list[int]:
    """Token ids, through the chat template unless told otherwise; as mlx_lm.generate does it."""
    if args.ignore_chat_template or not pair.tokenizer.has_chat_template:
        return list(pair.tokenizer.encode(text))
    messages = [{"role": "system", "content": args.system_prompt}] if args.system_prompt else []
    messages.append({"role": "user", "content": text})
    return list(pair.tokenizer.apply_chat_template(messages, add_generation_prompt=True, **args.chat_template_config))


def decoding_options(args: argparse.Namespace) -> dict[str, Any]:
    sampler: Sampler = make_sampler(
        args.temp, args.top_p, args.min_p, args.min_tokens_to_keep, args.top_k, seed=args.seed
    )
    processors: list[LogitsProcessor] = make_logits_processors(
        repetition_penalty=args.repetition_penalty, repetition_context_size=args.repetition_context_size
    )
    return {
        "max_tokens": args.max_tokens,
        "tree_budget": args.tree_budget,
        "block_size": args.block_size,
        "parity": args.parity,
        "sampler": sampler,
        "logits_processors": processors,
        "stop": args.stop,
        "prefill_step_size": args.prefill_step_size,
        "kv_budget": cli.kv_budget(args.kv_budget, args.kv_page_size, args.kv_offload),
        "prompt_progress_callback": cli.progress_bar(sys.stderr.isatty()),
    }


def report(text: str, tokens: list[int], last: GenerationResponse, args: argparse.Namespace) -> dict[str, Any]:
    """The object that --json prints."""
    return {
        "text": text,
        "tokens": tokens,
        "prompt_tokens": last.prompt_tokens,
        "generation_tokens": last.generation_tokens,
        "prompt_tps": last.prompt_tps,
        "generation_tps": last.generation_tps,
        "rounds": last.rounds,
        "acceptance_length": last.mean_acceptance_length,
        "method": args.method,
        "tree_budget": args.tree_budget,
        "block_size": args.block_size,
        "finish_reason": last.finish_reason,
        "peak_memory_gb": last.peak_memory,
        "seconds": last.seconds,
        "statistics": last.statistics.as_dict(),
    }


def print_notes(pair: Pair) -> None:
    """How the models were loaded, on stderr."""
    notes = {k: v for k, v in pair.notes.items() if k != "target_config"}
    for key, value in {**notes, "taps": pair.target.taps, "blas": mlx_ddtree.blas}.items():
        print(f"{key}: {value}", file=sys.stderr)


def show_tree(response: GenerationResponse, pair: Pair) -> None:
    """The round's tree on stderr; its text follows on stdout."""
    print(f"\n{draw_tree(response, pair.tokenizer).text(cli.colors(sys.stderr))}", file=sys.stderr, flush=True)


def print_comparison(pair: Pair, prompt: list[int], options: Mapping[str, Any], as_json: bool) -> int:
    results = compare(pair, prompt, options)
    if as_json:
        print(json.dumps({r.method: r.as_dict() for r in results}))
    else:
        print(results[0].text)
        print("\n" + comparison_table(results))
    return 0


class _CallableModule(types.ModuleType):
    """`mlx_ddtree.generate(...)` stays the function even after this program was imported by name."""

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        return generate(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    sys.exit(main())
