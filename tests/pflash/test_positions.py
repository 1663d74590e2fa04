"""A prompt with holes computes what the whole prompt computes when nobody may attend to what is missing."""

from functools import cache

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import KVCache

from mlx_ddtree import make_prompt_cache, make_sampler
from mlx_ddtree.decoding.loop import decode_rounds
from mlx_ddtree.decoding.prefill import Kept, prefill
from mlx_ddtree.decoding.round import Clock, decode_round
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.text import EndlessText
from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.generation.planning import make_plan
from mlx_ddtree.target import PlainTarget
from mlx_ddtree.tree import DraftTree
from mlx_ddtree.tuning.measure import profile_of

from .. import families
from ..decoding.rounding import round_blocks
from ..families import FAMILIES, tiny_model
from ..helpers import interrupting

tiny_pair = cache(families.tiny_pair)
RNG = np.random.default_rng(0)
PROMPT = RNG.integers(3, 60, 40).tolist()
HYBRIDS = ("qwen3_5", "qwen3_5_moe", "qwen3_next")
WINDOWED = ("llama, windows", "gpt_oss", "gemma4, shared keys", "gemma4, experts")
WINDOW = 12
ATTENTION = [name for name in FAMILIES if name not in (*HYBRIDS, *WINDOWED)]


class MaskedCache(KVCache):
    """The test's oracle: every token has its row, and nobody attends to `dropped` ones but they themselves."""

    def __init__(self, dropped):
        super().__init__()
        self.dropped = mx.array(dropped)

    def make_mask(self, n, return_array=False, window_size=None):
        places = mx.arange(n)
        seen = (places[None] <= places[:, None]) & ~self.dropped[None, :n]
        return seen | mx.eye(n, dtype=mx.bool_)


def masked_logits(pair, tokens, kept, prompt_length):
    """(n, V): after the prompt's last token and each of the following, by one full forward of mlx-lm's model."""
    dropped = np.zeros(len(tokens), np.bool_)
    dropped[:prompt_length] = True
    dropped[kept] = False
    masked = [MaskedCache(dropped) for _ in pair.target.make_cache()]
    return np.array(pair.target.model(mx.array([tokens]), cache=masked)[0, prompt_length - 1 :])


def run(pair, prompt, kept, n, *, compact=False, step=8, sampler=None, parity="off", **how):
    """Tokens and the logits they were chosen from, after a prompt of which `kept` is processed."""
    caches = make_prompt_cache(pair)
    state = DecodeState(pair, caches)
    plan = make_plan(pair, GenerationOptions(**how, sampler=sampler, parity=parity))
    prefill(state, prompt, step, kept=None if kept is None else Kept(np.array(kept, np.int32), compact))
    done = decode_round(state, plan.without_draft(), DraftTree.root, len, Clock())
    tokens, logits = list(done.token_ids), [np.array(done.logits)]
    for done in decode_rounds(state, plan, EndlessText(), Clock()):
        tokens += done.token_ids
        logits.append(np.array(done.logits))
        if len(tokens) >= n:
            break
    return tokens[:n], np.concatenate(logits)[:n], state


def some(rng, length, share=0.4):
    """Places to keep, in runs and singly, the last among them."""
    kept = np.flatnonzero(np.repeat(rng.random(-(-length // 3)) < share, 3)[:length])
    return np.unique([*kept, length - 1]).tolist()


def assert_close(got, want):
    np.testing.assert_allclose(got, want, atol=1e-4 * max(1, np.abs(want).max()))


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("how", [{"method": "ar"}, {"tree_budget": 9}])
def test_original_positions_equal_a_masked_full_forward(name, how):
    pair = tiny_pair(name)
    kept = some(np.random.default_rng(len(name)), len(PROMPT))
    tokens, logits, _ = run(pair, PROMPT, kept, 12, **how)
    assert_close(logits, masked_logits(pair, [*PROMPT, *tokens[:-1]], kept, len(PROMPT)))


@pytest.mark.parametrize("name", WINDOWED)
def test_so_do_families_with_windows_while_these_see_everything(name):
    pair, prompt, kept = tiny_pair(name), PROMPT[:7], [0, 3, 4, 6]
    tokens, logits, _ = run(pair, prompt, kept, WINDOW - len(prompt), tree_budget=3)
    assert_close(logits, masked_logits(pair, [*prompt, *tokens[:-1]], kept, len(prompt)))


@settings(max_examples=25)
@given(st.data())
def test_any_choice_of_tokens(data):
    prompt = PROMPT[: data.draw(st.integers(1, 30))]
    kept = sorted({*data.draw(st.sets(st.integers(0, len(prompt) - 1))), len(prompt) - 1})
    step = data.draw(st.integers(1, 12))
    tokens, logits, state = run(PAIR, prompt, kept, 8, step=step, tree_budget=6)
    assert_close(logits, masked_logits(PAIR, [*prompt, *tokens[:-1]], kept, len(prompt)))
    assert state.position - state.length == len(prompt) - len(kept)
    assert state.source == state.position
    assert state.token_ids[: len(prompt)] == prompt


PAIR = tiny_pair("qwen3")


ONE_OF_A_KIND = ["qwen3", "llama, windows", "qwen3_5", "qwen3_next", "gpt_oss", "gemma4, shared keys", "kimi_k25"]


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_a_prompt_that_keeps_everything_is_the_prompt(name):
    pair = tiny_pair(name)
    for compact in (False, True):
        tokens, logits, state = run(pair, PROMPT, range(len(PROMPT)), 10, compact=compact, tree_budget=5)
        plain, want, _ = run(pair, PROMPT, None, 10, tree_budget=5)
        assert tokens == plain
        assert_close(logits, want)
        assert state.coverage.gap == state.coverage.drafter_gap == 0


@pytest.mark.parametrize(
    ("name", "compact"), [*((name, False) for name in FAMILIES), ("qwen3", True), ("qwen3_5", True), ("gpt_oss", True)]
)
def test_every_method_says_the_same_after_the_same_kept_tokens(name, compact):
    """Greedily and with a seed."""
    pair, kept = tiny_pair(name), some(np.random.default_rng(5), len(PROMPT))
    for sampler in (None, make_sampler(0.8, seed=3)):
        said = [
            run(pair, PROMPT, kept, 20, compact=compact, sampler=sampler, **how)[0]
            for how in ({"method": "ar"}, {"method": "dflash", "block_size": 6}, {"tree_budget": 9})
        ]
        assert said[0] == said[1] == said[2]


def test_compact_positions_are_those_of_the_kept_text():
    kept = some(np.random.default_rng(1), len(PROMPT))
    text = [PROMPT[i] for i in kept]
    tokens, logits, _ = run(PAIR, PROMPT, kept, 10, compact=True, tree_budget=5)
    plain, want, _ = run(PAIR, text, None, 10, tree_budget=5)
    assert tokens == plain
    assert_close(logits, want)
    other, _, _ = run(PAIR, PROMPT, kept, 10, tree_budget=5)
    assert other != tokens  # or positions would not matter to this model


@pytest.mark.usefixtures("thorough_rounding")
@pytest.mark.parametrize("name", ["qwen3", "qwen3_5"])
def test_near_ties_are_decided_on_a_cache_with_gaps_as_plain_decoding_does(name):
    """Every token a near tie: the cache is made anew a row at a time, behind the holes."""
    pair = families.tiny_pair(name)
    round_blocks(pair.target, 6)
    kept = some(np.random.default_rng(2), len(PROMPT))
    want, _, _ = run(pair, PROMPT, kept, 16, method="ar")
    profile_of(pair).parity = profile_of(pair).parity._replace(rows=1e9, cache=1e9)
    assert run(pair, PROMPT, kept, 16, tree_budget=12, parity="exact")[0] == want
    assert run(pair, PROMPT, kept, 16, parity="exact")[0] == want


def test_the_drafter_sees_kept_tokens_at_their_positions():
    """Its keys equal those of the same features turned to these positions; the block stands behind the whole prompt."""
    pair, kept = PAIR, some(np.random.default_rng(3), len(PROMPT))
    _, _, state = run(pair, PROMPT, kept, 1, tree_budget=5)
    places = mx.array(kept[:-1])
    _, features = pair.target.forward(
        mx.array([[PROMPT[i] for i in kept[:-1]]]), pair.target.make_cache(), places[None]
    )
    context = pair.drafter.context(features)
    for layer, held in zip(pair.drafter.layers, state.caches.drafter, strict=True):
        attention = layer.self_attn
        raw = attention.k_norm(attention._split(attention.k_proj(context), attention.kv_heads)).transpose(0, 2, 1, 3)
        for row, position in enumerate(kept[:-1]):
            want = attention.rope(raw[:, :, row : row + 1], offset=position)
            np.testing.assert_allclose(np.array(held.keys[:, :, row : row + 1]), np.array(want), atol=2e-5)
    waiting = sum(piece.shape[1] for piece in state.features)
    assert state.drafted_length + waiting + state.coverage.drafter_gap == state.position


def test_a_target_whose_positions_cannot_be_set_is_refused_by_name():
    target = PlainTarget(tiny_model({"model_type": "qwen2"}))
    with pytest.raises(UnsupportedModelError, match=r"qwen2.*compact"):
        target.forward(mx.array([[3, 4]]), target.make_cache(), mx.array([[0, 5]]))


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interrupt_between_chunks_leaves_what_was_processed(at):
    """Caches, positions and text agree, and going on from there is a prompt whose rest is whole."""
    kept = some(np.random.default_rng(4), len(PROMPT))
    caches = make_prompt_cache(PAIR)
    state = DecodeState(PAIR, caches)
    interrupt, calls = interrupting(at)
    with pytest.raises(KeyboardInterrupt):
        prefill(state, PROMPT, 4, interrupt, kept=Kept(np.array(kept, np.int32)))
    assert state.token_ids == PROMPT[: calls[-1]]
    assert state.source == state.position == calls[-1]
    assert {c.offset for c in caches} == {state.length} == {sum(k < calls[-1] for k in kept)}
    rest = [k for k in kept if k < calls[-1]] + list(range(calls[-1], len(PROMPT)))
    before = calls[-1]
    prefill(state, PROMPT[before:], 4)
    done = decode_round(state, make_plan(PAIR, GenerationOptions(method="ar")), DraftTree.root, len, Clock())
    assert_close(np.array(done.logits), masked_logits(PAIR, PROMPT, rest, len(PROMPT)))
