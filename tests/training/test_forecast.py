"""What a run says before it: numbers that follow from what was measured, once."""

import json
from dataclasses import replace

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_ddtree.hub.load_target import LoadedTarget
from mlx_ddtree.programs import train as program
from mlx_ddtree.programs import training as work
from mlx_ddtree.training.answering_time import AnswerPace
from mlx_ddtree.training.forecast import Plan, StepPace, make_forecast, rough_tau
from mlx_ddtree.training.schedule import TrainingProgress, TrainingSettings
from mlx_ddtree.training.setup import V1, default_config, dflash2_layout, new_drafter
from mlx_ddtree.training.step_pace import measure_step

from .test_loop import repetitive
from .test_preflight import SHAPE, write_prompts
from .tiny import MASK, make_target, make_tokenizer

MEASURED = AnswerPace(there=0, missing=10_000, seconds=10.0, tokens=1000)
"""One answer of 100 tokens a second."""


def plan(**changes):
    settings = TrainingSettings(minutes=60.0, batch_size=4, anchors=32)
    known = Plan(settings, 8, StepPace(step=0.5), max_tokens=100, answering_seconds=1420.0, spent=20.0)
    return replace(known, **changes)


def test_minutes_are_shared_by_answers_and_training():
    found = make_forecast(plan(), MEASURED)
    assert found.answers_a_minute == pytest.approx(60)
    assert found.answers == 1420
    assert found.answering_minutes == pytest.approx(1420 / 60)
    assert found.training_minutes == pytest.approx(36)
    assert found.anchors_a_second == pytest.approx(4 * 32 / 0.5)
    assert found.anchors == round(4 * 32 / 0.5 * 36 * 60)
    assert found.passes == pytest.approx(4 * 4320 / (1420 - 64))
    assert (found.tau_low, found.tau_high) == rough_tau(found.anchors, 8)


def test_few_prompts_leave_their_time_to_training():
    found = make_forecast(plan(), replace(MEASURED, there=100, missing=100))
    assert found.answers == 200
    assert found.answering_minutes == pytest.approx(100 / 60)
    assert found.training_minutes == pytest.approx(60 - 120 / 60)


def test_the_first_time_through_the_answers_costs_the_targets_states():
    steps = TrainingSettings(steps=100, batch_size=4, anchors=32)
    pace = StepPace(step=0.5, states=1.0)
    found = make_forecast(plan(settings=steps, pace=pace, answering_seconds=float("inf")), AnswerPace(there=84))
    assert found.answering_minutes == 0.0
    assert found.training_minutes == pytest.approx((100 * 0.5 + 20 * 1.0) / 60)
    clock = make_forecast(plan(pace=pace), AnswerPace(there=84))
    assert clock.anchors == round(4 * 32 * (20 + (3580 - 20 * 1.5) / 0.5))


def test_epochs_count_the_answers_that_will_be_there():
    epochs = TrainingSettings(epochs=2.0, batch_size=4, anchors=32)
    found = make_forecast(plan(settings=epochs, answering_seconds=float("inf")), MEASURED)
    assert found.answers == 10_000
    assert found.passes == pytest.approx(2.0, abs=0.01)


def test_a_resumed_run_has_its_rest_before_it():
    progress = TrainingProgress(step=1000, seconds=500.0, between=100.0, before=1440.0)
    found = make_forecast(plan(answering_seconds=0.0, progress=progress), AnswerPace(there=1420))
    assert found.training_minutes == pytest.approx((2160 - 600) / 60)
    assert found.anchors == 4 * 32 * (1000 + 2 * 1560)


@pytest.mark.parametrize(
    ("millions", "tau"), [(0.30, 1.53), (0.58, 1.66), (0.84, 1.74), (1.14, 1.84), (1.44, 1.92), (1.73, 1.97)]
)
def test_the_range_holds_what_was_measured(millions, tau):
    low, high = rough_tau(millions * 1e6, 8)
    assert low < tau < high
    assert (low - 1) * 1.5 == pytest.approx(tau - 1, rel=0.05)


def test_tau_is_never_more_than_a_block():
    assert rough_tau(0, 4) == (1.0, 1.0)
    assert rough_tau(1e12, 4) == (4.0, 4.0)


@pytest.mark.parametrize(("optimizer", "dflash2"), [("adamw", False), ("muon", False), ("adamw", True)])
def test_timing_a_step_changes_nothing(optimizer, dflash2):
    target = make_target()
    layout = dflash2_layout(target, 8) if dflash2 else V1
    drafter = new_drafter(default_config(target, MASK, layers=1, taps=2, block_size=4, layout=layout), target, 0)
    before = {name: mx.array(value) for name, value in tree_flatten(drafter.parameters())}
    settings = TrainingSettings(steps=3, batch_size=8, anchors=4, optimizer=optimizer)
    pace = measure_step(drafter, target, repetitive(), settings, 16)
    assert pace.step > 0 and pace.states > 0
    assert target.taps == ()
    for name, value in tree_flatten(drafter.parameters()):
        assert mx.array_equal(value, before[name]), name


@pytest.mark.parametrize("regenerate", [True, False])
def test_a_run_says_its_forecast_once(tmp_path, monkeypatch, capsys, regenerate):
    monkeypatch.setattr(work, "load_target", lambda name: LoadedTarget(make_target(), make_tokenizer()))
    data = write_prompts(tmp_path)
    if not regenerate:
        data.write_text("\n".join(json.dumps({"text": c * 30}) for c in "abcdefghijkl"))
    command = ["--data", str(data), "--output", str(tmp_path / "out"), "--max-tokens", "16", *SHAPE, "--steps", "3"]
    command += [] if regenerate else ["--no-regenerate"]
    assert program.main([*command, "--json"]) == 0
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.err.splitlines() if line.startswith("{")]
    summary = json.loads(said.out)
    assert lines == [{"forecast": summary["forecast"]}]
    found = summary["forecast"]
    assert found["answers"] == summary["sequences"] + summary["held_out_sequences"]
    assert found["anchors"] == 3 * 4 * 4
    assert found["anchors"] == pytest.approx(found["anchors_a_second"] * 60 * found["training_minutes"])
    assert program.main(command) == 0
    err = capsys.readouterr().err
    assert err.count("a rough tau") == 1
    assert f"{found['answers']} answers are there" in err
    assert err.index("forecast:") < err.index("train:")
