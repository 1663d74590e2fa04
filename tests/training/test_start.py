"""The closed-form start: before the first step a drafter says what a linear map of the target's states can."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.training.attention_start import near_coordinates
from mlx_ddtree.training.forward import context_keys_values
from mlx_ddtree.training.setup import new_drafter
from mlx_ddtree.training.start import channel_rms, start_in_closed_form, take_sample

from .test_loop import make_drafter, make_trainer, repetitive
from .tiny import make_target


def test_the_start_is_better_than_random_weights(tmp_path):
    random = make_trainer(tmp_path / "random", steps=5)
    started = make_trainer(tmp_path / "started", steps=5)
    started.start()
    assert started.evaluate().loss < random.evaluate().loss


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_group_of_heads_reads_the_bonus_row(first):
    """All rows that predict ask for it, its own too where it does."""
    target = make_target()
    drafter = make_drafter(target, logits_start=first)
    target.taps = drafter.config.target_layer_ids
    sample = take_sample(target, repetitive())
    rms = channel_rms(sample.features)
    start_in_closed_form(drafter, target, sample, rms)
    attention, tokens = drafter.layers[0].self_attn, repetitive(1)[0].token_ids
    _, features = target.forward(mx.array([tokens]), target.make_cache())
    keys, _ = context_keys_values(drafter, features / mx.array(rms))[0]
    block = mx.concatenate(
        [target.embed(mx.array([[tokens[20]]])), target.embed(mx.array([[drafter.config.mask_token_id] * 3]))], axis=1
    )
    rows = drafter.layers[0].input_layernorm(block)
    block_keys, _ = attention.keys_values(rows, 20)
    queries = np.array(attention.queries(rows, 20))[0]
    all_keys = np.concatenate([np.array(keys)[0, :, :20], np.array(block_keys)[0]], axis=1)
    groups = attention.heads // attention.kv_heads
    for row in range(first, 4):
        for head in range(groups):
            assert (queries[head, row] @ all_keys[0].T).argmax() == 20
        for head in range(groups, attention.heads):
            scores = queries[head, row] @ all_keys[1].T
            assert scores[:20].max() > scores[20:].max()


def test_the_newest_row_of_the_context_wins():
    """Eight speeds and more, as heads of real sizes have them, never turn back together."""
    target = make_target()
    config = replace(make_drafter(target).config, head_dim=64, rope_theta=1e5)
    attention = new_drafter(config, target, 0).layers[0].self_attn
    vector = mx.array(near_coordinates(attention, 64))[None, None, None]
    now = attention.rope(vector, offset=300)
    alike = [(attention.rope(vector, offset=300 - distance) * now).sum().item() for distance in range(1, 300)]
    assert np.argmax(alike) == 0
    assert alike[0] > alike[7] + 0.1
    assert max(alike[20:]) < alike[7]
