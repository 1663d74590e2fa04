"""On the embedded target's own keys and queries pages read far more attention than chance, also of late tokens."""

import random

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_ddtree import load
from mlx_ddtree.benchmarking.needles import haystack
from mlx_ddtree.icecache import make_pages

LAYERS, BUDGET = (4, 8), 8  # pages of 16


class Recorder(nn.Module):
    def __init__(self, rope):
        super().__init__()
        self.rope, self.seen = rope, []

    def __call__(self, x, offset=0):
        self.seen.append(self.rope(x, offset=offset))
        return self.seen[-1]


@pytest.fixture(scope="module")
def heads():
    """(keys (n, D), the last queries (R, D)) of two layers, the first query head of each KV head."""
    pair = load(draft=False)
    pair.target.model.set_dtype(mx.float32)
    ids = pair.tokenizer.encode("".join(haystack("prose", 4000, random.Random(3))))[:800]
    recorders = [Recorder(pair.target.layers[layer].self_attn.rope) for layer in LAYERS]
    for layer, recorder in zip(LAYERS, recorders, strict=True):
        pair.target.layers[layer].self_attn.rope = recorder
    mx.eval(pair.target.forward(mx.array([ids]), pair.target.make_cache())[0])
    found = []
    for recorder in recorders:
        queries, keys = (np.array(x[0]) for x in recorder.seen)
        found += [(keys[h], queries[2 * h, -16:]) for h in range(len(keys))]
    return found


def captured(index, keys, queries, pages):
    """Mean share of the attention to these keys that falls into the pages (R, k)."""
    scores = queries @ keys.T / np.sqrt(keys.shape[1])
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    tokens = index.pages[pages].reshape(len(queries), -1)
    return np.where(tokens >= 0, np.take_along_axis(weights, np.maximum(tokens, 0), axis=1), 0).sum(axis=1).mean()


@pytest.mark.parametrize(
    ("formation", "ranking"),
    [("dci", "tree"), ("greedy", "page_max"), ("greedy", "page_mean"), ("sequential", "page_max")],
)
def test_attention_read_from_a_few_pages(heads, formation, ranking):
    """More than twice what pages at random hold; a quarter of the tokens inserted later costs at most 0.03."""
    shares = []
    for keys, queries in heads:
        at_once, later = (make_pages(formation, ranking, keys.shape[1], 16, 1) for _ in range(2))
        at_once.build(keys)
        later.build(keys[:600])
        for start in range(600, len(keys), 16):
            later.insert(keys[start : start + 16])
        rng = np.random.default_rng(0)
        drawn = np.array([rng.permutation(len(at_once.pages))[:BUDGET] for _ in queries])
        shares.append(
            [
                captured(at_once, keys, queries, at_once.search(queries, BUDGET)),
                captured(later, keys, queries, later.search(queries, BUDGET)),
                captured(at_once, keys, queries, drawn),
            ]
        )
    fresh, inserted, chance = np.mean(shares, axis=0)
    assert fresh > 2 * chance
    assert inserted >= fresh - 0.03
