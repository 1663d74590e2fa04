"""Two-phase attention is dense masked attention, for any tree, plan, head sharing and type; and under a draft tree
the tokens stay those of plain decoding."""

import json
from functools import cache

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree import load, stream_generate
from mlx_ddtree.deft.attention import DeftAttention, deft_attention, parents_of
from mlx_ddtree.deft.plans import PLANS, make_plan
from mlx_ddtree.hub.names import DEMO
from mlx_ddtree.kernels.tree_attention import tree_attention_ops
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tuning.deft import use_deft

from ..families import tiny_pair
from ..tree.trees import random_tree as draft_tree
from .trees import SHAPES, prefix_trees, random_tree, visible

TOLERANCE = {mx.float32: 5e-6, mx.bfloat16: 2e-2, mx.float16: 2e-2}
DIM = 32


def arrays(tree, heads, kv_heads, dtype, seed):
    keys = mx.random.split(mx.random.key(seed), 3)
    rows = int(tree.lengths.sum())
    shapes = (heads, len(tree.query_nodes)), (kv_heads, rows), (kv_heads, rows)
    return [mx.random.normal((1, *s, DIM), key=k).astype(dtype) for s, k in zip(shapes, keys, strict=True)]


def dense(queries, keys, values, mask, sinks=None):
    """In float64; a query that sees nothing gets zeros."""
    q, k, v = (np.array(x.astype(mx.float32), np.float64)[0] for x in (queries, keys, values))
    k, v = (np.repeat(x, len(q) // len(k), axis=0) for x in (k, v))
    scores = np.where(mask, q @ k.swapaxes(1, 2) * DIM**-0.5, -np.inf)
    sinks = np.full(len(q), -np.inf) if sinks is None else np.array(sinks, np.float64)
    largest = np.maximum(scores.max(axis=-1, initial=-1e300), sinks[:, None])[..., None]
    weights = np.exp(scores - largest)
    total = weights.sum(axis=-1, keepdims=True) + np.exp(sinks[:, None, None] - largest)
    return (weights @ v) / np.maximum(total, 1e-300)


def check(tree, kind, *, heads=(4, 2), dtype=mx.float32, block=16, cap=None, seed=0, sinks=None):
    given_arrays = arrays(tree, *heads, dtype, seed)
    plan = make_plan(tree, kind, block=block, cap=cap)
    got = deft_attention(*given_arrays, plan, scale=DIM**-0.5, sinks=sinks)
    assert got.dtype == dtype and got.shape == given_arrays[0].shape
    got = np.array(got.astype(mx.float32))[0]
    assert np.isfinite(got).all()
    assert np.abs(got - dense(*given_arrays, visible(tree), sinks)).max() <= TOLERANCE[dtype]


@settings(max_examples=60)
@given(
    tree=prefix_trees(), kind=st.sampled_from(PLANS), block=st.integers(1, 9), cap=st.none() | st.integers(1, 4),
    group=st.sampled_from([1, 4, 8]), dtype=st.sampled_from(list(TOLERANCE)), with_sinks=st.booleans(),
)  # fmt: skip
def test_any_plan_of_a_small_tree(tree, kind, block, cap, group, dtype, with_sinks):
    """Empty runs and queries that see nothing included."""
    sinks = mx.arange(group * 2) - 3.0 if with_sinks else None
    check(tree, kind, heads=(2 * group, 2), dtype=dtype, block=block, cap=cap, sinks=sinks)


def check_large(seed):
    """One of the random trees of the acceptance figure: 1-300 queries, prefix 0-4096, GQA 1, 4 or 8."""
    rng = np.random.default_rng(seed)
    tree = random_tree(
        seed, shape=SHAPES[seed % len(SHAPES)], nodes=int(rng.integers(1, 120)),
        queries=int(rng.integers(1, 301)), prefix=int(rng.choice([0, 1, 127, 512, 4096], p=[0.3, 0.1, 0.2, 0.3, 0.1])),
        shuffled=bool(seed % 2),
    )  # fmt: skip
    dtype, group = [mx.float32, mx.bfloat16][seed // 2 % 2], int(rng.choice([1, 4, 8]))
    for kind in PLANS:
        block, cap = int(rng.choice([16, 128, 1024])), [None, 32][seed % 2]
        check(tree, kind, heads=(group, 1), dtype=dtype, block=block, cap=cap, seed=seed)


@pytest.mark.parametrize("seed", range(12))
def test_large_trees(seed):
    check_large(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(500))
def test_500_large_trees(seed):
    check_large(seed)


@settings(max_examples=40)
@given(nodes=st.integers(1, 70), padding=st.integers(0, 3), seed=st.integers(0, 99))
def test_parents_are_read_from_ancestor_bits(nodes, padding, seed):
    tree = draft_tree(nodes, seed)
    rows = TreeRows(tree, 0, nodes + 1 + padding)
    assert parents_of(rows.bits, rows.count).tolist() == [*tree.parents, *[-1] * padding]


@pytest.mark.parametrize("kind", PLANS)
@pytest.mark.parametrize(
    "how", [{}, {"sinks": mx.array([0.5, -1.0, 2.0, 0.0])}, {"window": 9}, {"window": 9, "keep": 2}]
)
def test_as_a_tree_attention(kind, how):
    """In the place of kernels.tree_attention: padding, sinks, windows, a new tree each time, packed keys."""
    attention = DeftAttention(kind, block=16, cap=5)
    for seed, context in enumerate((0, 40, 41)):
        rows = TreeRows(draft_tree(20, seed), context, 24)
        q, k, v = (mx.random.normal((1, h, n, 64)) for h, n in ((4, 24), (2, context + 24), (2, context + 24)))
        packed = [mx.quantize(x, group_size=32, bits=8) for x in (k, v)]
        for keys, values in ((k, v), packed):
            args = (q, keys, values, rows.bits)
            got, want = (f(*args, context=context, scale=0.125, **how) for f in (attention, tree_attention_ops))
            np.testing.assert_allclose(np.array(got), np.array(want), atol=5e-6)


@cache
def prompts():
    lines = (DEMO / "heldout_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [[{"role": "user", "content": json.loads(line)["prompt"]}] for line in lines]


def tokens(pair, prompt, count, **options):
    return [t for r in stream_generate(pair, prompt, count, **options) for t in r.tokens]


@cache
def embedded():
    """The pair, and plain decoding's tokens of it by prompt."""
    return load(), {}


def check_lossless(kind, budget, which, count=32):
    """Small blocks, so that the prompt is cut and runs are merged."""
    pair, plain = embedded()
    if which not in plain:
        plain[which] = tokens(pair, prompts()[which], 32, method="ar")
    use_deft(pair, kind, block=32, cap=16)
    assert tokens(pair, prompts()[which], count, tree_budget=budget) == plain[which][:count]


@pytest.mark.parametrize("budget", [4, 16, 22, 64])
@pytest.mark.parametrize("kind", PLANS)
def test_draft_trees_stay_lossless(kind, budget):
    for which in range(3 if kind == "flatten" else 1):
        check_lossless(kind, budget, which, 32 if kind == "flatten" else 16)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [4, 16, 22, 64])
@pytest.mark.parametrize("kind", PLANS)
def test_draft_trees_stay_lossless_on_50_prompts(kind, budget):
    for which in range(50):
        check_lossless(kind, budget, which)


@pytest.mark.parametrize("family", ["qwen3", "gpt_oss", "gemma4, shared keys", "deepseek_v3", "qwen3_5"])
def test_families_stay_lossless(family):
    """Windows, sinks, shared keys, latent attention, layers without attention."""
    pair = tiny_pair(family)
    plain = tokens(pair, [5, 9, 23, 41, 12, 7] * 4, 24, method="ar")
    use_deft(pair, "flatten", block=8)
    assert tokens(pair, [5, 9, 23, 41, 12, 7] * 4, 24, tree_budget=12) == plain


def test_the_plan_is_what_runs():
    """A verification asks the switched attention for its plan, once for all layers."""
    pair, _ = embedded()
    use_deft(pair, "node")
    attention = pair.target.kernels.of(8).attention
    tokens(pair, prompts()[0], 12, tree_budget=8)
    _, context, rows, ready = attention._last
    assert len(ready.plan) == rows + 1 and ready.plan.kv_rows == context + rows
