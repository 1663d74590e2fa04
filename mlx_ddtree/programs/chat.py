"""mlx_ddtree.chat: talk with a model in the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mlx_ddtree.programs import arguments, cli

EXAMPLES = """\
  mlx_ddtree.chat
  mlx_ddtree.chat --model mlx-community/Qwen3-8B-4bit --temp 0.7 --system-prompt "Answer briefly."
  printf 'Write a function that adds two numbers.\\n' | mlx_ddtree.chat
"""
CHAT_MAX_TOKENS = 1024
"""Of an answer, where nobody says otherwise."""


def make_arguments(program: str = "mlx_ddtree.chat") -> argparse.ArgumentParser:
    """The program's options.  program: how it was called."""
    parser = cli.make_parser("Chat with a model; drafts make it faster and change nothing it says.", EXAMPLES, program)
    parser.add_argument("--load", metavar="FILE", help="go on with a conversation that /save wrote")
    arguments.add_template_options(parser)
    arguments.add_model_options(parser, several=True)
    arguments.add_generation_options(parser, max_tokens=CHAT_MAX_TOKENS)
    arguments.add_output_options(parser, "log how models are loaded (default: figures after answers on a terminal)")
    return parser


def main(argv: Sequence[str] | None = None, program: str = "mlx_ddtree.chat") -> int:
    check = arguments.generation_options
    return cli.run(_work, make_arguments(program).parse_args(argv), several=True, check=check)


def _work(args: argparse.Namespace) -> int:
    from mlx_ddtree.programs.talking import chat  # noqa: PLC0415  (brings MLX)

    return chat(args)


if __name__ == "__main__":
    sys.exit(main())
