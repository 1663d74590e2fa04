"""The target's answering ends in time, and what it said is kept: by the clock, by Ctrl-C and by a polite kill."""

import json
import os
import signal
import threading

import pytest

from mlx_ddtree.hub.load_target import LoadedTarget
from mlx_ddtree.programs import train as program
from mlx_ddtree.programs import training as work
from mlx_ddtree.training.answering_time import TIMED_SECONDS, TIMED_STEPS, AnsweringTime, AnswerPace
from mlx_ddtree.training.answers import Answering, answer_prompts
from mlx_ddtree.training.examples import Example

from .test_preflight import SHAPE, write_prompts
from .tiny import make_target, make_tokenizer

HOW = Answering(max_tokens=12, batch_size=4, sampled_share=0.25)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


class StepClock:
    """A clock that a forward of the target moves on by one second."""

    def __init__(self):
        self.time = None

    def __call__(self):
        return 0.0 if self.time is None else float(self.time.steps)


def seconds(most, **options):
    clock = StepClock()
    clock.time = AnsweringTime(most, clock=clock, **options)
    return clock.time


def prompts(count=40):
    return [Example((5 + i % 50, 9, 7 + i // 50), None) for i in range(count)]


def answer(tokenizer, file, time=None, examples=None):
    examples = examples or prompts()
    return answer_prompts(make_target().model, tokenizer, examples, file, HOW, progress=False, time=time)


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_answers_stop_with_their_time_and_a_later_run_adds_to_them(tmp_path, tokenizer):
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    answer(tokenizer, whole)
    time = seconds(40)
    found = answer(tokenizer, parts, time)
    assert time.steps == 40
    first = rows(parts)
    assert 2 <= len(first) == len(found) < 40
    assert {row["temperature"] for row in first} == {0.0, 0.7}, "sampled answers have a share of the time"
    answer(tokenizer, parts)
    assert rows(parts)[: len(first)] == first
    greedy = [sorted(r["response_tokens"] for r in rows(f) if r["temperature"] == 0) for f in (whole, parts)]
    assert len(rows(parts)) == 40
    assert greedy[0] == greedy[1]


def test_time_that_is_not_used_up_changes_nothing(tmp_path, tokenizer):
    answer(tokenizer, tmp_path / "a.jsonl")
    answer(tokenizer, tmp_path / "b.jsonl", seconds(10_000))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_greedy_prompts_get_the_time_that_sampled_ones_leave(tmp_path, tokenizer):
    """All but one prompt is greedy: their share of the time is over early, and they go on behind the sampled one."""
    examples = prompts(4)
    time = seconds(40)
    answer(tokenizer, tmp_path / "r.jsonl", time, examples)
    assert len(rows(tmp_path / "r.jsonl")) == 4
    cut = seconds(13)  # 9 seconds for the greedy ones, which need more
    answer(tokenizer, tmp_path / "s.jsonl", cut, examples)
    assert cut.steps <= 40
    assert len(rows(tmp_path / "s.jsonl")) >= 2


def test_two_answers_are_waited_for(tmp_path, tokenizer):
    """A drafter can be trained on no less, and a run that never gets there would be of no use."""
    assert 2 <= len(answer(tokenizer, tmp_path / "r.jsonl", seconds(0))) < 40
    lines = (tmp_path / "r.jsonl").read_bytes()
    time = seconds(0)
    answer(tokenizer, tmp_path / "r.jsonl", time)
    assert time.steps == 0
    assert (tmp_path / "r.jsonl").read_bytes() == lines


def test_the_pace_is_reported_once(tmp_path, tokenizer):
    paces = []
    answer(tokenizer, tmp_path / "r.jsonl", seconds(1000, report=paces.append))
    assert [(pace.there, pace.missing, pace.seconds) for pace in paces] == [(0, 40, max(TIMED_SECONDS, TIMED_STEPS))]
    answer(tokenizer, tmp_path / "r.jsonl", seconds(1000, report=paces.append))
    assert paces[1] == AnswerPace(there=40)
    stop = threading.Event()
    stop.set()
    answer(tokenizer, tmp_path / "s.jsonl", seconds(1000, report=paces.append, stop=stop))
    assert len(paces) == 2


def test_a_rate_counts_answers_that_are_being_written():
    """600 tokens in 10 seconds: of full length while none has ended, of about their mean length afterwards."""
    assert AnswerPace(0, 100, seconds=10.0, tokens=600).answers_a_second(60) == pytest.approx(1.0)
    short = AnswerPace(0, 100, seconds=10.0, tokens=600, finished=60)
    assert short.answers_a_second(1000) == pytest.approx(6.0)
    assert short.answers_a_second(12) == pytest.approx(60 / 6.988, rel=1e-3)  # 10 (1 - exp(-12 / 10))
    assert AnswerPace(there=3).answers_a_second(60) == 0.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_target_answers(tmp_path, monkeypatch, capsys, number):
    class Interrupted(AnsweringTime):
        def count_step(self, tokens):
            super().count_step(tokens)
            if self.steps == 20:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(work, "load_target", lambda name: LoadedTarget(make_target(), make_tokenizer()))
    output = tmp_path / "out"
    data = write_prompts(tmp_path, count=50)
    command = ["--data", str(data), "--output", str(output), "--max-tokens", "8", *SHAPE, "--steps", "2"]
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(work, "AnsweringTime", Interrupted)
        assert program.main(command) == 130
    assert signal.getsignal(number) is before
    kept = (output / "responses.jsonl").read_text().splitlines()
    assert 0 < len(kept) < 50
    err = capsys.readouterr().err
    assert f"{len(kept)} sequences are kept; continue with:" in err
    assert err.strip().endswith("--steps 2")
    assert program.main(command) == 0
    lines = (output / "responses.jsonl").read_text().splitlines()
    assert lines[: len(kept)] == kept
    assert len(lines) == 50


def test_a_run_by_the_clock_resumes_with_the_answers_that_it_began_with(tmp_path, monkeypatch, capsys):
    """Its minutes ended before all prompts were answered: more answers now would be another run's data."""
    monkeypatch.setattr(work, "load_target", lambda name: LoadedTarget(make_target(), make_tokenizer()))
    output = tmp_path / "out"
    command = ["--data", str(write_prompts(tmp_path, 50)), "--output", str(output), "--max-tokens", "8", *SHAPE]
    command += ["--minutes", "0.02", "--answering-share", "0", "--json"]
    assert program.main(command) == 0
    first = json.loads(capsys.readouterr().out)
    answers = (output / "responses.jsonl").read_bytes()
    assert first["sequences"] + first["held_out_sequences"] < 50
    assert program.main([*command, "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == first["steps"]
    assert (output / "responses.jsonl").read_bytes() == answers
