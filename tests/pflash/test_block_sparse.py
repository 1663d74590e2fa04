"""Sparse attention is dense attention over the blocks that its rule keeps, and counts them."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlx_ddtree
from mlx_ddtree.benchmarking.needles import needle_case
from mlx_ddtree.errors import OptionError
from mlx_ddtree.pflash.block_sparse import BlockSparseAttention
from mlx_ddtree.pflash.scoring import TailAttentionScorer


def arrays(heads, groups, rows, places, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    shapes = ((heads * groups, rows, dim), (heads, places, dim), (heads, places, dim + 8))
    return [rng.normal(size=(1, *shape)).astype(np.float32) * 1.5 for shape in shapes]


def plain(queries, keys, values, scale, kept_of, block):
    """Softmax over the positions that are before the query and in a block that `kept_of(head, m)` names."""
    heads, rows, places = keys.shape[1], queries.shape[2], keys.shape[2]
    out = np.zeros((*queries.shape[:3], values.shape[-1]))
    for q in range(queries.shape[1]):
        h = q * heads // queries.shape[1]
        for row in range(rows):
            place = places - rows + row
            seen = [j for j in range(place + 1) if kept_of(h, place // block)[j // block]]
            logits = keys[0, h, seen].astype(float) @ queries[0, q, row].astype(float) * scale
            weights = np.exp(logits - logits.max())
            out[0, q, row] = weights @ values[0, h, seen] / weights.sum()
    return out


def rule(queries, keys, scale, attention, first, blocks):
    """(heads, M, N) of kept blocks, loop by loop: systems.md's rule with the softmax over key blocks."""
    block, heads = attention.block, keys.shape[1]
    groups, count, total = queries.shape[1] // heads, -(-queries.shape[2] // block), -(-keys.shape[2] // block)
    kept = np.zeros((heads, count, total), bool)
    for h in range(heads):
        means = [keys[0, h, n * block : (n + 1) * block].mean(axis=0) for n in range(total)]
        for m in range(count):
            for q in range(h * groups, (h + 1) * groups):
                mean = queries[0, q, m * block : (m + 1) * block].mean(axis=0)
                logits = np.array([mean @ means[n] * scale for n in range(first + m + 1)])
                weights = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
                for n, weight in enumerate(weights):
                    fixed = (
                        n < attention.sink or first + m - n < attention.window or first + m >= blocks - attention.last
                    )
                    kept[h, m, n] |= fixed or weight >= attention.alpha * weights.max()
    return kept


SHAPES = st.tuples(st.sampled_from([1, 2]), st.sampled_from([1, 3]), st.integers(1, 90), st.integers(0, 4))


@given(SHAPES, st.integers(0, 99))
def test_alpha_0_is_dense_causal_attention(shape, seed):
    heads, groups, rows, before = shape
    q, k, v = map(mx.array, arrays(heads, groups, rows, rows + 16 * before, seed=seed))
    sparse = BlockSparseAttention(alpha=0, block=16)
    out = sparse(q, k, v, 0.25)
    dense = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.25, mask="causal")
    assert out.shape == dense.shape and mx.abs(out - dense).max() <= 1e-5
    assert sparse.kept_fraction == 1


@given(SHAPES, st.floats(0, 1), st.integers(0, 3), st.integers(1, 3), st.integers(0, 2), st.integers(0, 99))
def test_it_reads_the_blocks_of_the_rule_and_counts_them(shape, alpha, sink, window, last, seed):
    heads, groups, rows, before = shape
    q, k, v = arrays(heads, groups, rows, rows + 16 * before, seed=seed)
    sparse = BlockSparseAttention(alpha=alpha, block=16, sink=sink, window=window, last=last)
    out = sparse(*map(mx.array, (q, k, v)), 0.25)
    kept = rule(q, k, 0.25, sparse, before, -(-k.shape[2] // 16))
    wanted = plain(q, k, v, 0.25, lambda h, m: kept[h, m - before], 16)
    np.testing.assert_allclose(np.array(out), wanted, atol=1e-5)
    causal = heads * sum(before + m + 1 for m in range(-(-rows // 16)))
    assert (sparse.kept, sparse.causal) == (kept.sum(), causal) and sparse.kept_fraction == kept.sum() / causal


def test_parts_of_a_prompt_equal_the_whole():
    q, k, v = map(mx.array, arrays(2, 2, 300, 300))
    whole = BlockSparseAttention(alpha=0.7, block=16, sink=1, window=1)
    parts = BlockSparseAttention(alpha=0.7, block=16, sink=1, window=1)
    wanted = whole(q, k, v, 0.25)
    out = [parts(q[:, :, a:b], k[:, :, :b], v[:, :, :b], 0.25, 300) for a, b in ((0, 112), (112, 224), (224, 300))]
    assert mx.abs(mx.concatenate(out, axis=2) - wanted).max() <= 1e-5
    assert (parts.kept, parts.causal) == (whole.kept, whole.causal) and whole.kept_fraction < 1


def test_the_kept_blocks_are_those_with_the_mass():
    """Keys in clusters by block and queries that look for one cluster each: their block is kept, most are not."""
    rng, blocks, block = np.random.default_rng(3), 24, 16
    centres = rng.normal(size=(blocks, 16))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    keys = np.repeat(centres, block, axis=0) * 8 + rng.normal(size=(blocks * block, 16)) * 0.3
    wanted = [rng.integers(0, m + 1) for m in range(blocks)]
    queries = np.repeat(centres[wanted], block, axis=0) * 8
    q, k = (mx.array(x[None, None].astype(np.float32)) for x in (queries, keys))
    sparse = BlockSparseAttention(block=block)
    out = sparse(q, k, k, 0.25)
    dense = mx.fast.scaled_dot_product_attention(q, k, k, scale=0.25, mask="causal")
    assert mx.abs(out - dense).max() < 0.05 and sparse.kept_fraction < 0.65


def test_on_a_trained_model_the_kept_blocks_hold_the_mass():
    """Real text through the embedded target: what is dropped is far less of the attention than of the blocks."""
    pair = mlx_ddtree.load(draft=False)
    ids = pair.tokenizer.encode(needle_case("prose", 5000, 0.5, 1).prompt)[:1024]
    sparse = Recording(alpha=0.3, block=32, sink=1, window=2, last=0)
    TailAttentionScorer(pair.target, layers=6, step=1024, sparse=sparse, sparse_from=1)(ids)
    dropped, lost = [], []
    for queries, keys, scale in sparse.seen:
        kept = rule(*map(np.array, (queries, keys)), scale, sparse, 0, 10**6)
        dropped.append(1 - kept.sum() / (len(kept) * 32 * 33 / 2))
        for head in range(queries.shape[1]):
            logits = queries[0, head] @ keys[0, head // 2].T * scale
            mass = mx.softmax(mx.where(mx.tril(mx.ones((1024, 1024), mx.bool_)), logits, -mx.inf), axis=-1)
            blocks = np.array(mass).reshape(32, 32, 32, 32).sum(axis=(1, 3)) / 32
            lost.append((blocks * ~kept[head // 2]).sum() / 32)
    assert len(dropped) == 5 and np.mean(dropped) > 0.1 and np.mean(lost) < np.mean(dropped) / 2


class Recording(BlockSparseAttention):
    """Dense, with what every layer's attention was given."""

    def __call__(self, queries, keys, values, scale, length=None):
        self.seen = [*getattr(self, "seen", []), (queries, keys, scale)]
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask="causal")


def test_half_precision():
    q, k, v = (mx.array(x).astype(mx.bfloat16) for x in arrays(2, 2, 100, 132))
    out = BlockSparseAttention(alpha=0, block=16)(q, k, v, 0.25)
    assert out.dtype == mx.bfloat16 and mx.isfinite(out).all()


@pytest.mark.parametrize(
    "options", [{"alpha": -0.1}, {"alpha": 1.1}, {"block": 0}, {"window": 0}, {"sink": -1}, {"last": -1}]
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(OptionError):
        BlockSparseAttention(**options)


def test_parts_must_begin_at_a_block():
    q, k, v = map(mx.array, arrays(1, 1, 8, 20))
    with pytest.raises(OptionError, match="16 \\* n"):
        BlockSparseAttention(block=16)(q, k, v, 0.25)
