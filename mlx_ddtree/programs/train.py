"""mlx_ddtree.train: train a DFlash drafter for a target, from the command line."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tqdm import tqdm

from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.errors import OptionError
from mlx_ddtree.hub.load_target import load_target
from mlx_ddtree.machine import keep_freed_memory
from mlx_ddtree.programs import arguments, cli
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.answering_time import AnsweringTime, AnswerPace
from mlx_ddtree.training.answers import Answering, answer_prompts
from mlx_ddtree.training.chat_format import ChatFormat
from mlx_ddtree.training.checkpoint import stored_progress
from mlx_ddtree.training.examples import Example, usable_examples
from mlx_ddtree.training.forecast import Forecast, Plan, make_forecast
from mlx_ddtree.training.loop import Trainer
from mlx_ddtree.training.mask_token import choose_mask_token
from mlx_ddtree.training.optimizer import OPTIMIZERS
from mlx_ddtree.training.preflight import check_examples, check_resumable, only_run_in, rehearse
from mlx_ddtree.training.reading import read_examples
from mlx_ddtree.training.schedule import ANSWERING_SHARE, LEAST_TRAINING, TrainingProgress, TrainingSettings
from mlx_ddtree.training.setup import (
    V1,
    Layout,
    default_config,
    dflash2_layout,
    dspark_layout,
    new_drafter,
    require_dense,
    start_from,
)
from mlx_ddtree.training.step_pace import measure_step
from mlx_ddtree.training.stopping import stop_on_signal

EXAMPLES = """\
  mlx_ddtree.train --data prompts.jsonl --output my-drafter --minutes 30
  mlx_ddtree.train --model Qwen/Qwen3-4B --data chats.jsonl --output qwen3-4b-drafter --epochs 6
  mlx_ddtree.train --data corpus/*.py --no-regenerate --output my-drafter --layers 1 --block-size 8 --steps 2000
  mlx_ddtree.train --data prompts.jsonl --output my-drafter --minutes 30 --dflash2 --init a-v1-drafter
  mlx_ddtree.train --data prompts.jsonl --output my-drafter --minutes 30 --dspark --layers 2
  mlx_ddtree.train --data prompts.jsonl --output my-drafter --minutes 30 --resume
"""
DEFAULT_EPOCHS = 6.0


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(
        "Train a DFlash drafter: the target answers prompts, the drafter learns them.", EXAMPLES, "mlx_ddtree.train"
    )
    parser.add_argument("--model", help="target: local folder or Hugging Face repository (default: the embedded one)")
    parser.add_argument("--output", required=True, type=Path, help="folder for drafter, answers, checkpoint and log")
    parser.add_argument("--init", type=Path, metavar="DIR", help="start from this drafter instead of random weights")
    parser.add_argument("--resume", action="store_true", help="continue the run in --output; repeat its options")
    parser.add_argument("--seed", type=int, default=0, help="weights, batches, anchors (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", nargs="+", required=True, metavar="FILE", help="JSONL with prompts, messages or text; or text files"
    )
    data.add_argument("--no-regenerate", action="store_true", help="learn the file's responses, not the target's own")
    data.add_argument(
        "--max-tokens", type=arguments.positive, default=256, metavar="N", help="of an answer, or of a window of text"
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


def main(argv: Sequence[str] | None = None) -> int:
    tune_cpu()
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = make_arguments().parse_args(arguments)
    args.command = shlex.join(["mlx_ddtree.train", *arguments])
    return cli.run(train, args)


def tune_cpu() -> None:
    """The CPU backend works on two streams here: let MLX order both streams' work breadth-first, and
    keep MKL from starting two threads for each.  Read at first use, so set before any computation.

    Memory that was freed is kept: without that every large array's pages are mapped anew, half of an element-wise
    pass."""
    if mx.default_device() == mx.cpu:
        keep_freed_memory()
        os.environ.setdefault("MLX_BFS_MAX_WIDTH", "1000")
        os.environ.setdefault("MKL_NUM_THREADS", "1")


def train(args: argparse.Namespace) -> int:
    settings = make_settings(args)
    if not 0 <= args.answering_share <= 1 - LEAST_TRAINING:
        raise OptionError(f"--answering-share {args.answering_share}: give 0 to {1 - LEAST_TRAINING}")
    how = None
    if not args.no_regenerate:
        how = Answering(args.max_tokens, 32, args.sampled_share, args.temp, args.seed)
    with only_run_in(args.output):
        # 1. The target and the data.
        loaded = load_target(args.model)
        began = time.monotonic()
        target = require_dense(loaded.target)
        examples = read_examples(args.data, ChatFormat(loaded.tokenizer), args.max_tokens)

        # 2. Whatever can fail is tried before the target answers, which may take hours.
        check_examples(examples, target, how)
        drafter = make_drafter(args, target, loaded.tokenizer, examples)
        rehearse(drafter, target, examples)
        if args.resume:
            check_resumable(args.output, drafter.config, settings)
        plan = make_plan(args, settings, drafter, target, examples, began)
        foretold = Foretold(plan, args.json)

        # 3. The target's answers, and the run.
        with stop_on_signal() as stop:
            if how is not None:
                answers = args.output / "responses.jsonl"
                clock = AnsweringTime(plan.answering_seconds, stop, foretold.say)
                examples = answer_prompts(target.model, loaded.tokenizer, examples, answers, how, True, clock)
                if stop.is_set():
                    return report_answers(args, len(examples), foretold)
            else:
                foretold.say(AnswerPace(there=len(examples)))
            trainer = Trainer(target, drafter, usable_examples(examples), args.output, settings)
            if args.resume:
                trainer.resume()
            elif args.init is None:
                trainer.start()
            summary = trainer.train(before=time.monotonic() - began, stop=stop)
        return report(args, summary | foretold.field())


def make_plan(
    args: argparse.Namespace,
    settings: TrainingSettings,
    drafter: DFlashDrafter,
    target: TreeTarget,
    examples: Sequence[Example],
    began: float,
) -> Plan:
    """What is known before the answers, with a step's seconds measured.  began: the start of the run's minutes."""
    pace = measure_step(drafter, target, examples, settings, args.max_tokens)
    progress = stored_progress(args.output) if args.resume else TrainingProgress()
    spent = time.monotonic() - began
    answering = math.inf
    if settings.minutes is not None:
        # A run that is resumed has begun to train: its data are the answers that were there.
        answering = 0.0 if args.resume else max(0.0, 60 * settings.minutes * args.answering_share - spent)
    return Plan(settings, drafter.config.block_size, pace, args.max_tokens, answering, spent, progress)


class Foretold:
    """The run's forecast, said once on standard error, as a JSON line with --json."""

    def __init__(self, plan: Plan, as_json: bool) -> None:
        self.plan = plan
        self.as_json = as_json
        self.forecast: Forecast | None = None

    def say(self, pace: AnswerPace) -> None:
        """Make the forecast of a measured pace and print it."""
        self.forecast = make_forecast(self.plan, pace)
        text = json.dumps(self.field()) if self.as_json else self.forecast.text()
        tqdm.write(text, file=sys.stderr)

    def field(self) -> dict[str, object]:
        """{"forecast": its numbers}, for a summary."""
        return {"forecast": None if self.forecast is None else asdict(self.forecast)}


def make_drafter(
    args: argparse.Namespace, target: TreeTarget, tokenizer: TokenizerWrapper, examples: Sequence[Example]
) -> DFlashDrafter:
    """The drafter that --init names, or one of random weights."""
    layout = make_layout(args, target)
    if args.init is not None:
        return start_from(args.init, target, args.block_size, layout)
    token = choose_mask_token(tokenizer, target.vocab_size, examples, args.mask_token)
    config = default_config(
        target,
        token,
        layers=args.layers or 5,
        taps=args.taps or 5,
        block_size=args.block_size,
        layout=layout,
    )
    return new_drafter(config, target, args.seed)


def make_layout(args: argparse.Namespace, target: TreeTarget) -> Layout:
    """What the options add to a v1 drafter."""
    if args.dflash2:
        return dflash2_layout(target, args.selector_rank)
    return dspark_layout(args.markov_rank) if args.dspark else V1


def make_settings(args: argparse.Namespace) -> TrainingSettings:
    epochs = args.epochs
    if args.steps is None and args.minutes is None and epochs is None:
        epochs = DEFAULT_EPOCHS
    names = "steps minutes batch_size anchors gamma lr optimizer seed soft evaluate_every save_every".split()
    return TrainingSettings(epochs=epochs, **{name: getattr(args, name) for name in names})


def report(args: argparse.Namespace, summary: dict[str, object]) -> int:
    if args.json:
        print(json.dumps(summary))
    else:
        print(
            f"{summary['steps']} steps, validation loss {summary['validation_loss']:.3f}, tau {summary['tau']:.2f}; "
            f"the drafter is in {summary['output']}"
        )
    if summary["finished"]:
        return 0
    command = args.command if args.resume else f"{args.command} --resume"
    print(f"stopped early; continue with:\n  {command}", file=sys.stderr)
    return 130


def report_answers(args: argparse.Namespace, sequences: int, foretold: Foretold) -> int:
    """The end of a run that was stopped before its training."""
    if args.json:
        summary = {"output": str(args.output), "steps": 0, "sequences": sequences, "finished": False}
        print(json.dumps(summary | foretold.field()))
    print(
        f"stopped while the target answered: {sequences} sequences are kept; continue with:\n  {args.command}",
        file=sys.stderr,
    )
    return 130


if __name__ == "__main__":
    sys.exit(main())
