"""The command `mlx_ddtree`, and `python -m mlx_ddtree`: one name for all programs, as mlx_lm has.

`mlx_ddtree generate` is `mlx_ddtree.generate`, and so are the others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from mlx_ddtree._version import __version__
from mlx_ddtree.errors import probably_meant

PROGRAMS = {
    "generate": ("mlx_ddtree.programs.generate", "answer one prompt"),
    "chat": ("mlx_ddtree.programs.chat", "talk with a model"),
    "server": ("mlx_ddtree.server.__main__", "serve OpenAI's API and Anthropic's"),
    "models": ("mlx_ddtree.programs.models", "list the public pairs, or download one"),
    "convert": ("mlx_ddtree.programs.convert", "convert a drafter to MLX, quantise and publish it"),
    "train": ("mlx_ddtree.programs.train", "train a drafter for a target"),
    "benchmark": ("mlx_ddtree.programs.benchmark", "measure a pair against stock mlx_lm"),
    "doctor": ("mlx_ddtree.programs.doctor", "examine this machine and its kernels"),
}
"""From a command to its module, which is imported when it is called, and what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program that the first argument names; its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--version"]:
        print(__version__)
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in PROGRAMS:
        meant = probably_meant(name, PROGRAMS)
        print(f"usage: mlx_ddtree COMMAND [options]\nerror: there is no command {name!r}; {meant}", file=sys.stderr)
        return 2
    return int(import_module(PROGRAMS[name][0]).main(rest, program=f"mlx_ddtree {name}"))


def usage() -> str:
    """What --help says."""
    lines = [f"  {name:10} {about}" for name, (_, about) in PROGRAMS.items()]
    return "\n".join(
        [
            "usage: mlx_ddtree COMMAND [options]",
            "",
            "Faster answers from language models, with the same words.",
            "",
            "commands:",
            *lines,
            "",
            "mlx_ddtree COMMAND --help lists a command's options, mlx_ddtree --version says the version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
