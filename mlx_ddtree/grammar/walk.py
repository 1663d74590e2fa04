"""Where one text stands in its grammar, and where every path of its drafts would stand.

Matchers only go on.  Where paths part a copy is made: llguidance could also go back, but what its matchers allow after
that may be wrong (1.9.1; tests/grammar/test_walk.py has a case).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from mlx_ddtree.errors import OptionError
from mlx_ddtree.grammar.reasoning import Reasoning
from mlx_ddtree.grammar.vocabulary import Vocabulary, Words, check, has, only_token, with_token
from mlx_ddtree.tree import DraftTree

Path = tuple[int, ...]
"""Tokens behind the text."""
CHEAP = 1000
"""Tokens of a text up to which a copy of its matcher takes less than letting it go on by one token; a copy's time grows
with the text."""


@dataclass(frozen=True)
class Place:
    """What may follow a path.

    words: the tokens, as a set.
    """

    words: Words

    @cached_property
    def only(self) -> int | None:
        """The one token that may follow, where there is one only."""
        return only_token(self.words)

    def allows(self, token: int) -> bool:
        return has(self.words, token)


class GrammarWalk:
    """One text's way through a grammar.

    start: tokens of the text before its answer.
    """

    def __init__(
        self, vocabulary: Vocabulary, matcher: LLMatcher, start: int = 0, reasoning: Reasoning | None = None
    ) -> None:
        """matcher: at the grammar's beginning, where it stays."""
        self.vocabulary = vocabulary
        self.start = start
        self._free = Place(vocabulary.anything)
        first = vocabulary.allowed(matcher)
        if reasoning is not None and not reasoning.begun and has(first, reasoning.start[0]):
            reasoning = None  # what would begin it can belong to the form
        self._reasoning = reasoning
        self._beginning = matcher
        self._matcher = matcher.deep_copy()  # behind the text
        self._text: list[int] = []  # the answer
        self._form = self._begins([], 0)  # its place where the form begins; None while the model reasons
        self._consumed = 0  # tokens of the form in the text, which the matcher has
        self._places: dict[Path, Place] = {}
        self._ahead: dict[Path, LLMatcher] = {}  # by the tokens of the form behind the text

    def stand(self, token_ids: Sequence[int]) -> None:
        """From now on paths begin behind this text, prompt included.

        Raises OptionError where the text does not follow the grammar.
        """
        before, answer = self._text, list(token_ids[self.start :])
        if answer == before:
            return
        grown = answer[: len(before)] == before
        if not grown:  # a part of it was taken back
            self._matcher = self._beginning.deep_copy()
            self._consumed = 0
        if not (grown and before and self._form is not None):
            self._form = self._begins(answer, len(before) if grown else 0)
        self._text = answer
        self._places = {}
        self._ahead = {}
        if self._form is not None:
            self._consume(self._matcher, answer[self._form + self._consumed :])
            self._consumed = len(answer) - self._form

    def place(self, path: Path = ()) -> Place:
        """What may follow a path, which holds no end token.  Raises OptionError where the grammar takes too much."""
        place = self._places.get(path)
        if place is None:
            place = self._find(path)
            self._places[path] = place
        return place

    def masks(self, tree: DraftTree) -> NDArray[np.uint32]:
        """(N, W) what may follow each node of a tree, whose root is the text's last token.

        Nobody gets behind an end, or behind a token that is not allowed; there, anything may follow.
        """
        tokens: list[int] = tree.token_ids.tolist()
        paths: list[Path | None] = [()]
        rows = [self.place().words]
        for token, parent in zip(tokens[1:], tree.parents.tolist()[1:], strict=True):
            before = paths[parent]
            goes_on = before is not None and token not in self.vocabulary.ends and self.place(before).allows(token)
            path = (*before, token) if before is not None and goes_on else None
            paths.append(path)
            rows.append(self._free.words if path is None else self.place(path).words)
        return np.stack(rows)

    def ends(self, path: Sequence[int]) -> bool:
        """Whether the answer ends with a path."""
        return bool(path) and path[-1] in self.vocabulary.ends

    def forced(self, most: int) -> list[int]:
        """The tokens that must follow the text, as far as there is no choice; `most` at most."""
        path: Path = ()
        while len(path) < most:
            only = self.place(path).only
            if only is None:
                break
            path = (*path, only)
            if only in self.vocabulary.ends:
                break
        return list(path)

    def _find(self, path: Path) -> Place:
        behind = self._of_the_form(path)
        if behind is None:
            return self._free
        words = self.vocabulary.allowed(self._at(behind))
        reasoning = self._reasoning
        if reasoning is not None and not reasoning.begun and not self._text and not path:
            words = with_token(words, reasoning.start[0])
        return Place(words)

    def _of_the_form(self, path: Path) -> Path | None:
        """The tokens of a path that belong to the form; None where the model still reasons behind it."""
        if self._reasoning is None or (self._text and self._form is not None):
            return path
        answer = [*self._text, *path]
        begins = self._begins(answer, len(self._text))
        return None if begins is None else tuple(answer[begins:])

    def _begins(self, answer: Sequence[int], searched: int) -> int | None:
        """Where in an answer the form begins; None where the model still reasons."""
        return 0 if self._reasoning is None else self._reasoning.form_begins(answer, searched)

    def _at(self, path: Path) -> LLMatcher:
        """A matcher that stands behind tokens of the form, for as long as no other one is asked for."""
        if not path:
            return self._matcher
        before = self._ahead.get(path[:-1]) if len(path) > 1 else self._matcher
        if before is None:
            matcher = self._matcher.deep_copy()
            self._consume(matcher, path)
        else:
            goes_on = len(path) > 1 and self._consumed > CHEAP
            matcher = self._ahead.pop(path[:-1]) if goes_on else before.deep_copy()
            self._consume(matcher, path[-1:])
        self._ahead[path] = matcher
        return matcher

    def _consume(self, matcher: LLMatcher, tokens: Sequence[int]) -> None:
        """Let a matcher take tokens, all but an end.  Raises OptionError where the grammar does not allow them."""
        taken = [token for token in tokens if token not in self.vocabulary.ends]
        if taken and not matcher.consume_tokens(taken):
            check(matcher, "grammar")
            raise OptionError("the text does not follow its grammar")
