"""Options and conventions that the command-line programs share; named like mlx-lm's."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TextIO

from tqdm import tqdm

from mlx_ddtree.distributed.follow import follow
from mlx_ddtree.distributed.load import load
from mlx_ddtree.distributed.ranks import Follower, join
from mlx_ddtree.errors import MlxDdtreeError, OptionError
from mlx_ddtree.icecache.options import IceCacheOptions
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.compress import PrefillCompression


def make_parser(description: str, examples: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("models")
    group.add_argument("--model", help="target: local folder or Hugging Face repository (default: the embedded pair)")
    group.add_argument("--draft-model", help="drafter: folder or repository (default: looked up for public targets)")
    group.add_argument("--revision", help="branch, tag or commit of --model")
    group.add_argument("--draft-revision", help="branch, tag or commit of --draft-model")
    group.add_argument("--adapter-path", help="LoRA adapters to apply to the target")
    group.add_argument(
        "--kernels", choices=("auto", "on", "off"), default="auto", help="Metal kernels: where they are faster, or not"
    )
    group.add_argument(
        "--draft-window",
        type=positive,
        metavar="N",
        help="let the drafter see only the last N tokens: drafting stays fast in long contexts, the output the same",
    )
    group.add_argument("--trust-remote-code", action="store_true", help="allow custom tokenizer or model code")
    group.add_argument(
        "--pipeline",
        action="store_true",
        help="under mlx.launch: give every machine whole layers, not a part of each (docs/distributed.md)",
    )


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling")
    group.add_argument("--temp", type=float, default=0.0, help="temperature; 0 is greedy (default: %(default)s)")
    group.add_argument("--top-p", type=float, default=1.0, help="nucleus sampling (default: %(default)s)")
    group.add_argument("--min-p", type=float, default=0.0, help="minimum probability, relative to the best token's")
    group.add_argument("--min-tokens-to-keep", type=int, default=1, help="tokens that min-p always keeps")
    group.add_argument("--top-k", type=int, default=0, help="sample among the k best tokens only; 0 is all")
    group.add_argument("--seed", type=int, help="makes sampling repeatable, whatever the method and budget")
    group.add_argument("--repetition-penalty", type=float, help="mlx-lm's multiplicative penalty")
    group.add_argument("--repetition-context-size", type=int, default=20, help="tokens it looks back")


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("decoding")
    group.add_argument("--method", choices=("ddtree", "dflash", "ar"), default="ddtree", help="default: %(default)s")
    group.add_argument(
        "--tree-budget",
        type=tree_budget,
        default="auto",
        metavar="N",
        help="nodes of the draft tree, 0..1024; default: auto, chosen every round from measured costs",
    )
    group.add_argument("--block-size", type=int, metavar="B", help="tokens of a draft block, the bonus token included")
    group.add_argument(
        "--parity",
        choices=("exact", "rows", "off"),
        default="exact",
        help="near ties at temperature 0: decide them as plain decoding does, by a row of their own but without "
        "making the cache anew, or trust every row (default: %(default)s)",
    )
    group.add_argument("--prefill-step-size", type=int, default=2048, help="prompt tokens at a time")


def add_compression_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("long prompts (approximate: answers may change; all off by default)")
    group.add_argument(
        "--prefill-compression",
        choices=("off", "auto", "always"),
        default="off",
        help="drop the tokens of a long prompt that matter least for its end; auto: of prompts above the threshold",
    )
    group.add_argument(
        "--prefill-threshold",
        type=int,
        default=PrefillCompression.threshold,
        metavar="N",
        help="tokens (default: %(default)s)",
    )
    group.add_argument(
        "--prefill-keep-ratio", type=float, metavar="R", help="share that is kept (default: 0.5 to 0.1, by length)"
    )
    group.add_argument(
        "--prefill-scorer",
        default="self",
        metavar="NAME",
        help="what finds out what matters: self (the target's first layers), lexical (no model), or a small model's "
        "folder or repository (default: %(default)s)",
    )
    group.add_argument(
        "--prefill-positions",
        choices=("original", "compact"),
        default="original",
        help="leave kept tokens at their positions, or close the gaps (default: %(default)s)",
    )
    group.add_argument(
        "--prefill-protect", nargs="+", default=[], metavar="TEXT", help="texts that stay wherever they occur"
    )
    group.add_argument(
        "--kv-keep-ratio", type=float, metavar="R", help="share of the prompt's keys and values that every head keeps"
    )


def compression(args: Any) -> PrefillCompression:
    """What `add_compression_options` was given.  Raises OptionError."""
    return PrefillCompression(
        args.prefill_compression,
        args.prefill_threshold,
        args.prefill_keep_ratio,
        args.prefill_scorer,
        args.prefill_positions,
        protect=tuple(args.prefill_protect),
    )


def add_kv_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("long contexts, approximate (docs/icecache.md)")
    group.add_argument("--kv-budget", type=positive, metavar="N", help="context tokens that a layer reads in a round")
    group.add_argument(
        "--kv-page-size", type=positive, default=0, metavar="N", help="tokens found together (default: 4 or 8)"
    )
    group.add_argument("--kv-offload", metavar="DIR", help="keep what is in pages in a file there, not in memory")


def kv_budget(budget: int | None, page_size: int, offload: str | None) -> IceCacheOptions | None:
    """Of `add_kv_options`.  Raises OptionError."""
    if budget is None and offload is not None:
        raise OptionError("--kv-offload puts pages away, and only --kv-budget makes pages: give both")
    return None if budget is None else IceCacheOptions(budget, page_size, offload=offload)


def load_pair(args: argparse.Namespace, need_drafter: bool = False) -> Pair:
    """The pair of `add_model_options`; plain decoding works for every model, drafter or not."""
    draft: str | bool | None = args.draft_model
    if args.method == "ar" and not need_drafter and draft is None:
        draft = False
    return load(
        args.model,
        draft,
        pipeline=args.pipeline,
        revision=args.revision,
        draft_revision=args.draft_revision,
        adapter_path=args.adapter_path,
        trust_remote_code=args.trust_remote_code,
        kernels=args.kernels,
        draft_window=args.draft_window,
    )


def dim(text: str) -> str:
    """Grey on terminals that show it."""
    return f"\x1b[2m{text}\x1b[0m" if colors(sys.stdout) else text


def colors(stream: TextIO) -> bool:
    """Whether to colour what goes to `stream`."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def progress_bar(enabled: bool) -> Callable[[int, int], None]:
    """A callback for prefill that draws a bar on stderr for prompts long enough to wait for."""
    bar: list[tqdm] = []

    def report(done: int, total: int) -> None:
        if not enabled or total < 4096:
            return
        if not bar:
            bar.append(tqdm(total=total, desc="prefill", unit="tok", file=sys.stderr, leave=False))
        bar[0].update(done - bar[0].n)
        if done >= total:
            bar[0].close()

    return report


def run(main: Callable[[argparse.Namespace], int], args: argparse.Namespace, several: bool = False) -> int:
    """Call `main`; user errors become one line on stderr and exit code 2, Ctrl-C 130.

    several: whether this program's target may stand on several machines.  Under mlx.launch only rank 0 calls `main`;
        the others do what it needs of them, until it ends.
    """
    logging.basicConfig(
        level=logging.INFO if getattr(args, "verbose", False) else logging.WARNING, format="%(message)s"
    )
    ranks = None
    try:
        ranks = join()
        if ranks is not None and not several:
            raise OptionError("this program works on one machine: start it without mlx.launch")
        return follow(ranks) if isinstance(ranks, Follower) else main(args)
    except MlxDdtreeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except RuntimeError:
        if ranks is not None:
            ranks.watch.await_news()  # MLX may notice first that a rank is gone
        raise
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing more to say
        return 141


def tree_budget(value: str) -> int | Literal["auto"]:
    return "auto" if value == "auto" else int(value)


def positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def columns(rows: Sequence[Mapping[str, Any]]) -> str:
    """A small text table; the keys of the first row are its head."""
    if not rows:
        raise OptionError("nothing to show")
    head = list(rows[0])
    cells = [head, *[[str(row[key]) for key in head] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    lines = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
