"""Training a DFlash 2 drafter: the loss is its definition, falls, and what is saved can be used."""

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_ddtree.drafter.config import DFlash2Config
from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.errors import OptionError
from mlx_ddtree.hub.load_target import LoadedTarget
from mlx_ddtree.programs import train as program
from mlx_ddtree.programs import training as work
from mlx_ddtree.training.batches import make_batch
from mlx_ddtree.training.blocks import make_blocks
from mlx_ddtree.training.evaluate import chain_rounds, greedy_drafts
from mlx_ddtree.training.forward import context_keys_values, draft_hidden, embed_blocks, target_features
from mlx_ddtree.training.head_loss import selector_loss, slot_logits
from mlx_ddtree.training.loop import Trainer
from mlx_ddtree.training.saving import public_config, save_drafter
from mlx_ddtree.training.schedule import TrainingSettings
from mlx_ddtree.training.setup import (
    Layout,
    default_config,
    dflash2_layout,
    make_neutral,
    new_drafter,
    start_from,
)

from .layouts import assert_gradient_reaches_every_parameter, assert_the_loss_falls, off_neutral, tossed
from .test_loss import make_batch as random_batch
from .tiny import CHARACTERS, MASK, VOCAB, make_target, make_tokenizer

BLOCK = 4
SHAPE = DFlash2Config(2, 8, 6, 5)


def make_drafter2(target, seed=1, random=False, **changes):
    """As before training, or with no weight at its neutral value."""
    config = replace(default_config(target, MASK, layers=1, taps=2, block_size=BLOCK, layout=Layout(SHAPE)), **changes)
    drafter = new_drafter(config, target, seed)
    if random:
        off_neutral(drafter)
    target.taps = config.target_layer_ids
    return drafter


def test_training_hidden_states_equal_drafting():
    target = make_target()
    drafter, batch = make_drafter2(target, random=True), random_batch()
    anchors = np.array([[4, 9, 19], [0, 5, 14]], np.int32)
    blocks = make_blocks(batch, anchors, drafter.config, 4.0)
    features, embeddings = target_features(target, mx.array(batch.token_ids)), embed_blocks(target, blocks.token_ids)
    ours = draft_hidden(drafter, embeddings, context_keys_values(drafter, features), blocks.anchors)
    for s, a in np.ndindex(anchors.shape):
        drafted = drafter(embeddings[s, a][None], features[s : s + 1, : anchors[s, a]], drafter.make_cache())
        np.testing.assert_allclose(np.array(ours[s, a]), np.array(drafted[0]), atol=2e-5)


def test_the_selectors_loss_is_cross_entropy_after_the_true_token(monkeypatch):
    """Over the candidates, the label in the place of the worst where it is none of them; in chunks or at once."""
    target = make_target()
    drafter, rng = make_drafter2(target, random=True), np.random.default_rng(0)
    hidden = mx.array(3 * rng.normal(size=(13, 32)).astype(np.float32))
    previous, labels = rng.integers(0, VOCAB, (2, 13)).astype(np.int32)
    weights = rng.random(13).astype(np.float32)
    logits, expected, inside = np.array(slot_logits(target, drafter, hidden)), 0.0, 0
    labels[:5] = logits[:5].argmax(axis=-1)
    for row, parent, label, weight, h in zip(logits, previous, labels, weights, hidden, strict=True):
        best = np.argsort(-row)[:5]
        inside += label in best
        best = best if label in best else [*best[:-1], label]
        edges = drafter.selector.scores(mx.array([int(parent)]), h, mx.array(np.array(best, np.int32)))
        scores = row[best] + np.array(edges)[0]
        expected += weight * (np.log(np.exp(scores).sum()) - scores[list(best).index(label)])
    assert 5 <= inside < 13
    arguments = [mx.array(x) for x in (previous, labels, weights)]
    for chunk in (1 << 24, 5 * VOCAB):
        monkeypatch.setattr("mlx_ddtree.training.head_loss.HEAD_CHUNK", chunk)
        loss = selector_loss(target, drafter, hidden, *arguments)
        np.testing.assert_allclose(loss.item(), expected, rtol=1e-4)


def test_gradient_reaches_every_parameter():
    target = make_target()
    drafter = make_drafter2(target, random=True)
    assert_gradient_reaches_every_parameter(target, drafter)


def test_a_new_drafter_drafts_as_without_the_additions():
    """They start neutral, so the walk is the argmax of every slot."""
    target = make_target()
    drafter = make_drafter2(target)
    hidden = mx.random.normal((3, BLOCK - 1, 32))
    drafted = greedy_drafts(target, drafter, hidden, mx.array([5, 6, 7]))
    np.testing.assert_array_equal(np.array(drafted), np.array(slot_logits(target, drafter, hidden).argmax(axis=-1)))


def test_drafts_are_walked_from_pair_to_pair():
    """The best child of the best child, by logits and edges."""
    target = make_target()
    drafter = make_drafter2(target, random=True)
    hidden, roots = mx.random.normal((3, BLOCK - 1, 32)), [5, 6, 7]
    drafted = np.array(greedy_drafts(target, drafter, hidden, mx.array(roots)))
    logits = np.array(slot_logits(target, drafter, hidden))
    for row in range(3):
        parent = roots[row]
        for d in range(BLOCK - 1):
            best = np.argsort(-logits[row, d])[:5].astype(np.int32)
            edges = drafter.selector.scores(mx.array([int(parent)]), hidden[row, d], mx.array(best))
            parent = best[(logits[row, d, best] + np.array(edges)[0]).argmax()]
            assert drafted[row, d] == parent


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=pytest.mark.slow)])
def test_the_loss_falls_and_the_checkpoint_loads(tmp_path, optimizer):
    """Block loss, selections and tau; what is saved is what was trained, under the public names."""
    target = make_target()
    settings = TrainingSettings(
        steps=120, batch_size=4, anchors=8, lr=4e-3, evaluate_every=1000, save_every=1000, optimizer=optimizer
    )
    trainer = Trainer(target, make_drafter2(target), tossed(), tmp_path, settings)
    assert_the_loss_falls(trainer, tmp_path)
    loaded = load_drafter(tmp_path)
    assert loaded.config == trainer.drafter.config
    assert "candidate_selector.successor_codebook" in mx.load(str(tmp_path / "model.safetensors"))
    for name, value in tree_flatten(loaded.parameters()):
        trained = dict(tree_flatten(trainer.drafter.parameters()))[name]
        if name == "fc.weight":  # the file's divides the features by their scales itself
            trained = trained / mx.array(trainer.scales)
        np.testing.assert_array_equal(
            np.array(value.astype(mx.float32)), np.array(trained.astype(mx.bfloat16).astype(mx.float32))
        )
    assert mx.abs(loaded.candidate_selector.successor_codebook.weight).max().item() > 0


def test_the_public_config_has_the_published_layout():
    config = public_config(make_drafter2(make_target()).config)
    assert config["architectures"] == ["DFlash2DraftModel"]
    assert config["dflash_config"] == {
        "mask_token_id": MASK, "target_layer_ids": [1], "block_size": BLOCK, "conv_kernel_size": 2,
        "conv_group_size": 8, "selector_rank": 6, "selector_top_k": 5,
    }  # fmt: skip


def test_a_run_can_start_from_a_v1_drafter(tmp_path):
    """The drafter keeps what it knows: before training it drafts the same."""
    target = make_target()
    v1 = new_drafter(default_config(target, MASK, layers=1, taps=2, block_size=BLOCK), target, 0)
    save_drafter(v1, tmp_path)
    drafter = start_from(tmp_path, target, layout=Layout(SHAPE))
    batch, which = make_batch(tossed(4)), np.ones(4, bool)
    target.taps = drafter.config.target_layer_ids
    features = target_features(target, mx.array(batch.token_ids))
    same = start_from(tmp_path, target)
    rounds = [chain_rounds(d, target, batch, context_keys_values(d, features), which) for d in (drafter, same)]
    assert rounds[0] == rounds[1]
    save_drafter(drafter, tmp_path / "v2")
    assert start_from(tmp_path / "v2", target, layout=Layout(DFlash2Config())).config.dflash2 == SHAPE  # it has its own


def test_shapes_follow_the_target():
    target = make_target()
    assert dflash2_layout(target, selector_rank=9) == Layout(DFlash2Config(2, 16, 9, 16))
    target.hidden_size = 40
    with pytest.raises(OptionError, match="groups of 16"):
        dflash2_layout(target)
    assert make_neutral(default_config(make_target(), MASK, layers=1, taps=1)).selector is None


def test_the_program_trains_one(tmp_path, monkeypatch, capsys):
    target, tokenizer = make_target(), make_tokenizer()
    monkeypatch.setattr(work, "load_target", lambda name: LoadedTarget(target, tokenizer))
    data, output = tmp_path / "prompts.jsonl", tmp_path / "out"
    data.write_text("\n".join(json.dumps({"prompt": c * 3}) for c in CHARACTERS[:6]))
    options = ["--max-tokens", "16", "--layers", "1", "--batch-size", "4", "--anchors", "4", "--steps", "2"]
    command = ["--data", str(data), *options, "--dflash2", "--selector-rank", "6"]
    assert program.main([*command, "--output", str(output)]) == 0
    config = load_drafter(output).config
    assert config.block_size == 8 and config.dflash2 == DFlash2Config(2, 16, 6, 16)
    assert program.main([*command, "--output", str(tmp_path / "more"), "--init", str(output)]) == 0
    assert load_drafter(tmp_path / "more").config == config
    assert "tau" in capsys.readouterr().out


def test_metas_layout_is_saved_in_the_common_one(tmp_path):
    """What its file leaves out is known from the target."""
    target = make_target()
    silent = {"windows": (9,), "vocab_size": None}
    drafter = new_drafter(
        replace(default_config(target, MASK, layers=1, taps=2, block_size=BLOCK), **silent), target, 0
    )
    save_drafter(drafter, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["MuseGlimmerAssistantModel"]}
    assert "vocab_size" not in config
    (tmp_path / "config.json").write_text(json.dumps(config))
    for dflash2 in (None, SHAPE):
        started = start_from(tmp_path, target, layout=Layout(dflash2))
        save_drafter(started, tmp_path / "saved")
        assert load_drafter(tmp_path / "saved").config == started.config
        assert started.config.vocab_size == VOCAB and started.config.causal == (False,)
