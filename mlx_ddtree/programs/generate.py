"""mlx_ddtree.generate: answer one prompt from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mlx_ddtree.errors import OptionError
from mlx_ddtree.programs import arguments, cli

EXAMPLES = """\
  mlx_ddtree.generate --prompt "Write a function that reverses a string."
  mlx_ddtree.generate --compare --prompt "Write a function that counts vowels."
  mlx_ddtree.generate --show-tree --tree-budget 12 --prompt "Write a function that counts vowels."
  mlx_ddtree.generate --model mlx-community/Qwen3-8B-4bit --max-tokens 512 --prompt -  < question.txt
  mlx_ddtree.generate --n 4 --temp 0.8 --seed 1 --prompt "Write a function that counts vowels."
  mlx_ddtree.generate --model ./my-model --draft-model ./my-drafter --temp 0.7 --seed 1 --json --prompt "Hello"
"""
DEFAULT_PROMPT = "Write a function that checks whether a number is prime."


def make_arguments(program: str = "mlx_ddtree.generate") -> argparse.ArgumentParser:
    """The program's options.  program: how it was called."""
    parser = cli.make_parser("Generate text with DFlash drafts and DDTree draft trees, losslessly.", EXAMPLES, program)
    parser.add_argument("--prompt", "-p", default=DEFAULT_PROMPT, help="the user's message; '-' reads stdin")
    arguments.add_template_options(parser)
    prompt = parser.add_argument_group("prompt, of one answer")
    prompt.add_argument("--ignore-chat-template", action="store_true", help="use the prompt as raw text")
    prompt.add_argument("--prefill-response", metavar="TEXT", help="how the answer begins; it is not printed again")
    prompt.add_argument(
        "--prompt-cache-file", metavar="FILE", help="what mlx_lm.cache_prompt wrote: the beginning of the prompt"
    )
    arguments.add_model_options(parser, several=True)
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
    output.add_argument(
        "--show-tree", action="store_true", help="draw every round's draft tree: in place at a terminal, else on stderr"
    )
    output.add_argument(
        "--show-drafts", action="store_true", help="mark the tokens that were drafted, copied, and the model's own"
    )
    arguments.add_json(output)
    arguments.add_output_options(parser, "say how models were loaded, and statistics (default: a line on a terminal)")
    return parser


def main(argv: Sequence[str] | None = None, program: str = "mlx_ddtree.generate") -> int:
    return cli.run(_work, make_arguments(program).parse_args(argv), several=True, check=check)


def check(args: argparse.Namespace) -> None:
    """Raise OptionError for options that are out of range or exclude each other."""
    if args.n > 1 and (args.compare or args.show_tree or args.show_drafts):
        raise OptionError("--n decodes several answers together: leave out --compare, --show-tree and --show-drafts")
    if args.compare and (args.show_tree or args.show_drafts):
        raise OptionError("--show-tree and --show-drafts show one answer: leave out --compare")
    if args.json and args.show_drafts:
        raise OptionError("--json prints tokens and no colours: leave out --show-drafts")
    if args.prompt_cache_file is not None and (args.n > 1 or args.compare):
        raise OptionError("--prompt-cache-file goes on with one answer: leave out --n and --compare")
    arguments.generation_options(args)


def _work(args: argparse.Namespace) -> int:
    from mlx_ddtree.programs.answering import answer  # noqa: PLC0415  (brings MLX)

    return answer(args)


if __name__ == "__main__":
    sys.exit(main())
