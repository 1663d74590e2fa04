"""The work of mlx_ddtree.train: data, answers, the run, its report."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.hub.load_target import load_target
from mlx_ddtree.machine import keep_freed_memory
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.answering_time import AnsweringTime, AnswerPace
from mlx_ddtree.training.answers import Answering, answer_prompts
from mlx_ddtree.training.chat_format import ChatFormat
from mlx_ddtree.training.checkpoint import stored_progress
from mlx_ddtree.training.examples import Example, usable_examples
from mlx_ddtree.training.forecast import Forecast, Plan, make_forecast
from mlx_ddtree.training.loop import Trainer
from mlx_ddtree.training.mask_token import choose_mask_token
from mlx_ddtree.training.preflight import check_examples, check_resumable, only_run_in, rehearse
from mlx_ddtree.training.reading import read_examples
from mlx_ddtree.training.schedule import TrainingProgress, TrainingSettings
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

DEFAULT_EPOCHS = 6.0


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
        print(text, file=sys.stderr, flush=True)

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
