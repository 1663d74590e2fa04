"""Answer prompts by every setting and by stock mlx_lm, one after the other, so that all meet the same machine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import mlx.core as mx
from mlx_lm.generate import generation_stream
from mlx_lm.generate import stream_generate as stock_stream_generate
from mlx_lm.sample_utils import make_sampler as make_stock_sampler

from mlx_ddtree.benchmarking.host_time import HostClock, HostTime
from mlx_ddtree.benchmarking.prompts import Question, prompt_ids
from mlx_ddtree.benchmarking.record import RunFile, RunLine, group_of_question
from mlx_ddtree.benchmarking.repetition import lookup_acceptance, repeated_share
from mlx_ddtree.benchmarking.settings import LOOKUP, STOCK
from mlx_ddtree.decoding.sampler import make_sampler
from mlx_ddtree.generation.stream import stream_generate
from mlx_ddtree.pair import Pair
from mlx_ddtree.tuning.measure import whole_profile_of

SEED = 7
WARM_UP_TOKENS = 32
GROUP_FIELDS = ("data", "temp", "index", "digest", "repeat")
"""What a line calls the parts of its group's key."""


@dataclass(frozen=True)
class Task:
    """A question, to be answered by all settings."""

    question: Question
    temp: float
    repeat: int


@dataclass(frozen=True)
class Answer:
    """One setting's answer.

    tokens: as generated, the end token included.
    figures: what its line in the run says of it.
    """

    tokens: list[int]
    figures: dict[str, Any]


@dataclass
class Bench:
    """How a pair is measured.

    settings: {name: options of stream_generate}; 'mlx_lm' is the baseline.
    cool_down: seconds of rest before every answer.
    template: options of the chat template.
    """

    pair: Pair
    settings: Mapping[str, Mapping[str, Any]]
    max_tokens: int
    cool_down: float = 0.0
    template: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._clock = HostClock([mx.default_stream(mx.default_device()), generation_stream])

    @cached_property
    def _without_drafter(self) -> Pair:
        """The pair as users have it who have no drafter."""
        return self.pair if self.pair.drafter is None else self.pair.without_drafter()

    def warm_up(self, task: Task) -> None:
        """Page in weights, compile kernels, start threads, measure the machine for 'auto'."""
        if any(options.get("method") != "ar" for name, options in self.settings.items() if name != STOCK):
            whole_profile_of(self.pair)  # what is guessed or measured meanwhile would be timed
        if LOOKUP in self.settings:
            whole_profile_of(self._without_drafter)
        brief = Bench(self.pair, self.settings, min(WARM_UP_TOKENS, self.max_tokens), template=self.template)
        first_turn = replace(task.question, turns=task.question.turns[:1])
        for _ in range(2):
            brief.answer(replace(task, question=first_turn), 0)

    def measure(self, task: Task, number: int, run: RunFile) -> bool:
        """Answer one task and write it down.  False if it does not fit into the model's context.

        number: of the task in the run; the settings' order changes with it.
        """
        lines = self.answer(task, number)
        if lines:
            run.append(lines)
        return bool(lines)

    def answer(self, task: Task, number: int) -> list[RunLine]:
        """A line for every turn and setting; none if the conversation does not fit."""
        messages: list[dict[str, str]] = []
        lines: list[RunLine] = []
        for turn, text in enumerate(task.question.turns):
            # 1. The conversation so far, as tokens.
            messages.append({"role": "user", "content": text})
            prompt = prompt_ids(self.pair.tokenizer, task.question, messages, self.template)
            room = self._room(prompt)
            if room < 1:
                return []

            # 2. Every setting's answer to it.
            answers = self._answer_by_all(prompt, room, task.temp, number + turn)
            reference = self._reference(answers, task.temp)

            # 3. A line for each, and the answer with which the conversation goes on.
            lines += self._lines(task, turn, prompt, answers, reference)
            messages.append({"role": "assistant", "content": self._text(reference)})
        return lines

    def _answer_by_all(self, prompt: list[int], room: int, temp: float, shift: int) -> dict[str, Answer]:
        """{setting: its answer}, measured in an order that starts elsewhere every time."""
        names = list(self.settings)
        answers = {}
        for i in range(len(names)):
            name = names[(i + shift) % len(names)]
            time.sleep(self.cool_down)
            mx.reset_peak_memory()
            if name == STOCK:
                answers[name] = self._answer_by_stock(prompt, room, temp)
            else:
                answers[name] = self._answer_by_setting(prompt, room, temp, name)
        return answers

    def _answer_by_stock(self, prompt: list[int], room: int, temp: float) -> Answer:
        mx.random.seed(SEED)
        sampler = make_stock_sampler(temp) if temp else None
        model = self.pair.target.model
        stream = stock_stream_generate(model, self.pair.tokenizer, prompt, max_tokens=room, sampler=sampler)
        responses = [next(stream)]
        start = self._clock.now()
        responses += stream
        spent = self._clock.now() - start
        tokens = [response.token for response in responses]
        return Answer(tokens, _figures(len(tokens), responses[-1].generation_tps, len(tokens) - 1, spent))

    def _answer_by_setting(self, prompt: list[int], room: int, temp: float, name: str) -> Answer:
        sampler = make_sampler(temp, seed=SEED)
        tokens: list[int] = []
        pair = self._without_drafter if name == LOOKUP else self.pair
        stream = stream_generate(pair, prompt, room, sampler=sampler, **self.settings[name])
        last = next(stream)
        start = self._clock.now()
        tokens += last.tokens
        for last in stream:
            tokens += last.tokens
        spent = self._clock.now() - start
        counts = last.statistics.as_dict()
        figures = _figures(len(tokens), last.generation_tps, last.rounds, spent)
        figures["accepted"] = counts["accepted"]
        figures["nodes"] = counts["nodes"]
        figures["stages"] = {stage: round(seconds, 6) for stage, seconds in last.seconds.items()}
        return Answer(tokens, figures)

    def _reference(self, answers: Mapping[str, Answer], temp: float) -> list[int]:
        """What the answers have to equal: at 0 mlx_lm's; above it, where mlx_lm draws otherwise, our plain decoding's
        (or the first setting's) with the same seed."""
        if not temp:
            return answers[STOCK].tokens
        if "ar" in answers and answers["ar"].tokens:
            return answers["ar"].tokens
        first = next(name for name in self.settings if name != STOCK)
        return answers[first].tokens

    def _lines(
        self, task: Task, turn: int, prompt: list[int], answers: Mapping[str, Answer], reference: list[int]
    ) -> list[RunLine]:
        """What the run's file says of one turn: a line for every setting."""
        group = group_of_question(task.question, task.temp, task.repeat)
        about = dict(zip(GROUP_FIELDS, group, strict=True))
        about["turn"] = turn
        about["turns"] = len(task.question.turns)
        about["prompt_tokens"] = len(prompt)
        repeated = round(repeated_share(prompt, reference), 4)
        lookup_tau = round(lookup_acceptance(prompt, reference), 4)
        lines = []
        for name in self.settings:
            answer = answers[name]
            incomparable = task.temp and name == STOCK
            line = about | {"setting": name} | answer.figures
            line |= {"repeated": repeated, "lookup_tau": lookup_tau}
            line["identical"] = None if incomparable else answer.tokens == reference
            lines.append(line)
        return lines

    def _text(self, tokens: list[int]) -> str:
        ends = set(self.pair.tokenizer.eos_token_ids)
        return str(self.pair.tokenizer.decode([token for token in tokens if token not in ends]))

    def _room(self, prompt: Sequence[int]) -> int:
        """Tokens that an answer may have."""
        limit = self.pair.target.max_context
        if limit is None:
            return self.max_tokens
        return min(self.max_tokens, limit - len(prompt))


def _figures(tokens: int, tokens_per_second: float, rounds: int, spent: HostTime) -> dict[str, Any]:
    """seconds: of generation, counted from the first token as mlx-lm does; so are `spent`'s."""
    return {
        "host": {name: round(value, 6) for name, value in spent.as_dict().items()},
        "tokens": tokens,
        "seconds": round(tokens / tokens_per_second, 6),
        "rounds": rounds,
        "peak_gb": round(mx.get_peak_memory() / 1e9, 3),
    }
