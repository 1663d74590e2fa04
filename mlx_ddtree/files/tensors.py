"""safetensors files that know whether they are whole: a checksum stands for all that they hold.

They are read and written with NumPy alone, so a thread that has no stream of MLX's can do it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.errors import OptionError
from mlx_ddtree.untrusted import read_json

CARRIERS: Mapping[str, Any] = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "F64": np.float64,
    "BOOL": np.bool_,
    **{f"I{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
}
"""safetensors' names of number types, and NumPy's of the same size; it has no bfloat16, whose bits travel."""
MOST_HEADER = 16 << 20
"""Bytes of a header."""
_FACTS = "__metadata__"
_SUM = "sha256"


@dataclass(frozen=True)
class Tensor:
    """kind: one of CARRIERS.  values: of that type, in C order."""

    kind: str
    values: NDArray[Any]


@dataclass(frozen=True)
class TensorFile:
    """What a file holds: tensors by name, and texts by name."""

    facts: dict[str, str]
    tensors: dict[str, Tensor]


def write_tensors(file: BinaryIO, held: TensorFile) -> None:
    """Write a whole file, its checksum in its header."""
    table: dict[str, Any] = {_FACTS: dict(held.facts)}
    place = 0
    for name, tensor in held.tensors.items():
        end = place + tensor.values.nbytes
        table[name] = {"dtype": tensor.kind, "shape": list(tensor.values.shape), "data_offsets": [place, end]}
        place = end
    buffers = [np.ascontiguousarray(tensor.values).reshape(-1).view(np.uint8).data for tensor in held.tensors.values()]
    table[_FACTS][_SUM] = _checksum(table, *buffers)
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)
    for buffer in buffers:
        file.write(buffer)


def read_facts(path: Path) -> dict[str, str]:
    """A file's texts, unchecked, from its header alone.  Raises ValueError or OSError."""
    with path.open("rb") as file:
        table = _table(file.read(8), file)
    return _facts(table)


def read_tensors(path: Path) -> TensorFile:
    """All of a file.  Raises ValueError where it is not what was written, OSError where it cannot be read."""
    with path.open("rb") as file:
        table = _table(file.read(8), file)
        data = file.read()
    facts = _facts(table)
    expected = table[_FACTS].pop(_SUM, None)
    if expected != _checksum(table, memoryview(data)):
        raise ValueError("its checksum is another one")
    tensors = {name: _tensor(entry, memoryview(data)) for name, entry in table.items() if name != _FACTS}
    return TensorFile(facts, tensors)


def _checksum(table: Mapping[str, Any], *buffers: memoryview) -> str:
    """What a header without its checksum, and the data behind it, come to."""
    digest = hashlib.sha256(json.dumps(table, sort_keys=True).encode())
    for buffer in buffers:
        digest.update(buffer)
    return digest.hexdigest()


def _table(length: bytes, file: BinaryIO) -> dict[str, Any]:
    size = int.from_bytes(length, "little")
    if len(length) < 8 or size > MOST_HEADER:
        raise ValueError("it has no header")
    return read_json(file.read(size), name="its header", most_bytes=MOST_HEADER, error=OptionError)


def _facts(table: Mapping[str, Any]) -> dict[str, str]:
    facts = table.get(_FACTS)
    if not isinstance(facts, dict) or not all(isinstance(fact, str) for fact in facts.values()):
        raise ValueError("its header has no texts")
    return {name: fact for name, fact in facts.items() if name != _SUM}


def _tensor(entry: Any, data: memoryview) -> Tensor:
    try:
        kind, shape, (first, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        return Tensor(kind, np.frombuffer(data[first:end], CARRIERS[kind]).reshape(shape))
    except (LookupError, TypeError) as error:
        raise ValueError(f"its header describes no tensors: {error}") from None
