"""What a drafter is trained on: prompts with the target's answers, or plain text, as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlx_ddtree.errors import MlxDdtreeError

MAX_LENGTH = 3072
"""Tokens of a training sequence, as in the published recipe."""
MOST_HELD_OUT = 64
"""Sequences that validate, at most: more would take longer than they tell."""


class DataError(MlxDdtreeError):
    """A training file is missing, empty or malformed; the message names file and line."""


@dataclass(frozen=True)
class Example:
    """A training sequence.

    prompt_tokens: empty for plain text.
    response_tokens: None until the target has answered.
    source: 'file:line', for messages.
    greedy: whether the response is what the target says at temperature 0; tau is measured on those.
    """

    prompt_tokens: tuple[int, ...]
    response_tokens: tuple[int, ...] | None
    source: str = ""
    greedy: bool = False

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt and response."""
        return self.prompt_tokens + (self.response_tokens or ())

    @property
    def is_usable(self) -> bool:
        """Whether a block can be taken from it."""
        return len(self.response_tokens or ()) >= 2

    @property
    def start(self) -> int:
        """Where the first block may start: the prompt's last token."""
        return max(0, len(self.prompt_tokens) - 1)


def usable_examples(examples: Iterable[Example], max_length: int = MAX_LENGTH) -> list[Example]:
    """The examples that a block can be taken from; sequences are cut at `max_length` tokens.

    Raises DataError for a prompt without a response: nothing could be learnt from it.
    """
    kept = []
    for example in examples:
        if example.response_tokens is None:
            raise DataError(
                f'{example.source}: the row has no "response"; add one, or leave --no-regenerate out so that '
                "the target answers"
            )
        room = max(0, max_length - len(example.prompt_tokens))
        response = example.response_tokens[:room]
        if len(response) >= 2:
            kept.append(replace(example, response_tokens=response))
    if not kept:
        raise DataError("no training sequence is left: every response is shorter than two tokens or past the limit")
    return kept


def held_out_count(sequences: int, share: float, most: int = MOST_HELD_OUT) -> int:
    """How many of so many sequences validate: a `share`, at least one and at most `most`."""
    return min(most, max(1, round(share * sequences)))


def split_held_out(
    examples: Sequence[Example], share: float, most: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """(training, held out): a random `share`, at least one sequence and at most `most`."""
    if len(examples) < 2:
        raise DataError(f"{len(examples)} training sequence: at least two are needed, one of them to validate with")
    order = np.random.default_rng([seed, 1]).permutation(len(examples))
    count = held_out_count(len(examples), share, most)
    held_out = [examples[i] for i in sorted(order[:count])]
    training = [examples[i] for i in sorted(order[count:])]
    return training, held_out
