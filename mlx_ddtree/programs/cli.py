"""Conventions that the command-line programs share: parsers, messages, endings, tables."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from io import TextIOWrapper
from typing import Any, NoReturn, TextIO

from tqdm import tqdm

from mlx_ddtree.distributed.follow import follow
from mlx_ddtree.distributed.ranks import Follower, join
from mlx_ddtree.errors import MlxDdtreeError, OptionError
from mlx_ddtree.generation.stream import GenerationResponse


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in two lines; argparse's own prints all options first."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"usage: {self.prog} [options], which {self.prog} --help lists\nerror: {message}\n")


def make_parser(description: str, examples: str, program: str | None = None) -> Parser:
    """A parser without options; program: how it is called, also under `python -m`."""
    return Parser(
        prog=program,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def dim(text: str, stream: TextIO | None = None) -> str:
    """The text in grey if `stream`, standard output by default, is a terminal that shows it."""
    return f"\x1b[2m{text}\x1b[0m" if colors(stream or sys.stdout) else text


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
    log_level = getattr(args, "log_level", None) or ("INFO" if getattr(args, "verbose", False) else "WARNING")
    logging.basicConfig(level=log_level, format="%(message)s")
    let_all_text_pass()
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


def let_all_text_pass() -> None:
    """Bytes that are not UTF-8 come in as half characters, which a prompt refuses in one line, and go out escaped.

    Otherwise reading or writing them would end the program.
    """
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def brief(last: GenerationResponse) -> str:
    """One line of figures about an answer."""
    figures = [
        f"{last.generation_tokens} tokens",
        f"{last.generation_tps:.0f} tok/s",
        f"{last.mean_acceptance_length:.1f} a round",
    ]
    lost = last.compression
    if lost is not None and lost.kept_tokens < lost.prompt_tokens:
        figures.append(f"{lost.kept_tokens} of {lost.prompt_tokens} prompt tokens kept")
    if last.finish_reason == "length":
        figures.append("cut at the limit")
    return f"[{', '.join(figures)}]"


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
