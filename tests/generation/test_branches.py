"""Continuations that are decoded together are those that would be decoded alone."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import KVCache
from mlx_lm.sample_utils import make_logits_processors
from mlx_lm.sample_utils import make_sampler as mlx_lm_sampler

from mlx_ddtree import generate, make_sampler, stream_branches, stream_generate
from mlx_ddtree.branches.draft import BranchCache, draft_branches
from mlx_ddtree.branches.rows import BranchSlots, ForestRows
from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.drafter.make import make_drafter
from mlx_ddtree.errors import OptionError, UnsupportedModelError
from mlx_ddtree.pair import Pair
from mlx_ddtree.tuning.measure import profile_of

from ..drafter.layouts import LAYOUTS, random_tensors, save
from ..families import tiny_pair
from ..helpers import small_drafter, small_pair, small_target
from ..training.tiny import EOS, make_tokenizer
from ..tree.trees import random_tree

PROMPT = [5, 9, 23, 41, 12, 7]


def together(pair, n, count, *, temp=0.8, seed=3, filters=None, **options):
    """Tokens by branch, and the last response."""
    tokens, last = [[] for _ in range(n)], None
    sampler = make_sampler(temp, seed=seed, **(filters or {}))
    for last in stream_branches(pair, options.pop("prompt", PROMPT), n, count, sampler=sampler, **options):
        tokens = [have + new for have, new in zip(tokens, last.tokens, strict=True)]
    return tokens, last


def alone(pair, n, count, *, temp=0.8, seed=3, filters=None, **options):
    prompt, texts = options.pop("prompt", PROMPT), []
    for i in range(n):
        sampler = make_sampler(temp, seed=seed + i, **(filters or {}))
        texts.append([t for r in stream_generate(pair, prompt, count, sampler=sampler, **options) for t in r.tokens])
    return texts


def without_end(pair):
    pair.tokenizer.eos_token_ids.clear()
    return pair


HOW = [
    {"method": "ar"},
    {"method": "dflash"},
    {"method": "dflash", "block_size": 4},
    {"tree_budget": 0},
    {"tree_budget": 1},
    {"tree_budget": 9, "block_size": 5},
    {"tree_budget": 40},
    {},
]


@pytest.mark.parametrize("how", HOW, ids=str)
def test_each_text_is_that_of_its_seed(how):
    pair = without_end(small_pair())
    tokens, last = together(pair, 4, 24, **how)
    assert tokens == alone(pair, 4, 24, method="ar")
    assert len({tuple(t) for t in tokens}) == 4
    assert last.seeds == [3, 4, 5, 6] and last.finish_reasons == ["length"] * 4
    assert last.generation_tokens == 4 * 24


@pytest.mark.parametrize(
    "options", [{"filters": {"top_p": 0.9}}, {"filters": {"top_k": 5}}, {"temp": 1.5}, {"temp": 0.05}]
)
def test_filters_and_temperatures(options):
    pair = without_end(small_pair())
    assert together(pair, 3, 20, tree_budget=6, **options)[0] == alone(pair, 3, 20, method="ar", **options)


def test_processors_see_each_branchs_own_path():
    pair = without_end(small_pair())
    processors = make_logits_processors(repetition_penalty=1.7, repetition_context_size=8)
    ours, _ = together(pair, 3, 20, tree_budget=6, logits_processors=processors)
    assert ours == alone(pair, 3, 20, method="ar", logits_processors=processors) != alone(pair, 3, 20, method="ar")


@pytest.mark.parametrize(
    "family", ["qwen3_moe", "llama, no groups", "llama, llama3 rope", "qwen3, one kv head", "minimax"]
)
def test_families_with_full_attention(family):
    pair = tiny_pair(family)
    assert together(pair, 3, 16, tree_budget=6)[0] == alone(pair, 3, 16, method="ar")


def test_head_sizes_that_kernels_do_not_take():
    """Then the mask is made."""
    pair = tiny_pair("qwen3", head_dim=24)
    assert together(pair, 3, 16, tree_budget=6)[0] == alone(pair, 3, 16, method="ar")


def test_latent_attention():
    pair = tiny_pair("deepseek_v3")
    assert together(pair, 3, 16, tree_budget=6)[0] == alone(pair, 3, 16, method="ar")


WINDOWS = [
    {"sliding_windows": [6, 0], "causal": False},
    {"sliding_windows": [9, 12]},
    {"is_causal": True},
    {"embed_scale": 5.65},
    {"dflash2": True},
]


@pytest.mark.parametrize("config", WINDOWS, ids=str)
def test_a_branch_is_drafted_as_if_alone(config):
    """The same trees, so the same number of accepted nodes in every round: windows, order inside the block,
    convolutions."""
    target = small_target()
    pair = without_end(Pair(target, drafter_of(target, config), make_tokenizer()))
    single = list(stream_generate(pair, PROMPT * 4, 24, sampler=make_sampler(0.3, seed=7), tree_budget=8))
    sampler = make_sampler(0.3, seed=7)
    several = list(stream_branches(pair, PROMPT * 4, 3, 24, sampler=sampler, tree_budget=8))
    assert [r.tokens for r in single] == [r.tokens[0] for r in several if r.tokens[0]]


def drafter_of(target, config):
    if not config.pop("dflash2", False):
        return small_drafter(target, **config)
    small = small_drafter(
        target, architectures=["DFlash2DraftModel"],
        dflash_config={"target_layer_ids": [0, 1, 2], "mask_token_id": 3, "conv_kernel_size": 2, "conv_group_size": 8,
                       "selector_rank": 8, "selector_top_k": 6},
    )  # fmt: skip
    return make_drafter(small.config, 3)


@settings(max_examples=15)
@given(seed=st.integers(0, 99), windows=st.sampled_from([[0, 0], [5, 0], [3, 11]]), causal=st.booleans())
def test_drafts_by_branch_are_the_drafters_own(seed, windows, causal):
    """Hidden states of blocks behind a shared prompt and interleaved tails, against one sequence at a time."""
    drafted_by_branch(small_drafter(small_target(), sliding_windows=windows, causal=causal), seed)


@pytest.mark.parametrize("name", LAYOUTS)
def test_drafts_by_branch_of_every_layout(name, tmp_path):
    save(tmp_path / "drafter", LAYOUTS[name], random_tensors(LAYOUTS[name]))
    drafted_by_branch(load_drafter(tmp_path / "drafter"), seed=1)


def drafted_by_branch(drafter, seed):
    rng = np.random.default_rng(seed)
    prefix, width = int(rng.integers(1, 30)), 3 * 32
    shared = rng.normal(size=(1, prefix, width)).astype(np.float32)
    caches, tails, own = drafter.make_cache(), BranchSlots(prefix, 3), [shared] * 3
    drafter.extend(mx.array(shared), caches)
    caches = [BranchCache.of(layer) for layer in caches]
    for _ in range(3):
        counts = rng.integers(0, 5, 3)
        new = [rng.normal(size=(1, c, width)).astype(np.float32) for c in counts]
        places = [tails.prefix + len(tails.slots[b]) + np.arange(counts[b]) for b in range(3)]
        own = [np.concatenate([a, b], axis=1) for a, b in zip(own, new, strict=True)]
        tails.append(counts.tolist())
        blocks = rng.normal(size=(3, 6, 32)).astype(np.float32)
        got = draft_branches(
            drafter,
            mx.array(blocks),
            mx.array(np.concatenate(new, axis=1)),
            np.concatenate(places),
            caches,
            tails,
            [0, 1, 2],
        )
        for b in range(3):
            want = drafter(mx.array(blocks[b : b + 1]), mx.array(own[b]), drafter.make_cache())
            np.testing.assert_allclose(np.array(got[b]), np.array(want[0]), atol=2e-4)


@settings(max_examples=60)
@given(data=st.data(), prefix=st.integers(1, 9), count=st.integers(1, 4))
def test_tails_lead_to_their_own_rows(data, prefix, count):
    """However branches grow, end and are compacted, also in a cache whose first rows a window has left out; rows
    carry (branch, number) as their content."""
    cache, tails, want = KVCache(), BranchSlots(prefix, count), [[] for _ in range(count)]
    absent, windowed = data.draw(st.integers(0, prefix)), KVCache()

    def put(rows, absent=0):
        content = mx.array(np.array(rows, np.float32).reshape(1, 1, -1, 2))
        cache.update_and_fetch(content, content + 1)
        windowed.update_and_fetch(content[:, :, absent:], content[:, :, absent:] + 1)

    put([(-1, i) for i in range(prefix)], absent)
    for _ in range(data.draw(st.integers(1, 6))):
        event = data.draw(st.sampled_from(["grow", "grow", "drop", "compact"]))
        if event == "grow":
            counts = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
            new = [[(b, len(want[b]) + i) for i in range(c)] for b, c in enumerate(counts)]
            if sum(counts):
                put([row for rows in new for row in rows])
            tails.append(counts)
            want = [have + rows for have, rows in zip(want, new, strict=True)]
        elif event == "drop":
            b = data.draw(st.integers(0, count - 1))
            tails.drop(b)
            want[b] = []
        elif sum(map(len, want)):
            tails.compact([(cache, 0), (windowed, absent)])
        assert cache.offset == windowed.offset + absent == tails.used
        np.testing.assert_array_equal(
            np.array(windowed.keys_and_values()[0]), np.array(cache.keys_and_values()[0][:, :, absent:])
        )
        keys = np.array(cache.keys[0, 0])
        assert [tuple(row) for row in keys[:prefix]] == [(-1, i) for i in range(prefix)]
        for b in range(count):
            assert [tuple(row) for row in keys[tails.slots[b]]] == want[b]
            np.testing.assert_array_equal(np.array(cache.values[0, 0])[tails.slots[b]], keys[tails.slots[b]] + 1)


@settings(max_examples=40)
@given(seed=st.integers(0, 999), sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_rows_see_the_prompt_their_branch_and_their_path(seed, sizes):
    rng, count = np.random.default_rng(seed), len(sizes)
    tails = BranchSlots(int(rng.integers(1, 40)), count)
    for _ in range(3):
        tails.append(rng.integers(0, 4, count).tolist())
    trees = [random_tree(nodes, seed) for nodes in sizes]
    rows = ForestRows(tails, range(count), trees)
    got = np.array(rows.mask(tails.used))
    want = np.zeros_like(got)
    want[:, : tails.prefix] = True
    for b, tree in enumerate(trees):
        first, last = rows.firsts[b], rows.firsts[b + 1]
        want[first:last][:, tails.slots[b]] = True
        want[first:last, tails.used + first : tails.used + last] = tree.ancestor_mask()
        np.testing.assert_array_equal(rows.places[first:last], tails.prefix + len(tails.slots[b]) + tree.depths)
    np.testing.assert_array_equal(got, want)
    assert rows.plan.plan.kv_rows == tails.used + rows.count  # each of them once


def test_branches_end_by_themselves_and_make_room():
    """End tokens, stop strings; what the ended ones leave is given to the others (compaction)."""
    pair, compacted = small_pair(), []
    original = BranchSlots.compact
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            BranchSlots, "compact", lambda self, caches: (compacted.append(self.used), original(self, caches))
        )
        tokens, last = together(pair, 8, 64, temp=1.5, tree_budget=6)
    assert tokens == alone(pair, 8, 64, temp=1.5, method="ar")
    assert "stop" in last.finish_reasons
    assert all(EOS in t for t, reason in zip(tokens, last.finish_reasons, strict=True) if reason == "stop")
    assert compacted


def test_stop_strings_end_one_branch():
    pair = without_end(small_pair())
    options = {"sampler": make_sampler(0.8, seed=3), "tree_budget": 6}
    text = generate(pair, PROMPT, 24, sampler=make_sampler(0.8, seed=4), tree_budget=6)
    stop = text[len(text) // 2 :][:3]
    got = generate(pair, PROMPT, 24, n=3, stop=[stop], **options)
    assert got == [
        generate(pair, PROMPT, 24, sampler=make_sampler(0.8, seed=3 + i), tree_budget=6, stop=[stop]) for i in range(3)
    ]
    assert stop not in got[1] and len(got[1]) < len(text)


def test_the_prompt_is_read_once_for_all():
    """Each round: prompt, tails and trees, once; alone every branch would read the prompt."""
    pair = without_end(small_pair())
    prompt, rounds = PROMPT * 40, []
    for response in stream_branches(pair, prompt, 8, 9, method="ar", sampler=make_sampler(0.8, seed=1)):
        rounds.append((response.kv_rows, response.kv_rows_alone))
    held = len(prompt)
    steps = range(len(rounds) - 1)  # round i has committed i tokens of each branch and adds one
    assert rounds[-1][0] == sum(held + 8 * (i + 1) for i in steps)
    assert rounds[-1][1] == sum(8 * (held + i + 1) for i in steps)
    assert rounds[-1][1] > 5 * rounds[-1][0]


def test_one_continuation_is_the_answer():
    pair = without_end(small_pair())
    assert generate(pair, PROMPT, 12, n=1) == [generate(pair, PROMPT, 12)]
    assert together(pair, 1, 12)[0] == alone(pair, 1, 12, method="ar")


def test_an_end_at_the_first_token():
    pair = without_end(small_pair())
    tokens, last = together(pair, 3, 1)
    assert tokens == alone(pair, 3, 1, method="ar") and last.rounds == 0


@pytest.mark.parametrize("family", ["gpt_oss", "qwen3_5", "gemma4, shared keys", "llama, windows"])
def test_layers_with_windows_or_states_are_refused(family):
    with pytest.raises(UnsupportedModelError, match="one continuation at a time"):
        together(tiny_pair(family), 2, 4)


@pytest.mark.parametrize(
    "options",
    [
        {"n": 2, "sampler": make_sampler(0.0)},
        {"n": 0, "sampler": make_sampler(0.5)},
        {"n": 2, "sampler": mlx_lm_sampler(temp=0.5)},
        {"n": 2, "sampler": make_sampler(0.5), "tree_budget": -1},
    ],
)
def test_what_cannot_be_is_refused(options):
    with pytest.raises(OptionError):
        next(stream_branches(small_pair(), PROMPT, **options))


def test_auto_budgets_stay_within_what_was_measured():
    """However many branches, a forward has no more rows than the cost table knows, or one for each branch."""
    pair = without_end(small_pair())
    most = profile_of(pair).cost.rows[-1]
    for n in (5, most - 2, most + 3):
        for response in stream_branches(pair, PROMPT, n, 6, sampler=make_sampler(0.8, seed=1)):
            live = sum(map(bool, response.tokens))
            assert response.nodes + live <= max(most, live)
