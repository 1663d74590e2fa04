"""The training run: steps, schedule, validation, checkpoints."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from tqdm import tqdm

from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.errors import OptionError
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.checkpoint import describe_run, load_checkpoint, save_checkpoint
from mlx_ddtree.training.data import Example, batch_order, make_batch, split_held_out
from mlx_ddtree.training.evaluate import Evaluation, evaluate
from mlx_ddtree.training.loss import (
    batch_features,
    batch_loss,
    default_gamma,
    make_blocks,
    sample_anchors,
    shard_streams,
)
from mlx_ddtree.training.optimizer import OPTIMIZERS, make_optimizer
from mlx_ddtree.training.setup import save_drafter


@dataclass(frozen=True)
class Settings:
    """A run's options; the published recipe where it fits a small machine.

    Exactly one of steps, epochs and minutes is the budget.  gamma None: see `default_gamma`.
    anchors: blocks per sequence and step.  held_out: share of the sequences for validation.
    """

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch_size: int = 8
    anchors: int = 64
    gamma: float | None = None
    lr: float = 6e-4
    weight_decay: float = 0.01
    warmup: float = 0.04
    clip: float = 1.0
    optimizer: str = "adamw"
    seed: int = 0
    held_out: float = 0.05
    evaluate_every: int = 200
    save_every: int = 200

    def __post_init__(self) -> None:
        budgets = [b for b in (self.steps, self.epochs, self.minutes) if b is not None]
        if len(budgets) != 1 or budgets[0] <= 0:
            raise OptionError("give one of --steps, --epochs and --minutes, above 0")
        if min(self.batch_size, self.anchors, self.evaluate_every, self.save_every) < 1 or self.lr <= 0:
            raise OptionError("batch size, anchors, intervals and learning rate must be above 0")
        if self.optimizer not in OPTIMIZERS:
            raise OptionError(f"unknown optimizer {self.optimizer!r}; choose one of {', '.join(OPTIMIZERS)}")

    def total_steps(self, sequences: int) -> int | None:
        """None when the clock decides."""
        if self.epochs is None:
            return self.steps
        return max(1, round(self.epochs * (sequences // min(self.batch_size, sequences))))


@dataclass
class Progress:
    """Where a run stands; what a checkpoint keeps."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0

    def done(self, total_steps: int | None, minutes: float | None) -> float:
        """The share of the budget that is used up."""
        return self.step / total_steps if total_steps else self.seconds / (60.0 * (minutes or 1.0))


def learning_rate(settings: Settings, done: float) -> float:
    """Linear warm-up, then a cosine to 0.  done: share of the budget, 0..1."""
    if done < settings.warmup:
        return settings.lr * max(done / settings.warmup, 1e-2)
    rest = (done - settings.warmup) / (1 - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))


class Trainer:
    """One run of `settings` over `examples`; `output` receives drafter, checkpoint and log.jsonl."""

    def __init__(
        self, target: TreeTarget, drafter: DFlashDrafter, examples: Sequence[Example], output: Path, settings: Settings
    ) -> None:
        self.target, self.drafter, self.output, self.settings = target, drafter, output, settings
        target.taps = drafter.config.target_layer_ids or ()
        target.model.freeze()
        self.examples, self.held_out = split_held_out(examples, settings.held_out, 64, settings.seed)
        self.run = describe_run(drafter, asdict(settings), examples)
        self.optimizer = make_optimizer(settings.optimizer, settings.lr, settings.weight_decay)
        self.total_steps = settings.total_steps(len(self.examples))
        self.batches = batch_order([len(e.token_ids) for e in self.examples], settings.batch_size, settings.seed)
        self.gamma = settings.gamma or default_gamma(drafter.config.block_size)
        self.streams = shard_streams()
        self.progress = Progress()

    def resume(self) -> None:
        """Continue from the checkpoint in `output`, exactly."""
        self.progress = Progress(**load_checkpoint(self.output, self.drafter, self.optimizer, self.run))

    def save(self) -> None:
        """The checkpoint, and the drafter as it is now, ready to use."""
        save_checkpoint(self.output, self.drafter, self.optimizer, self.run, asdict(self.progress))
        save_drafter(self.drafter, self.output)

    def done(self) -> float:
        return self.progress.done(self.total_steps, self.settings.minutes)

    def step(self) -> tuple[float, float]:
        """One update; returns (loss, gradient norm).  Batch and anchors are functions of seed and step."""
        settings, config = self.settings, self.drafter.config
        batch = make_batch([self.examples[i] for i in self.batches(self.progress.step)])
        anchors = sample_anchors(batch, settings.anchors, np.random.default_rng([settings.seed, 3, self.progress.step]))
        blocks = make_blocks(batch, anchors, config.block_size, config.mask_token_id, self.gamma)
        features = batch_features(self.target, batch, self.streams)
        loss, gradients = nn.value_and_grad(
            self.drafter, lambda drafter: batch_loss(drafter, self.target, features, blocks, self.streams)
        )(self.drafter)
        gradients, norm = optim.clip_grad_norm(gradients, settings.clip)
        self.optimizer.learning_rate = learning_rate(settings, self.done())
        self.optimizer.update(self.drafter, gradients)
        mx.eval(self.drafter.parameters(), self.optimizer.state, loss, norm)
        self.progress.step += 1
        self.progress.tokens += int(batch.lengths.sum())
        return loss.item(), norm.item()

    def evaluate(self) -> Evaluation:
        anchors = min(self.settings.anchors, 32)
        return evaluate(self.drafter, self.target, self.held_out, anchors=anchors, gamma=self.gamma)

    def train(self, progress_bar: bool = True) -> dict[str, Any]:
        """Run until the budget is used up or Ctrl-C; returns the summary, its 'finished' says which.

        Either way checkpoint and drafter are saved.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        result = None
        with _bar(self, progress_bar) as bar, _stop_on_signal() as stop:
            while self.done() < 1.0 and not stop.is_set():
                began = time.monotonic()
                loss, norm = self.step()
                self.progress.seconds += (took := time.monotonic() - began)
                bar.update(1 if self.total_steps else took)
                row: dict[str, Any] = {"loss": round(loss, 4), "gradient_norm": round(norm, 4)}
                if self.progress.step % self.settings.evaluate_every == 0 and self.done() < 1.0:
                    result = self.evaluate()
                    row["validation"] = asdict(result)
                self._report(bar, row, result)
                if self.progress.step % self.settings.save_every == 0:
                    self.save()
        self.save()
        finished = self.done() >= 1.0
        result = self.evaluate() if finished or result is None else result
        summary = self._summary(result) | {"finished": finished}
        self._log({"event": "end", **summary})
        return summary

    def _report(self, bar: tqdm, row: dict[str, Any], result: Evaluation | None) -> None:
        progress = self.progress
        speed = progress.tokens / max(progress.seconds, 1e-9)
        tau = "-" if result is None else f"{result.tau:.2f}"
        bar.set_postfix_str(f"loss {row['loss']:.3f}  tau {tau}  {speed:.0f} tok/s")
        rate = float(self.optimizer.learning_rate.item())
        self._log({"step": progress.step, "lr": rate, "seconds": round(progress.seconds, 2), **row})

    def _summary(self, result: Evaluation) -> dict[str, Any]:
        progress = self.progress
        return {
            "output": str(self.output),
            "steps": progress.step,
            "epochs": round(progress.step * min(self.settings.batch_size, len(self.examples)) / len(self.examples), 3),
            "seconds": round(progress.seconds, 1),
            "tokens_per_second": round(progress.tokens / max(progress.seconds, 1e-9), 1),
            "sequences": len(self.examples),
            "held_out_sequences": len(self.held_out),
            "validation_loss": result.loss,
            "slot_accuracy": list(result.accuracy),
            "tau": result.tau,
        }

    def _log(self, row: dict[str, Any]) -> None:
        with (self.output / "log.jsonl").open("a", encoding="utf-8") as file:
            print(json.dumps(row), file=file)


def _bar(trainer: Trainer, enabled: bool) -> tqdm:
    """Counts steps, or seconds when minutes are the budget."""
    progress, minutes = trainer.progress, trainer.settings.minutes
    if trainer.total_steps:
        return tqdm(total=trainer.total_steps, initial=progress.step, desc="train", unit="step", disable=not enabled)
    layout = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
    total = round(60 * (minutes or 1))
    return tqdm(total=total, initial=progress.seconds, desc="train", bar_format=layout, disable=not enabled)


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C (or a polite kill) sets: the step in progress ends first.  A second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread only
        return

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
