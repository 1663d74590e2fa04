"""What the target computes over the training sequences, computed once: tapped layers and final hidden states on the
disk.

The target's forward is most of a step's work where the drafter is small.  A sequence's states are written to the disk
when a step first needs them, in fp16, 2 bytes for each of (taps + 1) * D numbers a token; the tokens that all sequences
begin with (a system prompt) are there once.  Channels are divided by their root mean square: some have a thousand times
others' size, which no learning rate fits, and 16-bit floats might not hold them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.batches import Batch
from mlx_ddtree.training.examples import Example

MOST_BYTES = 64 << 30
"""Of one run's states on the disk, at most, and never more than half of what is free: what does not fit is computed
anew."""
LARGEST = 6e4
"""Below fp16's largest number, 65,504."""


class FeatureStore:
    """The states of `examples`, which stand in one file of `folder` as far as they were needed and fit.

    scales: (taps * D,) what features are divided by.
    """

    def __init__(
        self,
        target: TreeTarget,
        examples: Sequence[Example],
        folder: Path,
        scales: NDArray[np.float32],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.target = target
        self.examples = examples
        self.scales = scales
        self.split = len(scales)
        self.width = self.split + target.hidden_size
        self.prefix = common_prefix(examples)
        row_bytes = 2 * self.width
        folder.mkdir(parents=True, exist_ok=True)
        most_rows = min(most_bytes, shutil.disk_usage(folder).free // 2) // row_bytes
        own = np.array([len(example.token_ids) - self.prefix for example in examples], np.int64)
        self.first = self.prefix + np.concatenate([[0], np.cumsum(own)])
        self.kept = max(0, int(np.searchsorted(self.first, most_rows, side="right")) - 1)
        rows = int(self.first[self.kept])
        self._open(folder, max(rows, 1))

    def batch(self, places: Sequence[int], batch: Batch) -> tuple[mx.array, mx.array]:
        """Divided features (S, n, taps * D) and final hidden states (S, n, D) of the sequences `places`, float32.

        batch: their tokens.  Padding has zeros, or states that no block reads.
        """
        missing = [row for row, place in enumerate(places) if place >= self.kept or not self.done[place]]
        if len(missing) == len(places):
            states = self._compute(batch.token_ids)
            self._keep(places, states)
            return self._parts(states)
        length = batch.token_ids.shape[1]
        states = np.zeros((len(places), length, self.width), np.float16)
        for row, place in enumerate(places):
            if row not in missing:
                states[row, : self.prefix] = self.rows[: self.prefix]
                own = self.rows[self.first[place] : self.first[place + 1]]
                states[row, self.prefix : self.prefix + len(own)] = own
        if missing:
            computed = self._compute(batch.token_ids[missing])
            self._keep([places[row] for row in missing], computed)
            states[missing] = computed
        return self._parts(states)

    def _parts(self, states: NDArray[np.float16]) -> tuple[mx.array, mx.array]:
        both = mx.array(states).astype(mx.float32)
        return both[..., : self.split], both[..., self.split :]

    def _compute(self, token_ids: NDArray[np.int32]) -> NDArray[np.float16]:
        hidden, features = self.target.forward(mx.array(token_ids), self.target.make_cache())
        assert features is not None, "the target's taps are not set"
        divided = features.astype(mx.float32) / mx.array(self.scales)
        both = mx.concatenate([divided, hidden.astype(mx.float32)], axis=-1)
        return np.array(mx.clip(both, -LARGEST, LARGEST).astype(mx.float16))

    def _keep(self, places: Sequence[int], states: NDArray[np.float16]) -> None:
        for place, sequence in zip(places, states, strict=True):
            if place >= self.kept:
                continue
            length = len(self.examples[place].token_ids)
            self.rows[: self.prefix] = sequence[: self.prefix]
            self.rows[self.first[place] : self.first[place + 1]] = sequence[self.prefix : length]
            self.done[place] = 1

    def _open(self, folder: Path, rows: int) -> None:
        """Map the files, empty where they belong to other sequences, taps or scales."""
        about = folder / "about.json"
        identity = self._identity(rows)
        fits = about.exists() and about.read_text(encoding="utf-8") == identity
        mode: Any = "r+" if fits else "w+"
        self.rows = np.memmap(folder / "states.f16", np.float16, mode, shape=(rows, self.width))
        self.done = np.memmap(folder / "done", np.uint8, mode, shape=(max(len(self.examples), 1),))
        about.write_text(identity, encoding="utf-8")

    def _identity(self, rows: int) -> str:
        digest = hashlib.sha256(self.scales.tobytes())
        for example in self.examples:
            digest.update(np.array(example.token_ids, np.int32).tobytes())
        digest.update(np.array(self.target.anatomy.norm_gains).tobytes())  # another model's differ
        said = {"sequences": digest.hexdigest(), "taps": list(self.target.taps), "rows": rows, "width": self.width}
        return json.dumps(said)


def common_prefix(examples: Sequence[Example]) -> int:
    """How many tokens all sequences begin with; less than the shortest has."""
    first = examples[0].token_ids
    shared = len(first) - 1
    for example in examples:
        tokens = example.token_ids
        shared = min(shared, len(tokens) - 1)
        while tokens[:shared] != first[:shared]:
            shared -= 1
    return max(0, shared)
