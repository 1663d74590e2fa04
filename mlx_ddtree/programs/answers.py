"""What mlx_ddtree.generate prints: one answer as it grows or several, as text or as JSON, and figures beside it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from mlx_ddtree import terminal
from mlx_ddtree.branches.forest import BranchesResponse
from mlx_ddtree.generation.branches import stream_branches
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.generation.stream import GenerationResponse, stream_generate, summary
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs.displays import make_display
from mlx_ddtree.programs.figures import brief, measured_plain_tps
from mlx_ddtree.terminal_bar import PromptBar


def print_answer(
    pair: Pair, ids: list[int], options: GenerationOptions, args: argparse.Namespace, cache: list[Any] | None
) -> int:
    """One answer, as it grows; cache: the layers of a cache file that the prompt follows."""
    text = ""
    tokens: list[int] = []
    last: GenerationResponse | None = None
    display = make_display(pair, trees=args.show_tree, origins=args.show_drafts, silent=args.json)
    with PromptBar(sys.stderr.isatty()) as progress, display:
        for last in stream_generate(pair, ids, options=options, prompt_cache=cache, prompt_progress_callback=progress):
            text += last.text
            tokens += last.tokens
            display.tell(last)
    assert last is not None
    if args.json:
        print(json.dumps(report(text, tokens, last, args)))
        return 0
    print()
    if args.verbose:
        print(summary(last), file=sys.stderr)
    elif args.verbose is None and sys.stderr.isatty():
        plain_tps = None if args.method == "ar" else measured_plain_tps(pair, len(ids) + len(tokens) // 2)
        terminal.print_muted(brief(last, plain_tps), sys.stderr)
    return 0


def report(text: str, tokens: list[int], last: GenerationResponse, args: argparse.Namespace) -> dict[str, Any]:
    """The object that --json prints."""
    found = {
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
    if last.compression:
        found["compression"] = last.compression.as_dict()
    return found


def print_branches(pair: Pair, ids: list[int], options: GenerationOptions, args: argparse.Namespace) -> int:
    """All answers, once they are complete: they grow at the same time."""
    texts = [""] * args.n
    tokens: list[list[int]] = [[] for _ in range(args.n)]
    last: BranchesResponse | None = None
    with PromptBar(sys.stderr.isatty()) as progress:
        for last in stream_branches(pair, ids, args.n, options=options, prompt_progress_callback=progress):
            for branch in range(args.n):
                texts[branch] += last.texts[branch]
                tokens[branch] += last.tokens[branch]
    assert last is not None
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
        choices = []
        for branch in range(args.n):
            choices.append(
                {
                    "index": branch,
                    "seed": last.seeds[branch],
                    "text": texts[branch],
                    "tokens": tokens[branch],
                    "finish_reason": last.finish_reasons[branch],
                }
            )
        print(json.dumps({"choices": choices, "method": args.method, "tree_budget": args.tree_budget, **totals}))
        return 0
    for branch in range(args.n):
        terminal.print_muted(f"--- {branch + 1} of {args.n}, seed {last.seeds[branch]} ---")
        print(texts[branch])
    if args.verbose:
        print(", ".join(f"{name}: {value}" for name, value in totals.items()), file=sys.stderr)
    return 0
