"""The closed-form start: before the first step a drafter says what a linear map of the target's states can."""

import mlx.core as mx
import numpy as np

from mlx_ddtree.training.forward import context_keys_values
from mlx_ddtree.training.start import channel_rms, start_in_closed_form, take_sample

from .test_loop import make_drafter, make_trainer, repetitive
from .tiny import make_target


def test_the_start_is_better_than_random_weights(tmp_path):
    random = make_trainer(tmp_path / "random", steps=5)
    started = make_trainer(tmp_path / "started", steps=5)
    started.start()
    assert started.evaluate().loss < random.evaluate().loss


def test_every_head_reads_the_bonus_row_or_the_newest_context_row():
    target = make_target()
    drafter = make_drafter(target)
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
    for head in range(attention.heads):
        scores = queries[head, 1] @ all_keys[head // groups].T
        assert scores.argmax() == (20 if head // groups == 0 else 19)
