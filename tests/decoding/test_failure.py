"""A GPU that fails after a launch was accepted: the same tokens, by MLX's operations."""

import logging

import mlx.core as mx
import pytest
from mlx.utils import tree_map
from mlx_lm.models.cache import ArraysCache

from mlx_ddtree import make_prompt_cache, stream_generate
from mlx_ddtree.decoding import verify
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.kernels.choice import NO_KERNELS, KernelChoice, KernelSet
from mlx_ddtree.kernels.gather_rows import gather_rows
from mlx_ddtree.kernels.guard import Guard
from mlx_ddtree.kernels.quantized import shared_matmul

from ..families import tiny_pair
from ..helpers import small_pair

PROMPT = [5, 9, 23, 41, 12, 7]
FAILED = "[METAL] Command buffer execution failed: Caused GPU Timeout Error (00000002:kIOAccelCommandBufferCallbackErrorTimeout)"
PAIRS = {
    "4 bits": lambda: small_pair(bits=4),
    "hybrid": lambda: tiny_pair("qwen3_5"),
    "windows": lambda: tiny_pair("gpt_oss"),
}


class Gpu:
    """Fails at one of the host's waits for a verification: what was computed since the last one is spoilt, and MLX's error
    comes from the wait, and once more from the stream.

    state: of the text that is decoded; reports: what MLX has still to say.
    """

    def __init__(self, monkeypatch, at):
        self.waits, self.at, self.reports, self.state = 0, at, 0, None
        self.spoilt_from = 0
        own_init, own_eval, own_wait = DecodeState.__init__, mx.eval, mx.synchronize

        def init(state, *args, **how):
            own_init(state, *args, **how)
            self.state = state

        def wait(*arrays):
            own_eval(*arrays)
            self.waits += 1
            if self.waits == self.at:
                self.spoil()
                self.reports = 1
                raise RuntimeError(FAILED)
            self.spoilt_from = self.held

        def synchronize():
            own_wait()
            self.reports -= 1
            if self.reports >= 0:
                raise RuntimeError(FAILED)

        monkeypatch.setattr(DecodeState, "__init__", init)
        monkeypatch.setattr(verify, "_choose", self.watched(verify._choose, wait))
        monkeypatch.setattr(mx, "synchronize", synchronize)

    def watched(self, choose, wait):
        def watching(state, hidden, *rest):
            self.held = state.length
            said = choose(state, hidden, *rest)
            wait(hidden)
            return said

        return watching

    def spoil(self):
        """Everything that the buffers since the last good wait have written, or could have."""
        good = self.spoilt_from
        for layer in self.state.caches.target:
            if isinstance(layer, ArraysCache):
                layer.cache = [x * mx.nan for x in layer.cache]
            elif hasattr(layer, "_idx"):  # a ring: a commit writes anywhere
                layer.keys, layer.values = layer.keys * mx.nan, layer.values * mx.nan
            else:
                layer.keys, layer.values = (tree_map(lambda x: behind(x, good), x) for x in (layer.keys, layer.values))
        self.state.features = [x * mx.nan for x in self.state.features]


def behind(x, good):
    """x (1, H, n, D) with nothing of worth behind its first `good` rows."""
    return mx.where(mx.arange(x.shape[2])[:, None] < good, x, mx.nan)


def with_kernels(pair):
    """References in the place of kernels: whoever asks finds some in use."""
    kernels = KernelSet(product=shared_matmul, gather_rows=gather_rows, names=("verify_qmm", "gather_rows"))
    pair.target.kernels = KernelChoice({1: kernels})
    pair.tokenizer.eos_token_ids.clear()
    return pair


def said(pair, count=40, **how):
    return [t for r in stream_generate(pair, PROMPT, count, parity="off", **how) for t in r.tokens]


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize(
    ("at", "how"), [(2, {"tree_budget": 6}), (9, {"tree_budget": 6}), (3, {"method": "dflash", "block_size": 4})]
)
def test_the_tokens_are_the_same(kind, at, how, monkeypatch, caplog):
    pair = with_kernels(PAIRS[kind]())
    want = said(pair, method="ar")
    gpu = Gpu(monkeypatch, at)
    with caplog.at_level(logging.WARNING):
        assert said(pair, **how) == want
    assert gpu.waits > at and gpu.reports < 0 and pair.target.kernels == NO_KERNELS
    [warning] = [r.message for r in caplog.records if "the GPU failed" in r.message]
    assert warning.endswith(FAILED)


def test_a_prompt_cache_is_good_afterwards(monkeypatch):
    pair = with_kernels(PAIRS["4 bits"]())
    cache, plain = make_prompt_cache(pair), make_prompt_cache(pair)
    want = said(pair, 20, method="ar", prompt_cache=plain) + said(pair, 20, method="ar", prompt_cache=plain)
    Gpu(monkeypatch, 4)
    first = said(pair, 20, tree_budget=6, prompt_cache=cache)
    assert first + said(pair, 20, tree_budget=6, prompt_cache=cache) == want


@pytest.mark.parametrize("at", [1, 3])
def test_a_failure_that_cannot_be_theirs_is_raised(at, monkeypatch):
    """Without kernels, or before anything is known to be good, as at the text's first token."""
    pair = with_kernels(PAIRS["4 bits"]())
    if at > 1:
        pair.target.kernels = NO_KERNELS
    Gpu(monkeypatch, at)
    with pytest.raises(RuntimeError, match="Command buffer execution failed"):
        said(pair, tree_budget=6)


def test_a_second_failure_is_raised(monkeypatch):
    pair = with_kernels(PAIRS["4 bits"]())
    gpu = Gpu(monkeypatch, 3)
    with pytest.raises(RuntimeError, match="Command buffer execution failed"):
        for _ in stream_generate(pair, PROMPT, 40, parity="off", tree_budget=6):
            if gpu.waits > 3:
                gpu.at = gpu.waits + 1


def test_a_guard_does_not_hide_it():
    """What a launch was given may be spoilt then, so its reference would compute nonsense from it."""

    def fails(*args):
        raise RuntimeError(FAILED)

    guard = Guard()
    with pytest.raises(RuntimeError, match="Command buffer"):
        guard.over("verify_qmm", fails, lambda x: x)(1)
    assert guard.failed == set()
