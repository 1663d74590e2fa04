"""Conventions that the command-line programs share: parsers, endings, what is said beside a result."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from io import TextIOWrapper
from typing import Any, NoReturn

from mlx_ddtree.errors import MlxDdtreeError, OptionError
from mlx_ddtree.terminal import print_error


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in two lines; argparse's own prints all options first."""

    def error(self, message: str) -> NoReturn:
        """End the program with a short usage line and what is wrong."""
        self.exit(2, f"usage: {self.prog} [options]; {self.prog} --help lists them\nerror: {message}\n")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse does; an option that there is not comes with the one that was probably meant."""
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._about(unknown))
        return known

    def _about(self, unknown: Sequence[str]) -> str:
        """What is said of arguments that are none."""
        names = [text.partition("=")[0] for text in unknown if text.startswith("-")]
        if not names:
            return f"unrecognized arguments: {' '.join(unknown)}"
        close = get_close_matches(names[0], self.option_names(), 1, 0.7)
        return f"there is no option {names[0]}" + (f"; did you mean {close[0]}?" if close else "")

    def option_names(self) -> list[str]:
        """The names of its options, and of its commands' options."""
        names = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                names += [name for command in action.choices.values() for name in command.option_names()]
        return names


def make_parser(description: str, examples: str, program: str) -> Parser:
    """A parser without options.

    program: how it was called; examples name it `mlx_ddtree.NAME`, and are shown as it was called.
    """
    dotted = program.replace(" ", ".")
    return Parser(
        prog=program,
        description=description,
        epilog=f"examples:\n{examples.replace(dotted, program)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(
    work: Callable[[argparse.Namespace], int],
    args: argparse.Namespace,
    several: bool = False,
    check: Callable[[argparse.Namespace], object] | None = None,
) -> int:
    """Call `work`; user errors become one line on stderr and exit code 2, Ctrl-C 130.

    several: whether this program's target may stand on several machines.  Under mlx.launch only rank 0 calls `work`;
        the others do what it needs of them, until it ends.
    check: raises MlxDdtreeError for options that cannot be; it is called before MLX is loaded.
    """
    log_level = getattr(args, "log_level", None) or ("INFO" if getattr(args, "verbose", False) else "WARNING")
    logging.basicConfig(level=log_level, format="%(message)s")
    let_all_text_pass()
    try:
        if check is not None:
            check(args)
        return _side_of_this_process(work, args, several)
    except MlxDdtreeError as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing more to say
        return 141


def _side_of_this_process(work: Callable[[argparse.Namespace], int], args: argparse.Namespace, several: bool) -> int:
    """Do the work, or what rank 0 needs of this rank."""
    from mlx_ddtree.distributed.follow import follow  # noqa: PLC0415  (brings MLX)
    from mlx_ddtree.distributed.ranks import Follower, join  # noqa: PLC0415

    ranks = join()
    try:
        if ranks is not None and not several:
            raise OptionError("this program works on one machine: start it without mlx.launch")
        return follow(ranks) if isinstance(ranks, Follower) else work(args)
    except RuntimeError:
        if ranks is not None:
            ranks.watch.await_news()  # MLX may notice first that a rank is gone
        raise


def let_all_text_pass() -> None:
    """Bytes that are not UTF-8 come in as half characters, which a prompt refuses in one line, and go out escaped.

    Otherwise reading or writing them would end the program.
    """
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
