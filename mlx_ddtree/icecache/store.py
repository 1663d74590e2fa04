"""Keys and values that are not in memory but in a file."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_ddtree.errors import OptionError

_RAW = {1: np.uint8, 2: np.uint16, 4: np.uint32}
"""numpy has no bfloat16: what is stored are bits."""


class ColdRows:
    """One layer's keys and values of consecutive tokens: a record of (H, Dk + Dv) numbers each.

    The file has no name, so it is gone with the process however that ends.  It is written by calls, which can say
    that the disk is full, and read through a map, whose pages the system drops when memory is short.
    """

    def __init__(self, folder: str | Path, keys: mx.array, values: mx.array) -> None:
        """keys (1, H, n, Dk) and values (1, H, n, Dv) say the shape of a record.  Raises OptionError."""
        self.folder, self.count = folder, 0
        self._dims, self._dtype, self._heads = (keys.shape[3], values.shape[3]), keys.dtype, keys.shape[1]
        self._raw = np.dtype(_RAW[keys.dtype.size])
        try:
            self._file = tempfile.TemporaryFile(dir=folder, prefix="mlx_ddtree-")  # noqa: SIM115  (lives as long as this)
        except OSError as error:
            raise self._refusal(error) from error
        weakref.finalize(self, self._file.close)
        self._map = np.zeros((0, self._heads, sum(self._dims)), self._raw)

    @property
    def nbytes(self) -> int:
        """On disk."""
        return self.count * self._record

    @property
    def _record(self) -> int:
        return self._heads * sum(self._dims) * self._raw.itemsize

    def append(self, keys: mx.array, values: mx.array) -> None:
        """Keys (1, H, m, Dk) and values (1, H, m, Dv) of the next tokens; all of them or, with OptionError, none."""
        rows = mx.concatenate([keys, values], axis=-1)[0].swapaxes(0, 1)
        data = np.array(_bits(rows)).tobytes()
        place, end = self.count * self._record, len(data)
        try:
            done = 0
            while done < end:
                done += os.pwrite(self._file.fileno(), data[done:], place + done)
        except OSError as error:
            raise self._refusal(error) from error
        self._remap(self.count + keys.shape[2])

    def take(self, places: mx.array) -> tuple[mx.array, mx.array]:
        """places (H, B, n): which of the stored tokens, waited for -> keys (B, H, n, Dk), values (B, H, n, Dv)."""
        where = np.array(places)
        heads = np.arange(len(where))[:, None, None]
        return self._arrays(self._map[where, heads].swapaxes(0, 1))

    def everything(self) -> tuple[mx.array, mx.array]:
        """Keys (1, H, count, Dk), values (1, H, count, Dv)."""
        return self._arrays(np.ascontiguousarray(self._map.swapaxes(0, 1)[None]))

    def truncate(self, count: int) -> None:
        """Forget all but the first `count` tokens."""
        self._remap(count)

    def __deepcopy__(self, memo: Mapping[int, Any]) -> ColdRows:
        keys, values = self.everything()
        other = ColdRows(self.folder, keys, values)
        other.append(keys, values)
        return other

    def _remap(self, count: int) -> None:
        shape = (count, self._heads, sum(self._dims))
        self._map = np.memmap(self._file, self._raw, "r", shape=shape) if count else np.zeros(shape, self._raw)
        self.count = count

    def _arrays(self, rows: np.ndarray) -> tuple[mx.array, mx.array]:
        whole = mx.array(rows)
        whole = whole if self._dtype.size == 1 else whole.view(self._dtype)
        return whole[..., : self._dims[0]], whole[..., self._dims[0] :]

    def _refusal(self, error: OSError) -> OptionError:
        return OptionError(
            f"{self.folder} does not take the cache's pages ({error.strerror}): free some space, or use another folder"
        )


def _bits(x: mx.array) -> mx.array:
    kinds = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32}
    return mx.contiguous(x).view(kinds[x.dtype.size])
