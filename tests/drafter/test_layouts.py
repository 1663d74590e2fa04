"""Every public layout of drafters, from its published form: what is computed is what its formulas say."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.decoding.draft import finish_draft, start_candidates
from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.errors import ConfigError, PairError
from mlx_ddtree.hub.convert import convert
from mlx_ddtree.pair import Pair

from ..helpers import small_target
from ..training.tiny import make_tokenizer
from .layout_reference import LayoutReference
from .layouts import EPS, HIDDEN, LAYOUTS, TAPS, VOCAB, random_tensors, save

TARGET = small_target(layers=3, tied=False)
EMBEDDING = np.array(TARGET.text.model.embed_tokens.weight, np.float64)
HEAD = np.array(TARGET.text.lm_head.weight, np.float64)
ROOT = 9


@pytest.fixture(params=LAYOUTS)
def example(request, tmp_path):
    """(layout, drafter, reference)"""
    layout = LAYOUTS[request.param]
    tensors = random_tensors(layout)
    save(tmp_path / "drafter", layout, tensors)
    weights = {name: value.astype(np.float64) for name, value in tensors.items()}
    return layout, load_drafter(tmp_path / "drafter"), LayoutReference(layout, weights, EMBEDDING, HEAD, EPS)


def draft(drafter, features, cache):
    """All rows of a block behind new features (m, taps * D)."""
    block = mx.array([drafter.block_ids(ROOT, drafter.config.block_size)])
    rows = drafter(drafter.embed(block, TARGET.embed), mx.array(features)[None], cache)[0]
    return block, rows


def features(rng, count):
    return rng.normal(size=(count, len(TAPS) * HIDDEN)).astype(np.float32)


def candidates(pair, top_k=16):
    """What the drafter proposes behind a context of 12 tokens, and its rows."""
    drafter = pair.drafter
    block, rows = draft(drafter, features(np.random.default_rng(5), 12), drafter.make_cache())
    started = start_candidates(pair, block[0, 0], rows[drafter.config.logits_start :], top_k)
    return finish_draft(started), np.array(rows, np.float64)


def test_the_reading(example):
    """Rows, slots and causality, as the layout's trainers have them; every layer's tensors are accepted."""
    layout, drafter, _ = example
    config, facts = drafter.config, layout.facts
    assert (config.rows(config.block_size), config.logits_start) == (facts.rows, facts.start)
    assert (config.windows, config.causal, config.target_layer_ids) == (facts.windows, facts.causal, TAPS)
    assert config.block_size - 1 == facts.rows - facts.start  # drafts


def test_rounds_equal_the_reference(example):
    """Each round appends features to the cache; the reference sees them all at once."""
    _, drafter, reference = example
    rng, cache = np.random.default_rng(0), drafter.make_cache()
    seen = np.zeros((0, len(TAPS) * HIDDEN), np.float32)
    for new in (5, 0, 9, 1):
        more = features(rng, new)
        seen = np.concatenate([seen, more])
        _, rows = draft(drafter, more, cache)
        np.testing.assert_allclose(np.array(rows), reference.hidden(ROOT, seen), atol=5e-4)


def test_features_in_chunks_draft_the_same(example):
    _, drafter, _ = example
    whole = features(np.random.default_rng(2), 14)
    _, expected = draft(drafter, whole, drafter.make_cache())
    cache = drafter.make_cache()
    for part in (whole[:3], whole[3:13], whole[13:]):
        drafter.extend(mx.array(part)[None], cache)
    np.testing.assert_allclose(np.array(draft(drafter, whole[:0], cache)[1]), np.array(expected), atol=1e-4)


def test_the_best_path_is_the_published_draft(example):
    """Argmax over the whole vocabulary, token after token, by the target's ids."""
    _, drafter, reference = example
    found, rows = candidates(Pair(TARGET, drafter, make_tokenizer()), top_k=1)
    assert found.token_ids[:, 0].tolist() == reference.greedy(ROOT, rows)


def test_candidates_have_their_probabilities(example):
    """Over the whole vocabulary, given the token before; along the best path where a head remembers more."""
    layout, drafter, reference = example
    found, rows = candidates(Pair(TARGET, drafter, make_tokenizer()))
    best = reference.greedy(ROOT, rows)
    rows = rows[layout.facts.start :]
    ids = {reference.target_id(j): j for j in range(layout.facts.draft_vocab or VOCAB)}
    for depth in range(len(rows)):
        columns = [ids[token] for token in found.token_ids[depth].tolist()]
        if not found.pairwise:
            expected = reference.log_probs([ROOT] * (depth + 1), rows[: depth + 1])[-1][columns]
            np.testing.assert_allclose(found.log_probs[depth], expected, atol=2e-3)
            continue
        remembers = layout.facts.head in ("rnn", "domino")
        parents = [best[depth - 1]] if depth and remembers else found.token_ids[depth - 1].tolist() if depth else [ROOT]
        for parent in parents:
            path = [ROOT, *best[: depth - 1], parent] if depth else [ROOT]
            rank = found.token_ids[depth - 1].tolist().index(parent) if depth else 0
            expected = reference.log_probs(path, rows[: depth + 1])[-1][columns]
            np.testing.assert_allclose(found.log_probs[depth, rank], expected, atol=2e-3)


def test_a_converted_drafter_drafts_the_same(example, tmp_path):
    """Its tensors are stored under the names here, beside the published config.json."""
    _, drafter, _ = example
    convert(str(tmp_path / "drafter"), tmp_path / "converted")
    again = load_drafter(tmp_path / "converted")
    context = features(np.random.default_rng(3), 7)
    a, b = (draft(d, context, d.make_cache())[1] for d in (drafter, again))
    np.testing.assert_array_equal(np.array(a), np.array(b))


@pytest.mark.parametrize("name", ["DeepSpec DSpark", "speculators DSpark", "Domino"])
def test_tables_that_end_before_the_targets_vocabulary_are_refused(name, tmp_path):
    save(tmp_path / "d", LAYOUTS[name], random_tensors(LAYOUTS[name]))
    with pytest.raises(PairError, match="tables for 64 tokens"):
        Pair(small_target(layers=3, vocab=70), load_drafter(tmp_path / "d"), make_tokenizer())


def test_layouts_that_training_does_not_know_are_refused(tmp_path):
    from mlx_ddtree.training.setup import start_from

    save(tmp_path / "d", LAYOUTS["DeepSpec DSpark"], random_tensors(LAYOUTS["DeepSpec DSpark"]))
    with pytest.raises(ConfigError, match="cannot be trained here"):
        start_from(tmp_path / "d", TARGET)
