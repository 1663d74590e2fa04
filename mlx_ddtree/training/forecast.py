"""How long a training run will take and what it may come to, from a few measured seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mlx_ddtree.training.answering_time import AnswerPace
from mlx_ddtree.training.examples import held_out_count
from mlx_ddtree.training.schedule import TrainingProgress, TrainingSettings

GAIN_OF_A_MILLION = 0.8
GAIN_EXPONENT = 0.35
"""tau - 1 = 0.8 * (anchors / 1e6) ** 0.35: SmolLM2-135M-Instruct, two drafter layers, block 8, fresh answers of general
chat; 0.30, 0.58, 0.84, 1.14, 1.44, 1.73 million anchors gave tau 1.53, 1.66, 1.74, 1.84, 1.92, 1.97."""
TAU_FACTOR = 1.5
"""Either way: other targets, texts and shapes than the one that was measured."""


@dataclass(frozen=True)
class StepPace:
    """Seconds of a training step of a whole batch.

    step: with states that are stored.  states: of the target's forward besides, where they are not.
    """

    step: float
    states: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What of a run is known before it.

    max_tokens: of an answer.
    answering_seconds: that answers may take, infinite without a limit.
    spent: seconds of the minutes that are gone when the answering begins.
    progress: of the run that is resumed.
    """

    settings: TrainingSettings
    block_size: int
    pace: StepPace
    max_tokens: int = 256
    answering_seconds: float = math.inf
    spent: float = 0.0
    progress: TrainingProgress = field(default_factory=TrainingProgress)


@dataclass(frozen=True)
class Forecast:
    """What a run will take and come to, roughly.

    answers, answers_a_minute, answering_minutes: the sequences there will be, and how the missing ones come.
    anchors, anchors_a_second, training_minutes: of the training, what a resumed run has seen counted in `anchors` only.
    passes: how often a sequence is seen.  tau_low, tau_high: a rough range.
    """

    answers: int
    answers_a_minute: float
    answering_minutes: float
    anchors: int
    anchors_a_second: float
    training_minutes: float
    passes: float
    tau_low: float
    tau_high: float

    def text(self) -> str:
        """The forecast in three lines."""
        answers = f"{self.answers:,} answers are there"
        if self.answering_minutes:
            pace = f"{self.answers_a_minute:.3g} answers a minute"
            answers = f"{pace}: {self.answers:,} answers after {_duration(self.answering_minutes)}"
        training = (
            f"{self.anchors_a_second:.3g} anchors a second: {float(f'{self.anchors:.2g}'):,.0f} after "
            f"{_duration(self.training_minutes)} of training, {self.passes:.1f} times through the answers"
        )
        tau = (
            f"a rough tau: {self.tau_low:.1f} to {self.tau_high:.1f}; more for narrow texts, less for answers that are "
            "seen many times"
        )
        return f"forecast: {answers}\nforecast: {training}\nforecast: {tau}"


def make_forecast(plan: Plan, answering: AnswerPace) -> Forecast:
    """The forecast of a run whose answers come at a measured pace."""
    settings = plan.settings

    # 1. The answers that come in their time.
    rate = answering.answers_a_second(plan.max_tokens)
    new = 0
    answering_seconds = 0.0
    if answering.missing and rate:
        answering_seconds = min(answering.missing / rate, plan.answering_seconds)
        new = max(answering.finished, round(rate * answering_seconds))
    answers = answering.there + new

    # 2. The steps that are left, and their time.
    sequences = max(1, answers - held_out_count(answers, settings.held_out))
    batch = min(settings.batch_size, sequences)
    progress = plan.progress
    total = settings.total_steps(sequences)
    left: float
    if total is not None:
        left = max(0, total - progress.step)
        training = _seconds_of(left, plan, sequences // batch)
    else:
        before = progress.before if progress.step else plan.spent + answering_seconds
        training = max(0.0, settings.training_seconds(before) - progress.clock)
        left = _steps_in(training, plan, sequences // batch)

    # 3. What they are good for.
    anchors = batch * settings.anchors * (progress.step + left)
    low, high = rough_tau(anchors, plan.block_size)
    return Forecast(
        answers=answers,
        answers_a_minute=60 * rate,
        answering_minutes=answering_seconds / 60,
        anchors=round(anchors),
        anchors_a_second=batch * settings.anchors * left / training if training else 0.0,
        training_minutes=training / 60,
        passes=batch * (progress.step + left) / sequences,
        tau_low=low,
        tau_high=high,
    )


def rough_tau(anchors: float, block_size: int) -> tuple[float, float]:
    """(low, high) of the tau that so many anchors of fresh answers may give; never more than the block has tokens."""
    gain = GAIN_OF_A_MILLION * (anchors / 1e6) ** GAIN_EXPONENT
    return min(1 + gain / TAU_FACTOR, block_size), min(1 + gain * TAU_FACTOR, block_size)


def _first_pass(plan: Plan, batches: int) -> int:
    """Steps that compute the target's states, as they are the first to see their sequences."""
    return max(0, batches - plan.progress.step)


def _seconds_of(steps: float, plan: Plan, batches: int) -> float:
    return steps * plan.pace.step + min(steps, _first_pass(plan, batches)) * plan.pace.states


def _steps_in(seconds: float, plan: Plan, batches: int) -> float:
    first = _first_pass(plan, batches)
    whole = plan.pace.step + plan.pace.states
    if seconds <= first * whole:
        return seconds / whole
    return first + (seconds - first * whole) / plan.pace.step


def _duration(minutes: float) -> str:
    if minutes < 1:
        return f"{60 * minutes:.0f} seconds"
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
