"""Numbers out of a saved profile: each is what it must be, or the profile is measured again.

Whatever stands in a user's cache folder can be damaged, and a wrong number there would change decisions for ever, or
answers.  Every function raises ValueError or TypeError with a few words on what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 1e12
"""No count, size or number of seconds of a profile comes near it."""


def number(value: object, least: float = 0.0) -> float:
    """A finite number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:40]!r} is no number")
    if not least <= value <= LARGEST or not isfinite(value):
        raise ValueError(f"{str(value)[:40]} is out of range")
    return float(value)


def positive(value: object) -> float:
    """A finite number above 0, such as seconds."""
    return number(value, least=1e-12)


def integer(value: object, least: int = 0) -> int:
    """A whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{str(value)[:40]!r} is no whole number")
    return int(number(value, least))


def ascending(values: object) -> list[int]:
    """At least one whole number, from 0 on, each above the one before."""
    numbers = [integer(value) for value in items(values)]
    if not numbers or numbers != sorted(set(numbers)):
        raise ValueError("sizes that do not ascend")
    return numbers


def items(values: object) -> list[Any]:
    """A list."""
    if not isinstance(values, list | tuple):
        raise TypeError(f"{str(values)[:40]!r} is no list")
    return list(values)


def table(values: object) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{str(values)[:40]!r} is no table")
    return values


def counts(values: object) -> NDArray[np.float64]:
    """An array of numbers from 0 on, nested as deep as it is, every row as long as its neighbours."""
    array = np.array(_nested_numbers(items(values)), dtype=np.float64)
    if not array.size:
        raise ValueError("counts that are missing")
    return array


def _nested_numbers(values: list[Any]) -> list[Any]:
    read: list[Any] = []
    for value in values:
        if isinstance(value, list):
            read.append(_nested_numbers(value))
        else:
            read.append(number(value))
    return read
