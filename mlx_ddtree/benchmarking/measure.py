"""Answer prompts by every setting and by stock mlx_lm, one after the other, so that all meet the same machine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
from mlx_lm.generate import stream_generate as stock_stream_generate
from mlx_lm.sample_utils import make_sampler as make_stock_sampler

from mlx_ddtree.benchmarking.prompts import Question
from mlx_ddtree.benchmarking.record import Line, RunFile, group_key
from mlx_ddtree.benchmarking.repetition import lookup_acceptance, repeated_share
from mlx_ddtree.benchmarking.settings import STOCK
from mlx_ddtree.decoding.sampling import make_sampler
from mlx_ddtree.generation.stream import stream_generate
from mlx_ddtree.pair import Pair

SEED = 7
WARM_UP_TOKENS = 32


@dataclass(frozen=True)
class Task:
    """A question, to be answered by all settings."""

    question: Question
    temp: float
    repeat: int


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

    def warm_up(self, task: Task) -> None:
        """Page in weights, compile kernels, start threads, measure the machine for 'auto'."""
        room = min(WARM_UP_TOKENS, self.max_tokens)
        brief = Bench(self.pair, self.settings, room, template=self.template)
        first = replace(task, question=replace(task.question, turns=task.question.turns[:1]))
        for _ in range(2):
            brief.answer(first, 0)

    def measure(self, task: Task, number: int, run: RunFile) -> bool:
        """Answer one task and write it down.  False if it does not fit into the model's context.

        number: of the task in the run; the settings' order changes with it.
        """
        lines = self.answer(task, number)
        if lines:
            run.append(lines)
        return bool(lines)

    def answer(self, task: Task, number: int) -> list[Line]:
        """A line for every turn and setting; none if the conversation does not fit."""
        messages: list[dict[str, str]] = []
        lines: list[Line] = []
        for turn, text in enumerate(task.question.turns):
            messages.append({"role": "user", "content": text})
            ids = self._token_ids(task.question, messages)
            room = self._room(ids)
            if room < 1:
                return []
            answers, details = self._all(ids, room, task.temp, number + turn)
            reference = self._reference(answers, task.temp)
            about = {
                **dict(zip(("data", "temp", "index", "digest", "repeat"), self._key(task), strict=True)),
                "turn": turn,
                "turns": len(task.question.turns),
                "prompt_tokens": len(ids),
            }
            repetition = {
                "repeated": round(repeated_share(ids, reference), 4),
                "lookup_tau": round(lookup_acceptance(ids, reference), 4),
            }
            for name in self.settings:
                same = None if task.temp and name == STOCK else answers[name] == reference
                lines.append(about | {"setting": name} | details[name] | repetition | {"identical": same})
            messages.append({"role": "assistant", "content": self._text(reference)})
        return lines

    def _all(
        self, ids: list[int], room: int, temp: float, shift: int
    ) -> tuple[dict[str, list[int]], dict[str, dict[str, Any]]]:
        """({setting: tokens}, {setting: figures}), measured in an order that starts elsewhere every time."""
        names, answers, details = list(self.settings), {}, {}
        for i in range(len(names)):
            name = names[(i + shift) % len(names)]
            time.sleep(self.cool_down)
            mx.reset_peak_memory()
            if name == STOCK:
                answers[name], details[name] = self._by_stock(ids, room, temp)
            else:
                answers[name], details[name] = self._by_us(ids, room, temp, self.settings[name])
        return answers, details

    def _by_stock(self, ids: list[int], room: int, temp: float) -> tuple[list[int], dict[str, Any]]:
        mx.random.seed(SEED)
        sampler = make_stock_sampler(temp) if temp else None
        model, tokenizer = self.pair.target.model, self.pair.tokenizer
        responses = list(stock_stream_generate(model, tokenizer, ids, max_tokens=room, sampler=sampler))
        tokens = [response.token for response in responses]
        return tokens, _figures(len(tokens), responses[-1].generation_tps, len(tokens) - 1)

    def _by_us(
        self, ids: list[int], room: int, temp: float, options: Mapping[str, Any]
    ) -> tuple[list[int], dict[str, Any]]:
        sampler = make_sampler(temp, seed=SEED)
        tokens: list[int] = []
        last = None
        for last in stream_generate(self.pair, ids, room, sampler=sampler, **options):
            tokens += last.tokens
        assert last is not None
        counts = last.statistics.as_dict()
        figures = _figures(len(tokens), last.generation_tps, last.rounds)
        stages = {stage: round(seconds, 6) for stage, seconds in last.seconds.items()}
        return tokens, figures | {"accepted": counts["accepted"], "nodes": counts["nodes"], "stages": stages}

    def _reference(self, answers: Mapping[str, list[int]], temp: float) -> list[int]:
        """What the answers have to equal: at 0 mlx_lm's; above it, where mlx_lm draws otherwise, our plain decoding's
        (or the first setting's) with the same seed."""
        if not temp:
            return answers[STOCK]
        return answers.get("ar") or answers[next(name for name in self.settings if name != STOCK)]

    def _token_ids(self, question: Question, messages: Sequence[Mapping[str, str]]) -> list[int]:
        tokenizer = self.pair.tokenizer
        if question.raw or not tokenizer.has_chat_template:
            return list(tokenizer.encode("\n\n".join(message["content"] for message in messages)))
        return list(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, **self.template))

    def _text(self, tokens: list[int]) -> str:
        ends = set(self.pair.tokenizer.eos_token_ids)
        return str(self.pair.tokenizer.decode([token for token in tokens if token not in ends]))

    def _room(self, ids: Sequence[int]) -> int:
        limit = self.pair.target.max_context
        return self.max_tokens if limit is None else min(self.max_tokens, limit - len(ids))

    @staticmethod
    def _key(task: Task) -> tuple[Any, ...]:
        return group_key(task.question, task.temp, task.repeat)


def _figures(tokens: int, tokens_per_second: float, rounds: int) -> dict[str, Any]:
    """seconds: of generation, counted from the first token as mlx-lm does."""
    return {
        "tokens": tokens,
        "seconds": round(tokens / tokens_per_second, 6),
        "rounds": rounds,
        "peak_gb": round(mx.get_peak_memory() / 1e9, 3),
    }
