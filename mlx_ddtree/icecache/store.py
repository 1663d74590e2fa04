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
_RAW_ON_DEVICE = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32}
"""By bytes of a number: as what its bits are stored, because numpy has no bfloat16."""


class ColdRows:
    """One layer's keys and values of consecutive tokens: a record of (H, Dk + Dv) numbers each.

    The file has no name, so it is gone with the process however that ends.  It is written by calls, which can say
    that the disk is full, and read through a map, whose pages the system drops when memory is short.
    """

    def __init__(self, folder: str | Path, keys: mx.array, values: mx.array) -> None:
        """keys (1, H, n, Dk) and values (1, H, n, Dv) say the shape of a record.  Raises OptionError."""
        self.folder = folder
        self.count = 0
        self._key_dim = keys.shape[3]
        self._width = keys.shape[3] + values.shape[3]
        self._heads = keys.shape[1]
        self._dtype = keys.dtype
        self._raw = np.dtype(_RAW[keys.dtype.size])
        try:
            self._file = tempfile.TemporaryFile(dir=folder, prefix="mlx_ddtree-")  # noqa: SIM115  (lives as long as this)
        except OSError as error:
            raise self._refusal(error) from error
        weakref.finalize(self, self._file.close)
        self._map = np.zeros((0, self._heads, self._width), self._raw)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self.count * self._record

    @property
    def _record(self) -> int:
        """Bytes of a token."""
        return self._heads * self._width * self._raw.itemsize

    def append(self, keys: mx.array, values: mx.array) -> None:
        """Store keys (1, H, m, Dk) and values (1, H, m, Dv) of the next tokens; all or, with OptionError, none."""
        records = mx.concatenate([keys, values], axis=-1)[0].swapaxes(0, 1)
        data = np.array(_bits(records)).tobytes()
        start = self.count * self._record
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._file.fileno(), data[done:], start + done)
        except OSError as error:
            raise self._refusal(error) from error
        self._remap(self.count + keys.shape[2])

    def take(self, tokens: mx.array) -> tuple[mx.array, mx.array]:
        """Keys (B, H, n, Dk) and values (B, H, n, Dv) of stored tokens (H, B, n), whose numbers are waited for."""
        numbers = np.array(tokens)
        heads = np.arange(len(numbers))[:, None, None]
        return self._arrays(self._map[numbers, heads].swapaxes(0, 1))

    def everything(self) -> tuple[mx.array, mx.array]:
        """All stored keys (1, H, count, Dk) and values (1, H, count, Dv)."""
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
        """Read the first `count` tokens of the file; an empty file cannot be mapped."""
        shape = (count, self._heads, self._width)
        if count:
            self._map = np.memmap(self._file, self._raw, "r", shape=shape)
        else:
            self._map = np.zeros(shape, self._raw)
        self.count = count

    def _arrays(self, bits: np.ndarray) -> tuple[mx.array, mx.array]:
        """Stored bits (..., Dk + Dv) -> keys (..., Dk) and values (..., Dv)."""
        numbers = mx.array(bits)
        if self._dtype.size > 1:
            numbers = numbers.view(self._dtype)
        return numbers[..., : self._key_dim], numbers[..., self._key_dim :]

    def _refusal(self, error: OSError) -> OptionError:
        return OptionError(
            f"{self.folder} does not take the cache's pages ({error.strerror}): free some space, or use another folder"
        )


def _bits(x: mx.array) -> mx.array:
    """The bits of numbers as integers of their size."""
    return mx.contiguous(x).view(_RAW_ON_DEVICE[x.dtype.size])
