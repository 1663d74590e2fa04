"""How an option is given as text and which values it takes, declared once for command line, chat and Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mlx_ddtree.errors import OptionError

FLAG = "flag"
"""The key of a field's Flag in its metadata."""
LARGEST = 2**63
"""Whole numbers from here on fit no array's type."""
NONE = "none"
"""How a chat writes that an option is not set."""


@dataclass(frozen=True)
class Flag:
    """What the command line, a chat's /set and the checks know of an option.

    group: the title that it stands under in --help.
    help: one clause for --help.
    least, most: bounds that belong to the range; above: a bound that does not.
    choices: the only values it takes, if any; taken from a Literal type.
    metavar: what stands for the value in --help.
    short: a second name on the command line.
    reaches_out: whether its value names a file or a repository; then a saved conversation cannot set it.
    kind: int, float, str, tuple (texts), or a function that reads a text and raises ValueError; taken from the type.
    """

    group: str
    help: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple[Any, ...] = ()
    metavar: str | None = None
    short: str | None = None
    reaches_out: bool = False
    kind: Callable[[str], Any] | None = None

    @property
    def several(self) -> bool:
        """Whether it takes any number of texts."""
        return self.kind is tuple

    def parse(self, text: str) -> Any:
        """The value that a text stands for; ValueError if it stands for none."""
        assert self.kind is not None
        return (text,) if self.several else self.kind(text)

    def contains(self, value: Any) -> bool:
        """Whether a number lies between the bounds."""
        if self.least is not None and value < self.least:
            return False
        if self.above is not None and value <= self.above:
            return False
        return self.most is None or value <= self.most

    def range_text(self) -> str:
        """The numbers it takes, in words."""
        if self.above is not None:
            most = "" if self.most is None else f" and at most {self.most:g}"
            return f"a number above {self.above:g}{most}"
        if self.most is not None:
            return f"a number between {self.least:g} and {self.most:g}"
        return f"{self.least:g} or more"


def number_or_text(text: str) -> int | str:
    """A whole number where the text is one, else the text."""
    return int(text) if text.lstrip("-").isdecimal() else text


def option(default: Any, group: str, help_text: str, **more: Any) -> Any:
    """A dataclass's field with a Flag, whose other attributes are `more`."""
    return field(default=default, metadata={FLAG: Flag(group, help_text, **more)})


def flags_of(options: type) -> dict[str, Flag]:
    """The flags of a dataclass's fields by name, with what their types say."""
    flags = {member.name: member.metadata[FLAG] for member in fields(options) if FLAG in member.metadata}
    types = _types_of(options, {name for name, flag in flags.items() if flag.kind is None})
    return {name: _with_type(flag, types[name]) if name in types else flag for name, flag in flags.items()}


def _types_of(options: type, names: set[str]) -> dict[str, Any]:
    """The types of some fields; those of others may name what is not imported before it is used."""
    annotations = {member.name: member.type for member in fields(options) if member.name in names}
    return get_type_hints(
        type(options.__name__, (), {"__annotations__": annotations, "__module__": options.__module__})
    )


def _with_type(flag: Flag, annotation: Any) -> Flag:
    """The flag with the kind and the choices of int, float, str, Literal or Sequence, each optional."""
    if get_origin(annotation) is Literal:
        return replace(flag, kind=str, choices=get_args(annotation))
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    for kind in (int, float, str):
        if kind in parts:
            return replace(flag, kind=kind)
    return replace(flag, kind=tuple)


def checked(name: str, flag: Flag, default: Any, value: Any) -> Any:
    """A value as the option holds it: None only where that is the default, numbers as numbers, texts as a tuple.

    Raises OptionError with the values that the option takes.
    """
    if value is None and default is None:
        return None
    wanted = _KINDS.get(flag.kind)
    if wanted is not None:
        kind, take = wanted
        taken = take(value)
        if taken is None:
            raise OptionError(f"{name} is {_shown(value)}; use {kind}")
        value = taken
    if flag.choices and value not in flag.choices:
        raise OptionError(f"unknown {name} {_shown(value)}; choose one of {', '.join(map(str, flag.choices))}")
    if not flag.contains(value):
        raise OptionError(f"{name} {_shown(value)} is out of range; use {flag.range_text()}")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    number = int(value.__index__())
    return number if abs(number) < LARGEST else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, Sequence):
        return None
    if not all(isinstance(text, str) and text for text in value):
        return None
    return tuple(value)


_KINDS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    int: ("a whole number", _whole),
    float: ("a number", _number),
    str: ("a text", _text),
    tuple: ("texts of one character or more", _texts),
}
