"""The values of a drafter's config.json with checked types, wherever they stand in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from mlx_ddtree.drafter.known_keys import COPIED, HARMLESS, NESTED, UNDERSTOOD
from mlx_ddtree.errors import ConfigError

LARGEST = {"num_hidden_layers": 1024, "block_size": 1024, "conv_kernel_size": 1024}
"""What is far above every drafter: more would run for ever."""
LARGEST_SIZE = 2**31 - 1
"""MLX counts along an axis in 32 bits."""
_KINDS: dict[str, tuple[type, ...]] = {"number": (int, float), "list": (list, tuple), "object": (Mapping,)}


class ConfigKeys:
    """Looks every key up at the top level first, then inside the objects of NESTED that the file has.

    All methods raise ConfigError naming the key.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.places: list[Mapping[str, Any]] = [{key: value for key, value in config.items() if value is not None}]
        self.places += [self.typed("object", name) for name in NESTED if self.get(name) is not None]

    def get(self, *keys: str, default: Any = None) -> Any:
        """The value of the first of `keys` that is there and not null, of whatever type."""
        for place in self.places:
            for key in keys:
                if place.get(key) is not None:
                    return place[key]
        return default

    def integer(self, key: str, default: int | None = None, least: int = 0) -> int:
        """A whole number from `least` up to what no drafter exceeds."""
        value = self.get(key, default=default)
        most = LARGEST.get(key, LARGEST_SIZE)
        if not is_integer(value) or not least <= value <= most:
            problem = "is missing" if value is None else f"is {value!r}, not a whole number from {least} to {most:,}"
            raise ConfigError(f"drafter config.json: {key!r} {problem}")
        return value

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number from 1."""
        return self.integer(key, default, least=1)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self.get(key, default=default)
        if not isinstance(value, bool):
            raise ConfigError(f"drafter config.json: {key!r} is {value!r}, but must be true or false")
        return value

    def above_zero(self, *keys: str, default: float | None = None) -> float | None:
        """A finite number above 0, or the default."""
        value = self.typed("number", *keys, default=default)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"drafter config.json: {keys[0]!r} is {value!r}, but must be a number above 0")
        return value

    def typed(self, kind: str, *keys: str, default: Any = None) -> Any:
        """The value if it is a JSON `kind` (number, list, object), or the default."""
        value = self.get(*keys, default=default)
        if value is not None and (isinstance(value, bool) or not isinstance(value, _KINDS[kind])):
            raise ConfigError(f"drafter config.json: {keys[0]!r} is {value!r}, but must be of type {kind}")
        return value

    def integers(self, *keys: str) -> list[int | None] | None:
        """A list of whole numbers, null and negative ones too, or None."""
        values = self.typed("list", *keys)
        for value in values or ():
            if value is not None and not (is_integer(value) and abs(value) <= LARGEST_SIZE):
                raise ConfigError(f"drafter config.json: {keys[0]!r} is {values!r}, not a list of whole numbers")
        return values

    def refuse_value(self, key: str, why: str) -> None:
        """There is no computation here for what the file says under this key."""
        raise ConfigError(f"drafter config.json: {key!r} = {_short(self.get(key))} is not supported: {why}")

    def refuse_unknown(self, architecture: str) -> None:
        """A key that is not known could change the computation, and nobody would see it but by slow drafting."""
        for place in self.places:
            for key in place:
                if key not in UNDERSTOOD and key not in HARMLESS and key not in COPIED:
                    raise ConfigError(_about_unknown(key, place[key], architecture))


def is_integer(value: Any) -> bool:
    """Whether a JSON value is a whole number (true and false are none)."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_above_zero(value: Any) -> bool:
    """Whether a JSON value is a finite number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _short(value: Any) -> str:
    shown = repr(value)
    return f"{shown[:40]}..." if len(shown) > 40 else shown


def _about_unknown(key: str, value: Any, architecture: str) -> str:
    close = get_close_matches(key, UNDERSTOOD, n=3)
    known = f"like it are known: {', '.join(close)}" if close else "no known key is like it"
    return (
        f"drafter config.json: key {key!r} = {_short(value)} is not understood in a {architecture}, and a drafter that "
        f"is read wrongly drafts wrong tokens ({known}). Please report this line and the name of the checkpoint; until "
        "the key is known here, use another drafter or decode plainly (draft=False / --method ar)"
    )
