"""Whole training runs of a tiny drafter."""

import json
import os
import signal
import threading
from dataclasses import asdict, replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.errors import ConfigError, OptionError
from mlx_ddtree.hub.load_target import LoadedTarget
from mlx_ddtree.programs import train as program
from mlx_ddtree.programs import training as work
from mlx_ddtree.training.batches import make_batch
from mlx_ddtree.training.evaluate import chain_rounds, evaluate_drafter
from mlx_ddtree.training.examples import Example
from mlx_ddtree.training.forward import context_keys_values, target_features
from mlx_ddtree.training.loop import Trainer
from mlx_ddtree.training.saving import public_config, save_drafter
from mlx_ddtree.training.schedule import TrainingProgress, TrainingSettings, learning_rate
from mlx_ddtree.training.setup import default_config, new_drafter, start_from

from .tiny import CHARACTERS, MASK, make_target, make_tokenizer

BLOCK = 4


def make_drafter(target, seed=0, **changes):
    config = default_config(target, MASK, layers=1, taps=2, block_size=BLOCK)
    return new_drafter(replace(config, **changes), target, seed)


def repetitive(count=24, length=40):
    """Every token has one successor: 3, 4, .. 10, 3, 4, .."""
    return [Example((), tuple(3 + (i + j) % 8 for j in range(length))) for i in range(count)]


def make_trainer(output, steps=120, examples=None, **settings):
    target = make_target()
    options = {"batch_size": 4, "anchors": 8, "lr": 4e-3, "evaluate_every": 1000, "save_every": 1000} | settings
    return Trainer(
        target, make_drafter(target), examples or repetitive(), output, TrainingSettings(steps=steps, **options)
    )


def weights(drafter):
    return {name: np.array(value) for name, value in tree_flatten(drafter.parameters())}


def rounded(drafter):
    """As stored: through bfloat16."""
    drafter.apply(lambda value: value.astype(mx.bfloat16).astype(mx.float32))
    return drafter


def test_a_repetitive_text_is_learnt(tmp_path):
    trainer = make_trainer(tmp_path)
    before = trainer.evaluate()
    summary = trainer.train(progress_bar=False)
    assert summary["validation_loss"] < 0.5 * before.loss
    assert summary["tau"] > 1.5 > before.tau
    assert summary["finished"]
    assert summary["slot_accuracy"][0] > 0.8
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows[:-1]] == list(range(1, 121))
    assert rows[-1]["event"] == "end"


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, optimizer):
    whole = make_trainer(tmp_path / "whole", steps=12, optimizer=optimizer)
    whole.train(progress_bar=False)
    first = make_trainer(tmp_path / "parts", steps=12, optimizer=optimizer)
    for _ in range(5):
        first.step()
    first.save()
    second = make_trainer(tmp_path / "parts", steps=12, optimizer=optimizer)
    second.resume()
    assert second.progress.step == 5
    second.train(progress_bar=False)
    expected, found = weights(whole.drafter), weights(second.drafter)
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)


def test_resume_refuses_another_run(tmp_path):
    trainer = make_trainer(tmp_path, steps=3)
    with pytest.raises(OptionError, match="no checkpoint"):
        trainer.resume()
    trainer.save()
    with pytest.raises(OptionError, match=r"lr = 0\.004, but it is 0\.1"):
        make_trainer(tmp_path, steps=3, lr=0.1).resume()
    with pytest.raises(OptionError, match="data"):
        make_trainer(tmp_path, steps=3, examples=repetitive(23)).resume()


def test_an_interrupt_ends_after_the_step_with_a_checkpoint(tmp_path):
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell started this in the background
    trainer = make_trainer(tmp_path, steps=100_000)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    summary = trainer.train(progress_bar=False)
    assert not summary["finished"]
    assert 0 < summary["steps"] < 100_000
    again = make_trainer(tmp_path, steps=100_000)
    again.resume()
    assert asdict(again.progress) == asdict(trainer.progress)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_clock_can_be_the_budget(tmp_path):
    trainer = make_trainer(tmp_path, steps=None, minutes=0.02)
    summary = trainer.train(progress_bar=False)
    assert summary["finished"]
    assert 1.2 <= summary["seconds"] < 5


def test_what_came_before_training_is_taken_from_its_minutes(tmp_path):
    trainer = make_trainer(tmp_path, steps=None, minutes=0.05)
    summary = trainer.train(progress_bar=False, before=2.4)
    assert summary["finished"]
    assert 0.6 <= trainer.progress.clock < 2
    again = make_trainer(tmp_path, steps=None, minutes=0.05)
    again.resume()
    assert again.train(progress_bar=False, before=1000.0)["steps"] == summary["steps"]


def test_minutes_are_shared_by_all_that_a_run_does():
    settings = TrainingSettings(minutes=1.0)
    assert settings.training_seconds(before=24.0) == 36.0
    assert settings.training_seconds(before=600.0) == 6.0  # a drafter is made of some steps at least
    progress = TrainingProgress(seconds=16.0, between=2.0, before=24.0)
    assert progress.done(None, settings) == 0.5
    assert progress.done(100, settings) == 0.0


def test_a_stop_that_came_before_the_first_step_leaves_a_checkpoint(tmp_path):
    stop = threading.Event()
    stop.set()
    assert make_trainer(tmp_path, steps=3).train(progress_bar=False, stop=stop)["steps"] == 0
    again = make_trainer(tmp_path, steps=3)
    again.resume()
    assert again.train(progress_bar=False)["steps"] == 3


def test_the_saved_folder_is_a_public_drafter(tmp_path):
    target = make_target()
    windows = {"num_hidden_layers": 2, "windows": (None, 8), "causal": (False, True), "logit_softcap": 30.0}
    for folder, drafter in (("plain", make_drafter(target)), ("windows", make_drafter(target, **windows))):
        save_drafter(drafter, tmp_path / folder)
        loaded = load_drafter(tmp_path / folder)
        assert loaded.config == drafter.config
        for name, value in tree_flatten(loaded.parameters()):
            assert (np.array(value.astype(mx.float32)) == weights(rounded(drafter))[name]).all(), name
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert config["architectures"] == ["DFlashDraftModel"]
    assert config["dflash_config"] == {"mask_token_id": MASK, "target_layer_ids": [1]}
    with pytest.raises(ConfigError, match="no public form"):
        public_config(replace(drafter.config, windows=(None, None), causal=(True, False)))


def test_a_run_can_start_from_a_drafter(tmp_path):
    target = make_target()
    save_drafter(make_drafter(target), tmp_path)
    drafter = start_from(tmp_path, target, block_size=8)
    assert drafter.config.block_size == 8
    assert drafter.fc.weight.dtype == mx.float32


def test_tau_is_what_decoding_would_accept():
    """Against rounds through DFlashDrafter itself, one sequence at a time."""
    target = make_target()
    examples = [Example((5, 6, 7), e.response_tokens[: 20 + i]) for i, e in enumerate(repetitive(3))]
    drafter = make_drafter(target)
    target.taps = drafter.config.target_layer_ids
    batch = make_batch(examples)
    context = context_keys_values(drafter, target_features(target, mx.array(batch.token_ids)))
    found = chain_rounds(drafter, target, batch, context, np.ones(3, bool))
    rounds = 0
    for example in examples:
        tokens, root = list(example.token_ids), example.start
        features = target_features(target, mx.array([tokens]))
        while root < len(tokens) - 1:
            block = target.embed(mx.array([[tokens[root]] + [MASK] * (BLOCK - 1)]))
            hidden = drafter(block, features[:, :root], drafter.make_cache())
            drafted = target.unembed(hidden[0, 1:]).argmax(axis=-1).tolist()
            agree = [a == b for a, b in zip(drafted, tokens[root + 1 :], strict=False)]
            root, rounds = root + [*agree, False].index(False) + 1, rounds + 1
    assert found == (sum(19 + i + 1 for i in range(3)), rounds)


def test_tau_counts_greedy_responses_only():
    target = make_target()
    drafter = make_drafter(target)
    target.taps = drafter.config.target_layer_ids
    greedy, sampled = replace(repetitive(1)[0], greedy=True), Example((), tuple(range(3, 43)))
    options = {"anchors": 4, "gamma": 2.0}
    both, alone = (evaluate_drafter(drafter, target, e, **options) for e in ([greedy, sampled], [greedy]))
    assert both.tau == alone.tau
    assert both.loss != alone.loss


def test_the_schedule_warms_up_and_ends_at_zero():
    settings = TrainingSettings(steps=100, lr=1.0, warmup=0.1)
    rates = [learning_rate(settings, s / 100) for s in range(101)]
    assert rates[5] == pytest.approx(0.5)
    assert max(rates) == rates[10] == 1.0
    assert rates[100] == pytest.approx(0.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_options_that_make_no_sense():
    with pytest.raises(OptionError, match="one of"):
        TrainingSettings(steps=3, minutes=1.0)
    with pytest.raises(OptionError, match="above 0"):
        TrainingSettings(steps=3, anchors=0)
    with pytest.raises(OptionError, match="adamw, muon"):
        TrainingSettings(steps=3, optimizer="sgd")
    assert TrainingSettings(epochs=2.0, batch_size=8).total_steps(24) == 6
    for wrong in ({"steps": 3, "lr": float("nan")}, {"minutes": float("nan")}, {"epochs": float("inf")}):
        with pytest.raises(OptionError):
            TrainingSettings(**wrong)
    for wrong in ({"gamma": 0.0}, {"gamma": -1.0}, {"seed": -1}):
        with pytest.raises(OptionError, match=r"--(gamma|seed)"):
            TrainingSettings(steps=3, **wrong)


def test_the_program_from_prompts_to_drafter(tmp_path, monkeypatch, capsys):
    target, tokenizer = make_target(), make_tokenizer()
    monkeypatch.setattr(work, "load_target", lambda name: LoadedTarget(target, tokenizer))
    data, output = tmp_path / "prompts.jsonl", tmp_path / "out"
    data.write_text("\n".join(json.dumps({"prompt": c * 3}) for c in CHARACTERS[:12]))
    shape = ["--layers", "1", "--taps", "2", "--block-size", "4", "--batch-size", "4", "--anchors", "4"]
    command = ["--data", str(data), "--output", str(output), "--max-tokens", "16", *shape, "--steps", "4"]
    assert program.main([*command, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["steps"] == 4
    assert load_drafter(output).config.block_size == 4
    assert len((output / "responses.jsonl").read_text().splitlines()) == 12
    assert program.main([*command, "--resume", "--lr", "1"]) == 2
    assert "lr = 0.001" in capsys.readouterr().err
    assert program.main([*command[:4], "--init", str(output), "--steps", "2", "--seed", "3", "--anchors", "4"]) == 0
    assert "validation loss" in capsys.readouterr().out
