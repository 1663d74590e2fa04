"""What is said of options that there are not, and of what is said twice."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mlx_ddtree.errors import OptionError, probably_meant

_ELSEWHERE = {
    "temperature": "temp",
    "num_draft_tokens": "block_size",
    "draft_model": "load(target, draft)",
    "max_new_tokens": "max_tokens",
    "response_format": "json_schema",
    "guided_json": "json_schema",
    "guided_regex": "regex",
    "guided_grammar": "grammar",
}
"""Names that users bring from other programs, and what they are called here."""


def refuse_both(name: str, others: set[str]) -> None:
    """Raise OptionError where an object and what would make it are given."""
    if others:
        raise OptionError(f"{name} and {', '.join(sorted(others))} say the same twice: give one or the other")


def refuse_unknown(names: Iterable[str], known: Collection[str]) -> None:
    """Raise OptionError for a name that is no option, with the one that was probably meant."""
    for name in names:
        if name in known:
            continue
        meant = f"did you mean {_ELSEWHERE[name]}?" if name in _ELSEWHERE else probably_meant(name, known, 0.5)
        raise OptionError(f"there is no option {name!r}; {meant}")
