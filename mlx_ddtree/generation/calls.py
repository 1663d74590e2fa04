"""How the functions of this package may be called: with keyword arguments or GenerationOptions, and as mlx-lm's are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.pair import Pair

Function = TypeVar("Function", bound=Callable[..., Any])
_NONE_IN_MLX_LM = ("logits_processors", "draft_model", "input_embeddings")
"""Arguments of mlx-lm's functions that are None by default there, and here not: given as None they say nothing."""


def options_of(
    options: GenerationOptions | None, max_tokens: int | None, changes: Mapping[str, Any]
) -> GenerationOptions:
    """What a call asks for: `options` (or the defaults), with keyword arguments in place of theirs.

    Raises OptionError, for an unknown name with the one that was probably meant.
    """
    if options is None:
        options = GenerationOptions()
    elif not isinstance(options, GenerationOptions):
        raise OptionError(f"options is {options!r}: give GenerationOptions(...)")
    wanted = {name: value for name, value in changes.items() if value is not None or name not in _NONE_IN_MLX_LM}
    if max_tokens is not None:
        wanted["max_tokens"] = max_tokens
    return options.changed(**wanted) if wanted else options


def callable_as_in_mlx_lm(function: Function) -> Function:
    """Let `function(pair, prompt)` be called as mlx-lm's `function(model, tokenizer, prompt)` too.

    The tokenizer can only be the pair's own, which is used anyway.  Raises OptionError for others, and for a first
    argument that is no Pair.
    """

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        given = list(arguments)
        for name in ("pair", "model"):
            if not given and name in options:
                given.append(options.pop(name))
        if not given or not isinstance(given[0], Pair):
            what = short(given[0]) if given else "missing"
            raise OptionError(
                f"the first argument is {what}; it must be what load() returns: "
                f'pair = load(...), then {function.__name__}(pair, "Hello")'
            )
        if "tokenizer" in options:
            check_tokenizer(given[0], options.pop("tokenizer"))
        elif len(given) > 1 and _is_tokenizer(given[1]):
            check_tokenizer(given[0], given.pop(1))
        return function(*given, **options)

    return cast(Function, call)


def check_tokenizer(pair: Pair, tokenizer: Any) -> None:
    """Raise OptionError unless this is the pair's tokenizer, wrapped by mlx-lm or not."""
    own = pair.tokenizer
    if tokenizer is not own and tokenizer is not getattr(own, "_tokenizer", None):
        raise OptionError("a pair answers with its own tokenizer: leave this one out, or change pair.tokenizer")


def _is_tokenizer(value: Any) -> bool:
    return hasattr(value, "apply_chat_template")


def short(value: Any) -> str:
    """A value as a part of a message."""
    text = repr(value)
    return text if len(text) <= 40 and "\n" not in text else f"a {type(value).__name__}"
