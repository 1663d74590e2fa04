"""The drafter may read a prompt after the first token: its caches then hold what they hold chunk by chunk."""

from functools import cache

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree import make_prompt_cache, stream_generate
from mlx_ddtree.decoding import prefill as prefilling
from mlx_ddtree.decoding.prefill import prefill, read_by_drafter
from mlx_ddtree.decoding.state import DecodeState

from .. import families

tiny_pair = cache(families.tiny_pair)
PROMPT = list(range(5, 45))


def new_state(pair):
    return DecodeState(pair, make_prompt_cache(pair))


def drafter_arrays(state):
    return [np.array(x[..., : layer.offset, :]) for layer in state.caches.drafter for x in (layer.keys, layer.values)]


@pytest.mark.parametrize("may_wait", [0, 15, 100])
def test_what_waited_is_read_as_chunk_by_chunk(may_wait, monkeypatch):
    monkeypatch.setattr(prefilling, "MAY_WAIT", may_wait)
    pair = tiny_pair("qwen3")
    at_once, later = new_state(pair), new_state(pair)
    prefill(at_once, PROMPT, 8)
    waiting = []

    def count(done, total):
        waiting.append(sum(piece.shape[1] for piece in later.features))

    prefill(later, PROMPT, 8, count, drafter_later=True)
    assert max(waiting) <= may_wait
    assert (later.drafted_length == 0) == (may_wait >= len(PROMPT))
    read_by_drafter(later, wait=True)
    assert later.drafted_length == at_once.drafted_length == len(PROMPT) - 1
    assert not later.features
    for one, other in zip(drafter_arrays(at_once), drafter_arrays(later), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_drafter_reads_nothing_before_the_first_token():
    """What a prompt takes until then is the target's work alone."""
    pair = tiny_pair("qwen3")
    caches = make_prompt_cache(pair)
    lengths = []

    def note(done, total):
        lengths.append([layer.offset for layer in caches.drafter])

    options = {"tree_budget": 4, "parity": "off", "prefill_step_size": 8, "prompt_cache": caches}
    stream = stream_generate(pair, PROMPT, 6, prompt_progress_callback=note, **options)
    next(stream)
    assert not any(any(offsets) for offsets in lengths)
    stream.close()
    assert [layer.offset for layer in caches.drafter] == [len(caches.token_ids)] * len(caches.drafter)


def test_a_text_that_is_not_drafted_has_nothing_to_read():
    pair = tiny_pair("qwen3")
    state = DecodeState(pair, make_prompt_cache(pair, drafts=False))
    prefill(state, PROMPT, 8, drafter_later=True)
    read_by_drafter(state, wait=True)
    assert not state.features
    mx.eval([layer.state for layer in state.caches.target])
