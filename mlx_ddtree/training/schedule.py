"""A training run's options, its budget and its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlx_ddtree.errors import OptionError

OPTIMIZERS = ("adamw", "muon")
ANSWERING_SHARE = 0.4
"""Of a run's minutes, what the target may take for its answers."""
LEAST_TRAINING = 0.1
"""Of a run's minutes, what is for training however long all before it took."""


@dataclass(frozen=True)
class TrainingSettings:
    """A run's options; the published recipe where it fits a small machine.

    Exactly one of steps, epochs and minutes is the budget.  minutes: of the whole run, whose training takes what the
    answers leave.
    batch_size: sequences a step.  anchors: blocks per sequence and step.
    gamma: decay of the slots' weights; None is `default_gamma`.
    lr: peak learning rate.  warmup: the share of the budget until it is reached.  clip: largest gradient norm.
    held_out: share of the sequences for validation.
    soft: share of the loss against the target's own distribution.
    evaluate_every, save_every: minutes.

    Raises OptionError for values that cannot be.
    """

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch_size: int = 8
    anchors: int = 64
    gamma: float | None = None
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.04
    clip: float = 1.0
    optimizer: str = "adamw"
    seed: int = 0
    held_out: float = 0.05
    soft: float = 0.5
    evaluate_every: float = 3.0
    save_every: float = 3.0

    def __post_init__(self) -> None:
        budgets = [budget for budget in (self.steps, self.epochs, self.minutes) if budget is not None]
        if len(budgets) != 1 or not 0 < budgets[0] < math.inf:
            raise OptionError("give one of --steps, --epochs and --minutes, above 0")
        intervals = min(self.evaluate_every, self.save_every)
        if min(self.batch_size, self.anchors) < 1 or not 0 < self.lr < math.inf or not intervals > 0:
            raise OptionError("batch size, anchors, intervals and learning rate must be above 0")
        if self.gamma is not None and not 0 < self.gamma < math.inf:
            raise OptionError(f"--gamma {self.gamma}: give a number above 0")
        if not 0 <= self.soft <= 1:
            raise OptionError(f"--soft {self.soft} is no share: give 0 to 1")
        if self.seed < 0:
            raise OptionError(f"--seed {self.seed}: give a number, 0 or larger")
        if self.optimizer not in OPTIMIZERS:
            raise OptionError(f"unknown optimizer {self.optimizer!r}; choose one of {', '.join(OPTIMIZERS)}")

    def total_steps(self, sequences: int) -> int | None:
        """Steps of the whole run over so many sequences; None when the clock decides."""
        if self.epochs is None:
            return self.steps
        batches = sequences // min(self.batch_size, sequences)
        return max(1, round(self.epochs * batches))

    def training_seconds(self, before: float) -> float:
        """Seconds of `minutes` that are for training when `before` of them went by before the first step."""
        whole = 60.0 * (self.minutes or 0.0)
        return max(whole - before, LEAST_TRAINING * whole)


@dataclass
class TrainingProgress:
    """Where a run stands; what a checkpoint keeps.

    step: updates made.  seconds: spent on them.  tokens: of the sequences they saw.
    before: seconds of the run before its first step.  between: seconds of evaluations and checkpoints.
    """

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    before: float = 0.0
    between: float = 0.0

    @property
    def clock(self) -> float:
        """Seconds of training, whatever they were spent on."""
        return self.seconds + self.between

    def done(self, total_steps: int | None, settings: TrainingSettings) -> float:
        """The share of the budget that is used up, which may be more than 1."""
        if total_steps:
            return self.step / total_steps
        return self.clock / settings.training_seconds(self.before)


def learning_rate(settings: TrainingSettings, done: float) -> float:
    """Linear warm-up, then a cosine to 0.  done: share of the budget, 0..1."""
    if done < settings.warmup:
        return settings.lr * max(done / settings.warmup, 1e-2)
    rest = (done - settings.warmup) / (1 - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))
