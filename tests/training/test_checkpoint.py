"""A run that is killed while it saves, at whatever moment, goes on, and its folder always holds a drafter."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.errors import MlxDdtreeError, OptionError, WeightsError
from mlx_ddtree.training.checkpoint import checkpoint_file

from .test_loop import make_trainer, weights

STEPS = 3
SAVES = (1, 2)
"""Steps after which the run saves."""


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the program may run behind it but what closes files."""


@pytest.fixture
def kill_at(monkeypatch):
    """A function: from now on the k-th moment of writing files (half-written, written, before and behind a move) is
    the last one.  The tensors are written in two halves, as a large file would be found."""
    state = {"left": None}

    def moment():
        if state["left"] is not None:
            state["left"] -= 1
            if state["left"] < 0:
                raise Killed

    real_save = mx.save_safetensors
    real_replace = os.replace

    def save(file, arrays, metadata=None):
        whole = io.BytesIO()
        real_save(whole, arrays, metadata)
        content = whole.getvalue()
        moment()
        file.write(content[: len(content) // 2])
        file.flush()
        moment()
        file.write(content[len(content) // 2 :])
        moment()

    def replace(source, target):
        moment()
        real_replace(source, target)
        moment()

    monkeypatch.setattr(mx, "save_safetensors", save)
    monkeypatch.setattr(os, "replace", replace)
    return lambda k: state.update(left=k)


def run_to(trainer, last):
    while trainer.progress.step < last:
        trainer.step()
        if trainer.progress.step in SAVES:
            trainer.save()


def test_a_kill_at_every_moment_of_a_save(tmp_path, kill_at):
    whole = make_trainer(tmp_path / "whole", steps=STEPS)
    run_to(whole, STEPS)
    expected = weights(whole.drafter)
    for k in count():
        output = tmp_path / f"{k}"
        first = make_trainer(output, steps=STEPS)
        first.step()
        first.save()
        first.step()
        kill_at(k)
        try:
            first.save()
            break
        except Killed:
            kill_at(None)
        load_drafter(output)
        second = make_trainer(output, steps=STEPS)
        second.resume()
        assert second.progress.step in SAVES
        run_to(second, STEPS)
        second.save()
        load_drafter(output)
        for name, value in weights(second.drafter).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert k >= 10  # two files of tensors in halves, three moves


def test_a_process_that_is_killed(tmp_path):
    program = f"""
from pathlib import Path
from mlx_ddtree.training.checkpoint import checkpoint_file
from tests.training.test_loop import make_trainer
output = Path({str(tmp_path)!r})
trainer = make_trainer(output, steps=100_000, save_every=1e-9)
if checkpoint_file(output).exists():
    trainer.resume()
print(trainer.progress.step, flush=True)
trainer.train(progress_bar=False)
"""
    reached = []
    for delay in (0.3, 0.41, 0.53):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        try:
            reached.append(int(process.stdout.readline()))
            end = time.monotonic() + 60
            while not (tmp_path / "config.json").exists():
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.01)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.communicate()
    again = make_trainer(tmp_path, steps=100_000, save_every=1e-9)
    again.resume()
    reached.append(again.progress.step)
    assert reached == sorted(reached) and reached[0] == 0 < reached[1]
    load_drafter(tmp_path)


def test_a_run_stopped_before_its_first_step_goes_on(tmp_path):
    make_trainer(tmp_path, steps=STEPS).save()
    again = make_trainer(tmp_path, steps=STEPS)
    again.resume()
    assert again.train(progress_bar=False)["steps"] == STEPS


def test_a_log_goes_on_behind_a_cut_line(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    make_trainer(tmp_path, steps=1).train(progress_bar=False)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert lines[1] == '{"step": 2, "lo'
    assert [json.loads(line).get("step") for line in lines[2:]] == [1, None]


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, metadata: metadata.clear(),
        lambda arrays, metadata: metadata.update(run="{"),
        lambda arrays, metadata: metadata.update(run="[1]"),
        lambda arrays, metadata: metadata.update(run="[" * 100_000),
        lambda arrays, metadata: metadata.update(run='{"settings": 3, "drafter": {}}'),
        lambda arrays, metadata: metadata.update(progress='{"hours": 3}'),
        lambda arrays, metadata: arrays.pop("drafter.fc.weight"),
        lambda arrays, metadata: arrays.update({"drafter.fc.weight": mx.zeros((2, 2))}),
        lambda arrays, metadata: arrays.update({"drafter.more": mx.zeros((2, 2))}),
        lambda arrays, metadata: arrays.pop("optimizer.fc.weight.m"),
        lambda arrays, metadata: arrays.update({"optimizer.fc.weight.v": mx.zeros((2, 2))}),
        lambda arrays, metadata: arrays.clear() or arrays.update(other=mx.zeros(3)),
    ],
)
def test_what_is_no_checkpoint_is_said_in_a_line(tmp_path, change):
    make_trainer(tmp_path, steps=3).save()
    file = checkpoint_file(tmp_path)
    arrays, metadata = mx.load(str(file), return_metadata=True)
    mx.eval(arrays)
    change(arrays, metadata)
    mx.save_safetensors(str(file), arrays, metadata)
    with pytest.raises(WeightsError, match=r"state\.safetensors"):
        make_trainer(tmp_path, steps=3).resume()


def test_a_cut_checkpoint_and_none_at_all(tmp_path):
    with pytest.raises(OptionError, match="leave --resume out"):
        make_trainer(tmp_path, steps=3).resume()
    make_trainer(tmp_path, steps=3).save()
    file = checkpoint_file(tmp_path)
    for content in (file.read_bytes()[:-100], b"", b"\xff" * 50):
        file.write_bytes(content)
        with pytest.raises(MlxDdtreeError, match=r"state\.safetensors"):
            make_trainer(tmp_path, steps=3).resume()
