"""The training run: steps, schedule, validation, checkpoints."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.files.journal import end_last_line
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.terminal_bar import LINE_SECONDS, Bar
from mlx_ddtree.training.batches import Batch, BatchOrder, make_batch
from mlx_ddtree.training.blocks import default_gamma, make_blocks, sample_anchors, thin_out
from mlx_ddtree.training.checkpoint import load_checkpoint, run_identity, save_checkpoint
from mlx_ddtree.training.evaluate import Evaluation, evaluate_drafter
from mlx_ddtree.training.examples import MOST_HELD_OUT, Example, split_held_out
from mlx_ddtree.training.features import FeatureStore
from mlx_ddtree.training.loss import Step, batch_loss, loss_and_gradients, shard_streams, stored_features
from mlx_ddtree.training.optimizer import make_optimizer
from mlx_ddtree.training.saving import save_drafter
from mlx_ddtree.training.schedule import TrainingProgress, TrainingSettings, learning_rate
from mlx_ddtree.training.start import NORM_SCALES, channel_rms, start_in_closed_form, take_sample
from mlx_ddtree.training.stopping import stop_on_signal
from mlx_ddtree.training.vocabulary import Vocabulary

LOG = "log.jsonl"
STATES = "states"
"""The folder, in a run's output, of what the target computed."""


class Trainer:
    """One run of `settings` over `examples`; `output` receives drafter, checkpoint and log.jsonl."""

    def __init__(
        self,
        target: TreeTarget,
        drafter: DFlashDrafter,
        examples: Sequence[Example],
        output: Path,
        settings: TrainingSettings,
    ) -> None:
        self.target = target
        self.drafter = drafter
        self.output = output
        self.settings = settings
        target.taps = drafter.config.target_layer_ids or ()
        target.model.freeze()
        self.examples, self.held_out = split_held_out(examples, settings.held_out, MOST_HELD_OUT, settings.seed)
        self.scales = self._channel_scales()
        drafter.fc.weight = drafter.fc.weight * mx.array(self.scales)
        self.store = FeatureStore(target, [*self.examples, *self.held_out], output / STATES, self.scales)
        self.vocabulary = Vocabulary(target, self.examples)
        self.identity = run_identity(drafter.config, asdict(settings), examples)
        self.optimizer = make_optimizer(settings.optimizer, settings.lr, settings.weight_decay)
        self.optimizer.init(drafter.trainable_parameters())  # so that a checkpoint before the first step is whole
        self.total_steps = settings.total_steps(len(self.examples))
        lengths = [len(example.token_ids) for example in self.examples]
        self.order = BatchOrder(lengths, settings.batch_size, settings.seed)
        self.gamma = settings.gamma or default_gamma(drafter.config.block_size)
        self.streams = shard_streams()
        self.progress = TrainingProgress()

    def _channel_scales(self) -> NDArray[np.float32]:
        """What features are divided by: measured once a run, over a sample of the answers."""
        file = self.output / STATES / "scales.npy"
        if file.exists():
            kept = np.asarray(np.load(file))
            if len(kept) == self.drafter.fc.weight.shape[1]:
                return kept
        scales = channel_rms(take_sample(self.target, self.examples).features)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, scales)
        return scales

    def start(self) -> None:
        """First weights in closed form, and the final norm's scale at which a few blocks' loss is least."""
        sample = take_sample(self.target, self.examples)
        start_in_closed_form(self.drafter, self.target, sample, self.scales)
        gains = self.drafter.norm.weight
        losses = []
        places, step, batch = self._prepare()
        states = stored_features(self.store, places, batch, self.streams)
        for scale in NORM_SCALES:
            self.drafter.norm.weight = gains * scale
            losses.append(float(np.array(batch_loss(self.drafter, self.target, states, step, self.streams))))
        self.drafter.norm.weight = gains * NORM_SCALES[int(np.argmin(losses))]
        mx.eval(self.drafter.parameters())

    def resume(self) -> None:
        """Continue from the checkpoint in `output`, exactly."""
        self.progress = load_checkpoint(self.output, self.drafter, self.optimizer, self.identity)

    def save(self) -> None:
        """The checkpoint, and the drafter as it is now, ready to use."""
        save_checkpoint(self.output, self.drafter, self.optimizer, self.identity, asdict(self.progress))
        save_drafter(self.drafter, self.output, mx.array(self.scales))

    def done(self) -> float:
        """The share of the budget that is used up."""
        return self.progress.done(self.total_steps, self.settings)

    def _prepare(self) -> tuple[list[int], Step, Batch]:
        """The next step's sequences, blocks at random anchors in them, and part of the head; functions of seed and
        step."""
        settings = self.settings
        config = self.drafter.config
        rng = np.random.default_rng([settings.seed, 3, self.progress.step])
        places = self.order.batch(self.progress.step)
        batch = make_batch([self.examples[i] for i in places])
        anchors = sample_anchors(batch, settings.anchors, rng)
        blocks = thin_out(make_blocks(batch, anchors, config, self.gamma), rng)
        said = np.array(blocks.labels)[np.array(blocks.weights) > 0]
        return places, Step(blocks, self.vocabulary.rows(said, rng), settings.soft), batch

    def step(self) -> tuple[float, float]:
        """One update; returns (loss, gradient norm).  Batch and anchors are functions of seed and step."""
        settings = self.settings

        # 1. A batch, random anchors in it, and the target's states.
        places, step, batch = self._prepare()
        states = stored_features(self.store, places, batch, self.streams)

        # 2. The loss of all blocks and its gradient.
        loss, gradients = loss_and_gradients(self.drafter, self.target, states, step, self.streams)

        # 3. The update.
        gradients, norm = optim.clip_grad_norm(gradients, settings.clip)
        self.optimizer.learning_rate = learning_rate(settings, self.done())
        self.optimizer.update(self.drafter, gradients)
        mx.eval(self.drafter.parameters(), self.optimizer.state, loss, norm)
        self.progress.step += 1
        self.progress.tokens += int(batch.lengths.sum())
        return float(np.array(loss)), float(np.array(norm))

    def evaluate(self) -> Evaluation:
        """Loss, accuracy and tau on the held-out sequences."""
        anchors = min(self.settings.anchors, 32)
        first = iter(range(0, len(self.held_out), 8))

        def features_of(batch: Batch) -> mx.array:
            begin = next(first) + len(self.examples)
            return self.store.batch(range(begin, begin + len(batch.lengths)), batch)[0]

        return evaluate_drafter(
            self.drafter, self.target, self.held_out, anchors=anchors, gamma=self.gamma, features_of=features_of
        )

    def train(
        self, progress_bar: bool = True, before: float = 0.0, stop: threading.Event | None = None
    ) -> dict[str, Any]:
        """Run until the budget is used up or Ctrl-C; returns the summary, its 'finished' says which.

        Either way checkpoint and drafter are saved.

        before: seconds of a new run's minutes that are gone.
        stop: ends the run when it is set; None: Ctrl-C and SIGTERM are waited for here.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        end_last_line(self.output / LOG)
        if self.progress.step == 0:
            self.progress.before = before
        with _bar(self, progress_bar) as bar, nullcontext(stop) if stop is not None else stop_on_signal() as wish:
            result = self._steps(bar, wish)
        self.save()
        finished = self.done() >= 1.0
        if finished or result is None:
            result = self.evaluate()
        summary = self._summary(result) | {"finished": finished}
        self._log({"event": "end", **summary})
        return summary

    def _steps(self, bar: Bar, stop: threading.Event) -> Evaluation | None:
        """Steps, with an evaluation and a checkpoint every few minutes; returns the last evaluation."""
        settings, progress = self.settings, self.progress
        result = None
        saved = evaluated = time.monotonic()
        while self.done() < 1.0 and not stop.is_set():
            began = time.monotonic()
            loss, norm = self.step()
            stepped = time.monotonic()
            progress.seconds += stepped - began
            row: dict[str, Any] = {"loss": round(loss, 4), "gradient_norm": round(norm, 4)}
            if stepped - evaluated > 60 * settings.evaluate_every and self.done() < 1.0:
                result = self.evaluate()
                row["validation"] = asdict(result)
                evaluated = time.monotonic()
                progress.between += evaluated - stepped
            self._report(row)
            if time.monotonic() - saved > 60 * settings.save_every:
                begun = time.monotonic()
                self.save()
                saved = time.monotonic()
                progress.between += saved - begun
            self._draw(bar, loss, result)
        return result

    def _report(self, row: dict[str, Any]) -> None:
        rate = float(self.optimizer.learning_rate.item())
        progress = self.progress
        self._log({"step": progress.step, "lr": rate, "seconds": round(progress.seconds, 2), **row})

    def _draw(self, bar: Bar, loss: float, result: Evaluation | None) -> None:
        progress = self.progress
        speed = progress.tokens / max(progress.seconds, 1e-9)
        tau = "-" if result is None else f"{result.tau:.2f}"
        bar.note = f"loss {loss:.3f}  tau {tau}  {speed:.0f} tok/s"
        bar.reach(progress.step if self.total_steps else progress.clock)

    def _summary(self, result: Evaluation) -> dict[str, Any]:
        progress = self.progress
        seen = progress.step * min(self.settings.batch_size, len(self.examples))
        return {
            "output": str(self.output),
            "steps": progress.step,
            "epochs": round(seen / len(self.examples), 3),
            "seconds": round(progress.seconds, 1),
            "tokens_per_second": round(progress.tokens / max(progress.seconds, 1e-9), 1),
            "sequences": len(self.examples),
            "held_out_sequences": len(self.held_out),
            "validation_loss": result.loss,
            "slot_accuracy": list(result.accuracy),
            "tau": result.tau,
        }

    def _log(self, row: dict[str, Any]) -> None:
        with (self.output / LOG).open("a", encoding="utf-8") as file:
            print(json.dumps(row), file=file)


def _bar(trainer: Trainer, shown: bool) -> Bar:
    """A bar of steps, or of seconds when minutes are the budget."""
    progress = trainer.progress
    how: dict[str, Any] = {"shown": shown, "stays": True, "line_seconds": LINE_SECONDS}
    if trainer.total_steps:
        return Bar("train", trainer.total_steps, progress.step, "steps", **how)
    total = trainer.settings.training_seconds(progress.before)
    return Bar("train", total, min(progress.clock, total), "s", **how)
