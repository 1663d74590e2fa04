"""A tokenizer as grammars see it: the bytes that each token stands for, and which tokens end an answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from numpy.typing import NDArray

from mlx_ddtree.errors import OptionError, one_line
from mlx_ddtree.grammar.grammar import NAMES, Grammar, limits

Words = NDArray[np.uint32]
"""A set of tokens: token t in bit t % 32 of word t // 32."""


class Vocabulary:
    """What all grammars over one tokenizer share; making it takes up to a second for a large vocabulary.

    size: tokens that the model can say.
    ends: those of them that end an answer.
    anything: all tokens but the ends, as a set.
    """

    def __init__(self, tokenizer: Any, ends: Iterable[int], size: int) -> None:
        """tokenizer: of transformers, with a tokenizer.json behind it.  Raises OptionError for others."""
        self.size = size
        self.ends = frozenset(end for end in ends if 0 <= end < size)
        if not self.ends:
            raise OptionError("this tokenizer has no end token, so an answer of a given form could not end")
        try:
            known = max(size, len(tokenizer))
            self.tokens: LLTokenizer = from_tokenizer(tokenizer, n_vocab=known, eos_token=sorted(self.ends))
        except Exception as error:  # llguidance raises what it likes about tokenizers that it cannot read
            raise OptionError(f"a grammar cannot be laid into this tokenizer: {one_line(error)}") from None
        every = np.zeros(32 * -(-size // 32), np.uint8)
        every[:size] = 1
        every[list(self.ends)] = 0
        self.anything: Words = np.packbits(every, bitorder="little").view(np.uint32)
        self._beyond: Words = ~np.packbits(np.arange(len(every)) < size, bitorder="little").view(np.uint32)

    @property
    def words(self) -> int:
        """Words of a set of tokens."""
        return len(self.anything)

    def matcher(self, grammar: Grammar) -> LLMatcher:
        """One that stands at the grammar's beginning.  Raises OptionError for a grammar that takes too much."""
        matcher = LLMatcher(self.tokens, grammar.source, log_level=0, limits=limits())
        check(matcher, NAMES[grammar.kind])
        return matcher

    def allowed(self, matcher: LLMatcher) -> Words:
        """The tokens that may come where a matcher stands; never empty.  Raises OptionError."""
        words: Words = np.frombuffer(matcher.compute_bitmask(), np.uint32)[: self.words] & ~self._beyond
        if matcher.is_error():
            check(matcher, "grammar")
        if not words.any():
            raise OptionError("the grammar leads to a place where no token of this model can follow")
        return words

    def is_special(self, token: int) -> bool:
        """Whether a token stands for no text."""
        return self.tokens.is_special_token(token)


def check(matcher: LLMatcher, name: str) -> None:
    """Raise OptionError where a matcher has given up; name: what it matches."""
    if matcher.is_error():
        raise OptionError(f"the {name} cannot be followed: {one_line(ValueError(matcher.get_error()))}")


def has(words: Words, token: int) -> bool:
    """Whether a set has this token."""
    return bool(int(words[token >> 5]) >> (token & 31) & 1)


def with_token(words: Words, token: int) -> Words:
    """A set with one token more."""
    more = words.copy()
    more[token >> 5] |= np.uint32(1 << (token & 31))
    return more


def only_token(words: Words) -> int | None:
    """The token of a set that has one only; else None."""
    used = np.flatnonzero(words)
    if len(used) != 1:
        return None
    word = int(words[used[0]])
    if word & (word - 1):
        return None
    return 32 * int(used[0]) + word.bit_length() - 1
