"""The token that stands for what is to be drafted: one that no text holds and the target's embedding has a row for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.errors import OptionError
from mlx_ddtree.training.examples import Example

MADE_FOR_NOTHING = re.compile("reserved|unused|extra_id|mask|placeholder")
NAMED_TOKENS = ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id", "sep_token_id", "cls_token_id")


def choose_mask_token(
    tokenizer: TokenizerWrapper, rows: int, examples: Sequence[Example] = (), given: int | None = None
) -> int:
    """The id of the mask token: `given`, or the tokenizer's own, or one that nothing uses.

    Without one of its own, a tokenizer gets the first id behind all of its tokens; where the embedding has no row for
    that, an id inside that no token has; else a special token that neither the chat template nor the data use.

    rows: of the target's embedding.  examples: the training data as far as it is there.

    Raises OptionError if `given` cannot be used or nothing is left.
    """
    in_data = _ids_of(examples)
    if given is not None:
        return _checked(given, rows, in_data)
    own = getattr(tokenizer, "mask_token_id", None)
    if own is not None and 0 <= own < rows and own not in in_data:
        return int(own)
    taken = set(tokenizer.get_vocab().values()) | set(tokenizer.eos_token_ids) | in_data
    behind = max(taken) + 1
    if behind < rows:
        return behind
    gap = next((token for token in reversed(range(rows)) if token not in taken), None)
    if gap is not None:
        return gap
    spare = unused_special_tokens(tokenizer, rows, in_data)
    if spare:
        return spare[0]
    raise OptionError(
        f"every one of the {rows} rows of the target's embedding belongs to a token, and no special token is unused: "
        "name one that texts never hold with --mask-token"
    )


def unused_special_tokens(tokenizer: TokenizerWrapper, rows: int, in_data: set[int]) -> list[int]:
    """Special tokens without a part in texts, the likeliest first: those named as reserved, then the last ones added.

    Left out are begin, end and padding, what the chat template or mlx-lm's parsers name, and what the data hold.
    """
    named = {getattr(tokenizer, name, None) for name in NAMED_TOKENS} | set(tokenizer.eos_token_ids)
    spoken = _template_text(tokenizer)
    spare: list[tuple[bool, int]] = []
    for token, added in getattr(tokenizer, "added_tokens_decoder", {}).items():
        content = str(added)
        is_free = added.special and content not in spoken and token not in named and token not in in_data
        if is_free and 0 <= token < rows:
            is_made_for_nothing = MADE_FOR_NOTHING.search(content.lower()) is not None
            spare.append((is_made_for_nothing, token))
    return [token for _, token in sorted(spare, reverse=True)]


def _template_text(tokenizer: TokenizerWrapper) -> str:
    """Everything that names special tokens which conversations use, as one text to search."""
    template: Any = getattr(tokenizer, "chat_template", None)
    marks = (tokenizer.think_start, tokenizer.think_end, tokenizer.tool_call_start, tokenizer.tool_call_end)
    return "\n".join(str(text) for text in (template, *marks))


def _ids_of(examples: Iterable[Example]) -> set[int]:
    found: set[int] = set()
    for example in examples:
        found.update(example.token_ids)
    return found


def _checked(given: int, rows: int, in_data: set[int]) -> int:
    if not 0 <= given < rows:
        raise OptionError(f"--mask-token {given} is outside the target's embedding of {rows} rows")
    if given in in_data:
        raise OptionError(f"--mask-token {given} stands in the training data: name one that texts never hold")
    return given
