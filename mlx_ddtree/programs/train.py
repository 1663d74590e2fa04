"""mlx_ddtree.train: train a DFlash drafter for a target, from the command line."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mlx_ddtree.errors import OptionError
from mlx_ddtree.programs import arguments, cli
from mlx_ddtree.training.schedule import ANSWERING_SHARE, LEAST_TRAINING, OPTIMIZERS

EXAMPLES = """\
  mlx_ddtree.train --data prompts.jsonl --output my-drafter --minutes 30
  mlx_ddtree.train --model Qwen/Qwen3-4B --data chats.jsonl --output qwen3-4b-drafter --epochs 6
  mlx_ddtree.train --data corpus/*.py --no-regenerate --output my-drafter --layers 1 --block-size 8 --steps 2000
  mlx_ddtree.train --data prompts.jsonl --output my-drafter --minutes 30 --dflash2 --init a-v1-drafter
  mlx_ddtree.train --data prompts.jsonl --output my-drafter --minutes 30 --dspark --layers 2
  mlx_ddtree.train --data prompts.jsonl --output my-drafter --minutes 30 --resume
"""


def make_arguments(program: str = "mlx_ddtree.train") -> argparse.ArgumentParser:
    """The program's options.  program: how it was called."""
    about = "Train a DFlash drafter: the target answers prompts, the drafter learns them."
    parser = cli.make_parser(about, EXAMPLES, program)
    parser.add_argument("--model", help="target: local folder or Hugging Face repository (default: the embedded one)")
    parser.add_argument("--output", required=True, type=Path, help="folder for drafter, answers, checkpoint and log")
    parser.add_argument("--init", type=Path, metavar="DIR", help="start from this drafter instead of random weights")
    parser.add_argument("--resume", action="store_true", help="continue the run in --output; repeat its options")
    parser.add_argument("--seed", type=int, default=0, help="weights, batches, anchors (default: %(default)s)")
    arguments.add_json(parser)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", nargs="+", required=True, metavar="FILE", help="JSONL with prompts, messages or text; or text files"
    )
    data.add_argument("--no-regenerate", action="store_true", help="learn the file's responses, not the target's own")
    data.add_argument(
        "--max-tokens",
        "-m",
        type=arguments.positive,
        default=256,
        metavar="N",
        help="of an answer, or of a window of text",
    )
    data.add_argument("--sampled-share", type=float, default=0.25, help="of answers that are sampled (%(default)s)")
    data.add_argument("--temp", type=float, default=0.7, help="temperature of the sampled ones (%(default)s)")
    shape = parser.add_argument_group("drafter")
    shape.add_argument("--layers", type=arguments.positive, help="default: 5")
    shape.add_argument("--taps", type=arguments.positive, help="target layers it reads (default: 5)")
    shape.add_argument("--block-size", type=arguments.positive, metavar="B", help="default: 16; with the next two, 8")
    kind = shape.add_mutually_exclusive_group()
    kind.add_argument("--dflash2", action="store_true", help="a DFlash 2 drafter; with --init, made of a v1 drafter")
    kind.add_argument("--dspark", action="store_true", help="a DSpark drafter; with --init, made of a v1 drafter")
    shape.add_argument(
        "--selector-rank", type=arguments.positive, metavar="R", help="of DFlash 2's selector (default: 256)"
    )
    shape.add_argument(
        "--markov-rank", type=arguments.positive, metavar="R", help="of DSpark's Markov head (default: 256)"
    )
    shape.add_argument("--mask-token", type=int, metavar="ID", help="default: the tokenizer's, or an unused id")
    _add_training_options(parser)
    arguments.add_output_options(parser, "log how models are loaded")
    return parser


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    budget = group.add_mutually_exclusive_group()
    budget.add_argument("--epochs", type=float, help="default: 6")
    budget.add_argument("--steps", type=int)
    budget.add_argument(
        "--minutes",
        type=float,
        help="of the whole run from the loaded model on, answers included; the learning rate follows the clock",
    )
    group.add_argument(
        "--answering-share",
        type=float,
        default=ANSWERING_SHARE,
        help="of --minutes that the answers may take; a later run adds to them (default: %(default)s)",
    )
    group.add_argument("--batch-size", type=int, default=8, help="sequences a step (default: %(default)s)")
    group.add_argument("--anchors", type=int, default=64, help="blocks a sequence and step (default: %(default)s)")
    group.add_argument("--gamma", type=float, help="decay of the slots' weights (default: 4 / 5 / 7 for 8 / 10 / 16)")
    group.add_argument("--lr", type=float, default=1e-3, help="peak learning rate (default: %(default)s)")
    group.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw", help="default: %(default)s, as published")
    group.add_argument(
        "--soft", type=float, default=0.5, help="share of the loss against the target's distribution (%(default)s)"
    )
    group.add_argument("--evaluate-every", type=float, default=3.0, metavar="MINUTES", help="default: %(default)s")
    group.add_argument("--save-every", type=float, default=3.0, metavar="MINUTES", help="default: %(default)s")


def main(argv: Sequence[str] | None = None, program: str = "mlx_ddtree.train") -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    args = make_arguments(program).parse_args(given)
    args.command = shlex.join(["mlx_ddtree.train", *given])
    return cli.run(_work, args, check=check)


def check(args: argparse.Namespace) -> None:
    """Raise OptionError for options that are out of range."""
    if not 0 <= args.answering_share <= 1 - LEAST_TRAINING:
        raise OptionError(f"--answering-share {args.answering_share}: give 0 to {1 - LEAST_TRAINING}")


def _work(args: argparse.Namespace) -> int:
    from mlx_ddtree.programs.training import train, tune_cpu  # noqa: PLC0415  (brings MLX)

    tune_cpu()
    return train(args)


if __name__ == "__main__":
    sys.exit(main())
