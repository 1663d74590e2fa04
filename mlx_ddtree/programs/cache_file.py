"""The files that mlx_lm.cache_prompt writes: keys and values of a prompt's beginning, for --prompt-cache-file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, CacheList, QuantizedKVCache, load_prompt_cache
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.errors import OptionError, PromptError
from mlx_ddtree.pair import Pair
from mlx_ddtree.untrusted import read_json

_PLACE = "<query>"
"""Stands for the user's message where its place in the template's text is looked for, as in mlx_lm.generate."""


@dataclass(frozen=True)
class CacheFile:
    """What a file holds.

    name: of the file.
    layers: one of mlx-lm's caches for each of the target's.
    model: the target that they were made with.
    end_tokens: what ends answers besides, if --eos-token was given when they were made.
    """

    name: str
    layers: list[Any]
    model: str
    end_tokens: list[str] = field(default_factory=list)

    def check(self, pair: Pair) -> None:
        """Raise OptionError unless the layers are as large as this pair's target makes them."""
        probe = pair.target.make_cache()
        with pair.lock:
            pair.target.forward(mx.array([[0]]), probe)  # never evaluated: the shapes are known without
        if [_sizes(layer) for layer in self.layers] != [_sizes(layer) for layer in probe]:
            raise OptionError(
                f"{self.name} was made with another model than {self.model} is now: make it again with "
                f"mlx_lm.cache_prompt --model {self.model}"
            )


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
        end_token = read_json(metadata["tokenizer_config"]).get("eos_token")
    except Exception as error:  # whatever MLX raises on a file that is something else
        raise OptionError(f"{name} is no prompt cache that mlx_lm.cache_prompt wrote: {error}") from None
    if model is not None and model != made_with:
        raise OptionError(f"{name} was made with {made_with}, not with {model}: give --model {made_with}")
    return CacheFile(name, layers, made_with, [end_token] if isinstance(end_token, str) else [])


def _sizes(layer: Any) -> Any:
    """What a layer's arrays have for every token, or in all: heads and numbers of keys and values, sizes of states."""
    if isinstance(layer, CacheList):
        return [_sizes(inner) for inner in layer.caches]
    if isinstance(layer, ArraysCache):
        return [None if state is None else state.shape for state in layer.cache]
    if isinstance(layer, QuantizedKVCache) and layer.keys is not None:
        return [(x[0].shape[1], x[0].shape[3] * 32 // layer.bits) for x in (layer.keys, layer.values)]
    return [None if x is None else (x.shape[1], x.shape[3]) for x in (layer.keys, layer.values)]


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
