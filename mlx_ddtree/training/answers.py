"""The target's own answers to prompts: a drafter learns what its target says."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import BatchGenerator
from mlx_lm.sample_utils import make_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.errors import OptionError
from mlx_ddtree.files.journal import Journal, read_journal
from mlx_ddtree.files.rows import Row
from mlx_ddtree.terminal_bar import LINE_SECONDS, Bar
from mlx_ddtree.training.answering_time import AnsweringTime
from mlx_ddtree.training.examples import MAX_LENGTH, DataError, Example


@dataclass(frozen=True)
class Answering:
    """How the target answers: one prompt of `1 / sampled_share` at `temperature`, the others greedily.

    Raises OptionError for values that cannot be.
    """

    max_tokens: int = 256
    batch_size: int = 32
    sampled_share: float = 0.25
    temperature: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.max_tokens < MAX_LENGTH:
            raise OptionError(
                f"an answer of at most {self.max_tokens} tokens: give 2 to {MAX_LENGTH - 1} with --max-tokens, as a "
                f"sequence of training has {MAX_LENGTH}, prompt and answer"
            )
        if not 0 <= self.sampled_share <= 1:
            raise OptionError(f"--sampled-share {self.sampled_share} is no share: give 0 to 1")
        if not 0 <= self.temperature < math.inf:
            raise OptionError(f"--temp {self.temperature}: give a number, 0 or larger")

    def is_sampled(self, index: int) -> bool:
        """Whether prompt `index` is sampled: evenly spread, so that a resumed run agrees."""
        return int((index + 1) * self.sampled_share) > int(index * self.sampled_share)

    def fits(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt leaves room for its answer in a training sequence."""
        return len(prompt) + self.max_tokens <= MAX_LENGTH


def answer_prompts(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    examples: Sequence[Example],
    file: Path,
    how: Answering,
    progress: bool = True,
    time: AnsweringTime | None = None,
) -> list[Example]:
    """Let the target answer every prompt, in batches; plain text stays as it is.

    Answers are appended to `file` as they come, as rows {"prompt_tokens", "response_tokens",
    "temperature"}; prompts that it answers already are skipped, so an interrupted run goes on.

    model: the mlx-lm model.  time: may end the answering early; answers that are not whole by then are lost.
    Returns the plain-text examples and all answered ones.

    Raises DataError if another process is answering into `file`, or if it is damaged.
    """
    time = time or AnsweringTime()
    texts = [example for example in examples if not example.prompt_tokens]
    prompts = [example.prompt_tokens for example in examples if example.prompt_tokens]
    wanted = set(prompts)
    with Journal(file, DataError) as journal:
        # 1. What is missing: the prompts that fit and have no answer in the file.
        answered = [_answered(row, place) for place, row in journal.rows]
        missing = _missing(prompts, answered, how)
        skipped = sum(not how.fits(prompt) for prompt in prompts)
        if skipped:
            message = "%d prompts leave no room for an answer in %d tokens: skipped"
            logging.getLogger(__name__).warning(message, skipped, MAX_LENGTH)

        # 2. The greedy answers, then the sampled ones, each on the disk as soon as it is there.
        mx.random.seed(how.seed)
        done = len(prompts) - len(missing) - skipped
        there = sum(example.is_usable for example in texts)
        there += sum(example.is_usable and example.prompt_tokens in wanted for example in answered)
        with Bar("answers", done + len(missing), done, shown=progress, stays=True, line_seconds=LINE_SECONDS) as bar:
            time.begin(there, len(missing), bar)
            for row in _new_answers(model, tokenizer, missing, how, time):
                journal.append([row])
                answered.append(_answered(row, str(file)))
                time.count_answer(answered[-1].is_usable)
            time.end()
    return texts + [example for example in answered if example.prompt_tokens in wanted]


def _missing(
    prompts: Sequence[tuple[int, ...]], answered: Sequence[Example], how: Answering
) -> list[tuple[int, tuple[int, ...]]]:
    """(index, prompt) of what has to be answered; a prompt that stands twice needs two answers."""
    left = Counter(example.prompt_tokens for example in answered)
    missing = []
    for index, prompt in enumerate(prompts):
        if left[prompt] > 0:
            left[prompt] -= 1
        elif how.fits(prompt):
            missing.append((index, prompt))
    return missing


def _new_answers(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    missing: Sequence[tuple[int, tuple[int, ...]]],
    how: Answering,
    time: AnsweringTime,
) -> Iterator[dict[str, Any]]:
    """Greedy answers first; where the time is short, sampled ones get their share of it, and greedy ones the rest."""
    greedy = [prompt for index, prompt in missing if not how.is_sampled(index)]
    sampled = [prompt for index, prompt in missing if how.is_sampled(index)]
    left = Counter(greedy)

    def answers(prompts: Sequence[tuple[int, ...]], temperature: float, share: float) -> Iterator[dict[str, Any]]:
        for prompt, response in answer_batch(model, tokenizer, prompts, temperature, how, time, share):
            yield {"prompt_tokens": list(prompt), "response_tokens": response, "temperature": temperature}

    for row in answers(greedy, 0.0, 1 - how.sampled_share if sampled else 1.0):
        left[tuple(row["prompt_tokens"])] -= 1
        yield row
    yield from answers(sampled, how.temperature, 1.0)
    yield from answers(list(left.elements()), 0.0, 1.0)


def answer_batch(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    prompts: Sequence[tuple[int, ...]],
    temperature: float,
    how: Answering,
    time: AnsweringTime | None = None,
    share: float = 1.0,
) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """(prompt, response) as they finish; a response that ended by itself keeps its end token.

    Ends when a `share` of the time is over; None is all the time in the world.
    """
    time = time or AnsweringTime()
    if not prompts or time.is_over(share):
        return
    generator = BatchGenerator(
        model,
        max_tokens=how.max_tokens,
        stop_tokens=[[token] for token in tokenizer.eos_token_ids],
        sampler=make_sampler(temperature),
        completion_batch_size=how.batch_size,
        prefill_batch_size=min(8, how.batch_size),
    )
    uids = generator.insert([list(prompt) for prompt in prompts])
    prompt_of = dict(zip(uids, prompts, strict=True))
    tokens_of: dict[int, list[int]] = {uid: [] for uid in uids}
    try:
        while not time.is_over(share) and (responses := generator.next_generated()):
            time.count_step(len(responses))
            for response in responses:
                tokens_of[response.uid].append(int(response.token))
                if response.finish_reason is not None:
                    yield prompt_of[response.uid], tokens_of.pop(response.uid)
    finally:
        generator.close()


def read_answers(file: Path) -> list[Example]:
    """The answers in `file`, whose last line may be cut off.  Raises DataError, naming the line."""
    return [_answered(row, place) for place, row in read_journal(file, DataError)]


def _answered(row: Row, place: str) -> Example:
    prompt = row.get("prompt_tokens")
    response = row.get("response_tokens")
    if not (_is_token_list(prompt) and _is_token_list(response)):
        raise DataError(f'{place}: a row needs "prompt_tokens" and "response_tokens", lists of token ids')
    return Example(tuple(prompt), tuple(response), place, greedy=row.get("temperature") == 0)


def _is_token_list(value: Any) -> TypeGuard[list[int]]:
    """Whether a value is a list of ids, which are stored in 32 bits and count from 0."""
    return isinstance(value, list) and all(type(token) is int and 0 <= token < 2**31 for token in value)
