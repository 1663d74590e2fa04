"""The files that mlx_lm.cache_prompt writes: keys and values of a prompt's beginning, for --prompt-cache-file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_lm.models.cache import load_prompt_cache
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.errors import OptionError, PromptError

_PLACE = "<query>"
"""Stands for the user's message where its place in the template's text is looked for, as in mlx_lm.generate."""


@dataclass(frozen=True)
class CacheFile:
    """layers: one of mlx-lm's caches for each of the target's.  model: the target that they were made with."""

    layers: list[Any]
    model: str


def read_cache_file(name: str, model: str | None) -> CacheFile:
    """The caches in a file, for the target `model` or, if that is None, for the one they were made with.

    Raises OptionError where the file is none, or was made with another model.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        raise OptionError(f"{name}: there is no such prompt cache; mlx_lm.cache_prompt makes one")
    try:
        layers, metadata = load_prompt_cache(str(path), return_metadata=True)
        made_with = metadata["model"]
    except Exception as error:  # whatever MLX raises on a file that is something else
        raise OptionError(f"{name} is no prompt cache that mlx_lm.cache_prompt wrote: {error}") from None
    if model is not None and model != made_with:
        raise OptionError(f"{name} was made with {made_with}, not with {model}: give --model {made_with}")
    return CacheFile(layers, made_with)


def rest_token_ids(
    tokenizer: TokenizerWrapper,
    messages: Sequence[Mapping[str, str]],
    template: Mapping[str, Any],
    *,
    continue_last: bool = False,
) -> list[int]:
    """The tokens that follow what a cache file holds: the template's text from the user's message on.

    continue_last: the answer goes on where the last message ends.  Raises PromptError.
    """
    marked = [dict(message) for message in messages]
    question = next(message for message in marked if message["role"] == "user")
    question["content"] = _PLACE
    options = {"tokenize": False, "add_generation_prompt": not continue_last, "continue_final_message": continue_last}
    try:
        text = tokenizer.apply_chat_template(list(messages), **options, **template)
        place = tokenizer.apply_chat_template(marked, **options, **template).index(_PLACE)
    except Exception as error:  # templates are programs that raise what they like
        raise PromptError(f"the chat template cannot use these messages: {error}") from error
    return list(tokenizer.encode(text[place:], add_special_tokens=False))
