"""Training a DSpark drafter: the loss is its definition, falls, and what is saved can be used."""

import json
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_ddtree.decoding.context import make_prompt_cache
from mlx_ddtree.decoding.draft import draft
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.drafter.config import ConfidenceConfig, DFlash2Config, MarkovConfig
from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.errors import ConfigError, OptionError
from mlx_ddtree.generation.stream import stream_generate
from mlx_ddtree.hub.load_target import LoadedTarget
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs import train as program
from mlx_ddtree.programs import training as work
from mlx_ddtree.training.batches import make_batch
from mlx_ddtree.training.blocks import make_blocks
from mlx_ddtree.training.evaluate import chain_rounds, greedy_drafts
from mlx_ddtree.training.forward import context_keys_values, draft_hidden, embed_blocks, target_features
from mlx_ddtree.training.head_loss import Lesson, head_loss, slot_logits
from mlx_ddtree.training.loop import Trainer
from mlx_ddtree.training.optimizer import make_optimizer
from mlx_ddtree.training.saving import public_config, save_drafter
from mlx_ddtree.training.schedule import TrainingSettings
from mlx_ddtree.training.setup import Layout, default_config, dspark_layout, new_drafter, start_from
from mlx_ddtree.training.vocabulary import HeadRows

from .layouts import assert_gradient_reaches_every_parameter, assert_the_loss_falls, off_neutral, tossed
from .test_loss import make_batch as random_batch
from .tiny import CHARACTERS, MASK, VOCAB, make_target, make_tokenizer

BLOCK = 4
LAYOUT = dspark_layout(6)
ROWS = mx.array([5, 7, 11, *range(20, 50)])


def make_dspark(target, random=False, layout=LAYOUT, **changes):
    """As before training, or with no weight at its neutral value."""
    config = replace(default_config(target, MASK, layers=1, taps=2, block_size=BLOCK, layout=layout), **changes)
    drafter = new_drafter(config, target, 1)
    if random:
        off_neutral(drafter)
    target.taps = config.target_layer_ids
    return drafter


def test_the_roots_row_is_the_first_that_learns():
    """Training's hidden states are drafting's, of a block with one mask less."""
    target = make_target()
    drafter, batch = make_dspark(target, random=True), random_batch()
    anchors = np.array([[4, 9, 19], [0, 5, 14]], np.int32)
    blocks = make_blocks(batch, anchors, drafter.config, 4.0)
    assert blocks.token_ids[0, 0].tolist() == [batch.token_ids[0, 4], MASK, MASK]
    assert blocks.labels[0, 0].tolist() == batch.token_ids[0, 5:8].tolist()
    assert blocks.previous[0, 0].tolist() == batch.token_ids[0, 4:7].tolist()
    features, embeddings = target_features(target, mx.array(batch.token_ids)), embed_blocks(target, blocks.token_ids)
    ours = draft_hidden(drafter, embeddings, context_keys_values(drafter, features), blocks.anchors)
    for s, a in np.ndindex(anchors.shape):
        drafted = drafter(embeddings[s, a][None], features[s : s + 1, : anchors[s, a]], drafter.make_cache())
        np.testing.assert_allclose(np.array(ours[s, a]), np.array(drafted[0]), atol=2e-5)


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("changes", [{}, {"logit_scale": 0.5, "logit_softcap": 5.0}])
def test_the_loss_is_cross_entropy_of_corrected_logits(changes, part, monkeypatch):
    """Value and gradient, by the hidden states and by both tables; the confidence head learns what is accepted."""
    monkeypatch.setattr("mlx_ddtree.training.head_loss.HEAD_CHUNK", 5 * VOCAB)  # several chunks, the last one short
    target = make_target()
    drafter, rng = make_dspark(target, random=True, **changes), np.random.default_rng(0)
    tokens = ROWS if part else mx.arange(VOCAB)
    hidden, teacher = (3 * mx.array(rng.normal(size=(13, 32)).astype(np.float32)) for _ in range(2))
    before, labels = (mx.array(rng.integers(0, n, 13).astype(np.int32)) for n in (VOCAB, len(tokens)))
    weights, soft = mx.array(rng.random(13).astype(np.float32)), 0.3

    def by_definition(drafter, hidden, with_soft):
        logits = slot_logits(target, drafter, hidden, before)[:, tokens]
        said = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        taught = mx.softmax(target.head(teacher).astype(mx.float32)[:, tokens], axis=-1)
        share = soft if with_soft else 0.0
        hard = -mx.take_along_axis(said, labels[:, None], axis=-1)[:, 0]
        block = (((1 - share) * hard - share * (taught * said).sum(axis=-1)) * weights).sum()
        accepted = mx.stop_gradient(mx.minimum(mx.exp(said), taught).sum(axis=-1))
        seen = mx.stop_gradient(mx.concatenate([hidden, drafter.markov_head.markov_w1(before)], axis=-1))
        chance = mx.sigmoid(drafter.confidence_head(seen))
        confidence = -(accepted * mx.log(chance) + (1 - accepted) * mx.log(1 - chance))
        return block + (confidence * weights).sum()

    rows = HeadRows(tokens, target.head_rows(tokens), mx.zeros(len(tokens)), np.zeros(VOCAB)) if part else None
    lesson = Lesson(labels, weights, before, teacher, soft, rows)
    value = head_loss(target, drafter, hidden, lesson).item()
    np.testing.assert_allclose(value, by_definition(drafter, hidden, False).item(), rtol=1e-4)
    ours = nn.value_and_grad(drafter, lambda d: head_loss(target, d, hidden, lesson))(drafter)[1]
    theirs = nn.value_and_grad(drafter, lambda d: by_definition(d, hidden, True))(drafter)[1]
    for part_name in ("markov_head", "confidence_head"):
        for (name, a), (_, b) in zip(tree_flatten(ours[part_name]), tree_flatten(theirs[part_name]), strict=True):
            np.testing.assert_allclose(np.array(a), np.array(b), atol=2e-5, err_msg=name)
    by_hidden = mx.grad(lambda h: head_loss(target, drafter, h, lesson))(hidden)
    expected = mx.grad(lambda h: by_definition(drafter, h, True))(hidden)
    np.testing.assert_allclose(np.array(by_hidden), np.array(expected), atol=2e-5)


def test_gradient_reaches_every_parameter():
    target = make_target()
    drafter = make_dspark(target, random=True)
    assert_gradient_reaches_every_parameter(target, drafter)


def test_muon_leaves_the_tables_to_adamw():
    drafter = make_dspark(make_target())
    optimizer = make_optimizer("muon", 1e-3, 0.01)
    optimizer.init(drafter.trainable_parameters())
    matrices = {name for name, _ in tree_flatten(optimizer.optimizers[0].state)}
    assert any("q_proj" in name for name in matrices)
    assert not any("markov" in name or "confidence" in name for name in matrices)


def test_drafts_are_walked_from_token_to_token():
    """A new drafter's walk is the argmax of every slot; another's is by the logits after its own tokens."""
    target, roots = make_target(), mx.array([5, 6, 7])
    hidden = mx.random.normal((3, BLOCK - 1, 32))
    drafter = make_dspark(target)
    drafted = greedy_drafts(target, drafter, hidden, roots)
    np.testing.assert_array_equal(np.array(drafted), np.array(slot_logits(target, drafter, hidden).argmax(axis=-1)))
    drafter = make_dspark(target, random=True)
    drafted = greedy_drafts(target, drafter, hidden, roots)
    previous = mx.concatenate([roots[:, None], drafted[:, :-1]], axis=1)
    again = slot_logits(target, drafter, hidden, previous).argmax(axis=-1)
    np.testing.assert_array_equal(np.array(drafted), np.array(again))


def test_the_loss_falls_and_the_checkpoint_drafts(tmp_path):
    """What is saved is what was trained; pairs of tokens are in its drafts, and the text stays the target's own."""
    target = make_target()
    settings = TrainingSettings(steps=100, batch_size=4, anchors=8, lr=4e-3, evaluate_every=1000, save_every=1000)
    trainer = Trainer(target, make_dspark(target), tossed(), tmp_path, settings)
    assert_the_loss_falls(trainer, tmp_path)

    loaded = load_drafter(tmp_path)
    assert loaded.config == trainer.drafter.config
    assert loaded.config.logits_start == 0 and loaded.config.markov == MarkovConfig("vanilla", 6)
    assert mx.abs(loaded.markov_head.markov_w2.weight).max().item() > 0
    assert mx.abs(loaded.confidence_head.proj.weight).max().item() > 0
    pair = Pair(target, loaded, make_tokenizer())
    state = DecodeState(pair, make_prompt_cache(pair))
    prefill(state, [5, 3, 8, 9], 512)
    assert draft(state, BLOCK, 4).pairwise
    texts = []
    for method in ("ar", "ddtree"):
        texts.append([t for r in stream_generate(pair, [5, 3, 8, 9], 24, method=method) for t in r.tokens])
    assert texts[0] == texts[1]


def test_the_public_config_has_specforges_layout():
    config = public_config(make_dspark(make_target()).config)
    assert config["architectures"] == ["DSparkDraftModel"]
    assert config["block_size"] == BLOCK - 1  # rows, all of which predict
    assert config["dflash_config"] == {
        "mask_token_id": MASK, "target_layer_ids": [1], "projector_type": "dspark", "markov_rank": 6,
        "markov_head_type": "vanilla", "enable_confidence_head": True, "confidence_head_with_markov": True,
    }  # fmt: skip


def test_a_run_can_start_from_a_v1_drafter(tmp_path):
    """The drafter keeps what it knows, and the row that predicts first: before training it drafts the same."""
    target = make_target()
    v1 = new_drafter(default_config(target, MASK, layers=1, taps=2, block_size=BLOCK), target, 0)
    save_drafter(v1, tmp_path)
    drafter = start_from(tmp_path, target, layout=LAYOUT)
    batch, which = make_batch(tossed(4)), np.ones(4, bool)
    target.taps = drafter.config.target_layer_ids
    features = target_features(target, mx.array(batch.token_ids))
    same = start_from(tmp_path, target)
    rounds = [chain_rounds(d, target, batch, context_keys_values(d, features), which) for d in (drafter, same)]
    assert rounds[0] == rounds[1]
    save_drafter(drafter, tmp_path / "spark")
    again = load_drafter(tmp_path / "spark").config
    assert again.logits_start == 1 and again.block_size == BLOCK and again.markov == LAYOUT.markov
    assert start_from(tmp_path / "spark", target, layout=dspark_layout()).config.markov == LAYOUT.markov  # its own
    with pytest.raises(OptionError, match="another layout's heads"):
        start_from(tmp_path / "spark", target, layout=Layout(DFlash2Config()))


def test_only_vanilla_heads_are_trained(tmp_path):
    target = make_target()
    layout = Layout(markov=MarkovConfig("gated", 6), confidence=ConfidenceConfig(True))
    save_drafter(make_dspark(target, layout=layout), tmp_path)
    with pytest.raises(ConfigError, match="its Markov head is gated"):
        start_from(tmp_path, target)


def test_the_program_trains_one(tmp_path, monkeypatch, capsys):
    target, tokenizer = make_target(), make_tokenizer()
    monkeypatch.setattr(work, "load_target", lambda name: LoadedTarget(target, tokenizer))
    data, output = tmp_path / "prompts.jsonl", tmp_path / "out"
    data.write_text("\n".join(json.dumps({"prompt": c * 3}) for c in CHARACTERS[:6]))
    options = ["--max-tokens", "16", "--layers", "1", "--batch-size", "4", "--anchors", "4", "--steps", "2"]
    command = ["--data", str(data), *options, "--dspark", "--markov-rank", "6"]
    assert program.main([*command, "--output", str(output)]) == 0
    config = load_drafter(output).config
    assert config.block_size == 8 and config.markov == MarkovConfig("vanilla", 6)
    assert program.main([*command, "--output", str(tmp_path / "more"), "--init", str(output)]) == 0
    assert load_drafter(tmp_path / "more").config == config
    assert "tau" in capsys.readouterr().out
