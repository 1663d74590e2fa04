"""mlx_ddtree.convert: a public drafter as MLX weights, quantised or not, from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mlx_ddtree.drafter.known_keys import QUANTISATION_MODES
from mlx_ddtree.errors import OptionError
from mlx_ddtree.hub.names import DTYPES
from mlx_ddtree.programs import arguments, cli

EXAMPLES = """\
  mlx_ddtree.convert --hf-path z-lab/Qwen3-8B-DFlash-b16 -q --mlx-path Qwen3-8B-DFlash-4bit
  mlx_ddtree.convert --hf-path ./my-drafter --dtype float16 --mlx-path my-drafter-fp16 --model ./my-model
  mlx_ddtree.convert --hf-path z-lab/Qwen3-8B-DFlash-b16 -q --q-bits 8 --upload-repo me/Qwen3-8B-DFlash-8bit
"""


def make_arguments(program: str = "mlx_ddtree.convert") -> argparse.ArgumentParser:
    """The program's options.  program: how it was called."""
    parser = cli.make_parser("Convert a DFlash drafter to MLX, quantise it, and publish it.", EXAMPLES, program)
    parser.add_argument(
        "--hf-path",
        "--draft-model",
        dest="draft_model",
        required=True,
        metavar="DRAFTER",
        help="drafter: folder or Hugging Face repository",
    )
    parser.add_argument("--draft-revision", help="branch, tag or commit of --hf-path")
    parser.add_argument("--mlx-path", type=Path, help="new folder (default: mlx_model, or --upload-repo's name)")
    parser.add_argument("--dtype", choices=DTYPES, help="of what is not quantised (default: as stored)")
    parser.add_argument("--model", help="for the model card: the target that it drafts for (default: looked up)")
    arguments.add_json(parser)
    group = parser.add_argument_group("quantisation")
    group.add_argument("-q", "--quantize", action="store_true", help="quantise its linear layers")
    group.add_argument("-d", "--dequantize", action="store_true", help="undo a quantisation")
    group.add_argument("--q-bits", type=int, help="bits a weight (default: the mode's, 4 for affine)")
    group.add_argument("--q-group-size", type=int, help="weights a scale (default: the mode's, 64 for affine)")
    group.add_argument("--q-mode", choices=QUANTISATION_MODES, default="affine", help="default: %(default)s")
    group = parser.add_argument_group("publishing")
    group.add_argument("--upload-repo", help="repository to create or update with the result")
    group.add_argument("--private", action="store_true", help="create it for yourself only")
    arguments.add_output_options(parser, "log how models are loaded")
    return parser


def main(argv: Sequence[str] | None = None, program: str = "mlx_ddtree.convert") -> int:
    return cli.run(_work, make_arguments(program).parse_args(argv), check=check)


def check(args: argparse.Namespace) -> None:
    """Raise OptionError for options that do not belong together."""
    if not args.quantize and (args.q_bits or args.q_group_size or args.q_mode != "affine"):
        raise OptionError("--q-bits, --q-group-size and --q-mode belong to -q")


def _work(args: argparse.Namespace) -> int:
    from mlx_ddtree.programs.converting import run  # noqa: PLC0415  (brings MLX)

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
