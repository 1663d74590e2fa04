"""mlx_ddtree.generate: answer one prompt from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_lm.sample_utils import LogitsProcessor, make_logits_processors

from mlx_ddtree._blas import use_fast_blas
from mlx_ddtree.decoding.sampling import Sampler, make_sampler
from mlx_ddtree.errors import OptionError, PromptError
from mlx_ddtree.generation.branches import stream_branches
from mlx_ddtree.generation.draw import draw_tree
from mlx_ddtree.generation.response import GenerationResponse, summary
from mlx_ddtree.generation.stream import stream_generate
from mlx_ddtree.machine import __version__
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs import cli
from mlx_ddtree.programs.compare import compare, comparison_table

EXAMPLES = """\
  mlx_ddtree.generate --prompt "Write a function that reverses a string."
  mlx_ddtree.generate --compare --prompt "Write a function that counts vowels."
  mlx_ddtree.generate --show-tree --tree-budget 12 --prompt "Write a function that counts vowels."
  mlx_ddtree.generate --model mlx-community/Qwen3-8B-4bit --max-tokens 512 --prompt -  < question.txt
  mlx_ddtree.generate --n 4 --temp 0.8 --seed 1 --prompt "Write a function that counts vowels."
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
    cli.add_compression_options(parser)
    cli.add_kv_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--n",
        type=cli.positive,
        default=1,
        metavar="N",
        help="answers with consecutive seeds, decoded together; above temperature 0 (default: %(default)s)",
    )
    output.add_argument("--compare", action="store_true", help="answer by ar, dflash and ddtree, and compare them")
    output.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    output.add_argument("--show-tree", action="store_true", help="draw every round's draft tree on stderr")
    output.add_argument("--verbose", "-v", action="store_true", help="say how models were loaded, and statistics")
    output.add_argument("--version", action="version", version=__version__)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(answer, make_arguments().parse_args(argv), several=True)


def answer(args: argparse.Namespace) -> int:
    prompt_text = sys.stdin.read() if args.prompt == "-" else args.prompt
    if not prompt_text.strip():
        raise PromptError("the prompt is empty: give --prompt TEXT, or '-' and text on stdin")
    refuse_conflicts(args)
    options = decoding_options(args)  # what is wrong with them is said before the models load
    pair = cli.load_pair(args, need_drafter=args.compare)
    if args.verbose:
        print_notes(pair)
    prompt = chat_prompt(pair, prompt_text, args)
    options |= compression_options(pair, prompt_text, prompt, args)
    if args.compare:
        return print_comparison(pair, prompt, options, args.json)
    return (print_branches if args.n > 1 else print_answer)(pair, prompt, options, args)


def refuse_conflicts(args: argparse.Namespace) -> None:
    """Raise OptionError for options that exclude each other."""
    if args.n > 1 and (args.compare or args.show_tree):
        raise OptionError("--n decodes several answers together: leave out --compare and --show-tree")
    if args.n > 1 and (args.prefill_compression != "off" or args.kv_keep_ratio or args.kv_budget):
        raise OptionError("--n reads all of the prompt: leave out --prefill-compression, --kv-keep-ratio, --kv-budget")
    if args.compare and args.show_tree:
        raise OptionError("--show-tree shows one method's trees: leave out --compare")


def print_answer(pair: Pair, prompt: list[int], options: dict[str, Any], args: argparse.Namespace) -> int:
    """One answer, as it grows."""
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
    template = pair.tokenizer.apply_chat_template
    return list(template(messages(text, args), add_generation_prompt=True, **args.chat_template_config))


def messages(text: str, args: argparse.Namespace) -> list[dict[str, str]]:
    system = [{"role": "system", "content": args.system_prompt}] if args.system_prompt else []
    return [*system, {"role": "user", "content": text}]


def compression_options(pair: Pair, text: str, ids: list[int], args: argparse.Namespace) -> dict[str, Any]:
    """For `stream_generate`: which tokens of the template's prompt are protected is known only here."""
    compression = cli.compression(args)
    if compression.concerns(len(ids)):
        chat = not args.ignore_chat_template and pair.tokenizer.has_chat_template
        prompt = messages(text, args) if chat else text
        compression = compression.protecting(pair, prompt, ids, **args.chat_template_config)
    return {"compression": compression, "kv_keep_ratio": args.kv_keep_ratio}


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
        **({"compression": last.compression.as_dict()} if last.compression else {}),
    }


def print_branches(pair: Pair, prompt: list[int], options: dict[str, Any], args: argparse.Namespace) -> int:
    """All answers, once they are complete: they grow at the same time."""
    alone = ("parity", "compression", "kv_keep_ratio", "kv_budget")  # there are no ties between draws
    options = {name: value for name, value in options.items() if name not in alone}
    texts, tokens, last = [""] * args.n, [list[int]() for _ in range(args.n)], None
    for last in stream_branches(pair, prompt, args.n, method=args.method, **options):
        texts = [text + new for text, new in zip(texts, last.texts, strict=True)]
        tokens = [ids + new for ids, new in zip(tokens, last.tokens, strict=True)]
    assert last is not None
    answers = list(zip(last.seeds, texts, tokens, last.finish_reasons, strict=True))
    choices = [
        {"index": i, "seed": seed, "text": text, "tokens": ids, "finish_reason": reason}
        for i, (seed, text, ids, reason) in enumerate(answers)
    ]
    totals = {
        "prompt_tokens": last.prompt_tokens,
        "generation_tokens": last.generation_tokens,
        "rounds": last.rounds,
        "kv_rows": last.kv_rows,
        "kv_rows_alone": last.kv_rows_alone,
        "seconds": last.seconds,
        "peak_memory_gb": last.peak_memory,
    }
    if args.json:
        print(json.dumps({"choices": choices, "method": args.method, "tree_budget": args.tree_budget, **totals}))
        return 0
    for i, (seed, text, _, _) in enumerate(answers):
        print(cli.dim(f"--- {i + 1} of {args.n}, seed {seed} ---"))
        print(text)
    if args.verbose:
        print(", ".join(f"{name}: {value}" for name, value in totals.items()), file=sys.stderr)
    return 0


def print_notes(pair: Pair) -> None:
    """How the models were loaded, on stderr."""
    notes = {k: v for k, v in pair.notes.items() if k != "target_config"}
    for key, value in {**notes, "taps": pair.target.taps, "blas": use_fast_blas()}.items():
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


if __name__ == "__main__":
    sys.exit(main())
