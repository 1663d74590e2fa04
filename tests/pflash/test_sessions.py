"""Sessions over compressed prompts: continued where they can be, begun anew where they cannot, nothing lost on the way."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree import Session
from mlx_ddtree.pflash.compress import PrefillCompression

from .. import families
from .test_positions import masked_logits

tiny_pair = cache(families.tiny_pair)
RNG = np.random.default_rng(7)
PROMPT = RNG.integers(3, 60, 100).tolist()
SYSTEM = (0, 20)


def scores(token_ids, progress=None):
    return np.random.default_rng(len(token_ids)).random(len(token_ids)).astype(np.float32)


def compression(**options):
    given = {"keep_ratio": 0.5, "scorer": scores, "chunk": 2, "least": 40, "protect": [SYSTEM]} | options
    return PrefillCompression("always", **given)


class Talk:
    """A session, and the rows that its caches must stand for."""

    def __init__(self, name="qwen3", **options):
        self.pair, self.options = tiny_pair(name), options
        self.session, self.kept = Session(self.pair), []

    def say(self, ids, n=6):
        """Answers; checks that every logit is the masked full forward's over what is kept."""
        options = {"tree_budget": 6, "parity": "off", "compression": compression()} | self.options
        responses = list(self.session.stream(ids, n, **options))
        said, report = [t for r in responses for t in r.tokens], responses[-1].compression
        start = self.session.reused
        self.kept = [k for k in self.kept if k < start]
        new = range(len(ids) - start) if report is None else [i for a, b in report.spans for i in range(a, b)]
        self.kept += [start + i for i in new]
        if self.session.cache.coverage.filtered == 0:
            logits = masked_logits(self.pair, [*ids, *said[:-1]], self.kept, len(ids))
            got = np.concatenate([np.array(r.logprobs) for r in responses])
            np.testing.assert_allclose(got - got[:, :1], logits - logits[:, :1], atol=1e-4 * np.abs(logits).max())
        self.kept += range(len(ids), len(ids) + len(said))
        assert self.session.token_ids == [*ids, *said]
        return said, report


@pytest.mark.parametrize("name", ["qwen3", "llama, no groups", "minimax"])
def test_a_continued_prompt_goes_on_behind_the_compressed_one(name):
    """New tokens are processed whole, until they alone are long enough; nothing is processed twice."""
    talk = Talk(name)
    said, report = talk.say(PROMPT)
    assert report.kept_tokens < 60
    ids = [*PROMPT, *said, 9, 8, 7]
    said, report = talk.say(ids)
    assert report is None and talk.session.reused == len(PROMPT) + 6
    ids = [*ids, *said, *RNG.integers(3, 60, 60).tolist()]
    said, report = talk.say(ids)
    assert report.prompt_tokens == 60 and report.kept_tokens < 40
    assert talk.session.cache.coverage.gap == len(ids) + 6 - len(talk.kept)
    talk.say([*ids, *said, 5, 6])


def test_another_prompt_keeps_what_nothing_was_dropped_of():
    """The system prompt's rows, and no more than that: what follows was chosen for another question."""
    talk = Talk()
    talk.say(PROMPT)
    head = talk.session.cache.coverage.head
    assert head >= SYSTEM[1]
    talk.say([*PROMPT[:70], 3, 4, 5])  # few new tokens: no compression
    assert talk.session.reused == head
    talk.say([*PROMPT[:10], *RNG.integers(3, 60, 80).tolist()])
    assert talk.session.reused == 10


def test_an_answer_that_is_taken_back_is_cut_off_behind_the_compressed_prompt():
    talk = Talk()
    said, _ = talk.say(PROMPT)
    other = [*PROMPT, *said[:3], (said[3] + 1) % 60, 5]
    talk.say(other)
    assert talk.session.reused == len(PROMPT) + 3


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 250), st.integers(1, 70)), min_size=1, max_size=4), st.booleans())
def test_any_sequence_of_prompts(turns, filtered):
    """Each is a beginning of what went before, and something else: always the logits of what is kept."""
    talk, before = Talk(), []
    for cut, new in turns:
        ids = [*before[:cut], *np.random.default_rng(cut * 71 + new).integers(3, 60, new).tolist()]
        promised = talk.session.reusable(ids)
        talk.say(ids[:400])
        assert promised == talk.session.reused
        before = talk.session.token_ids


@pytest.mark.parametrize("name", ["qwen3_5", "gpt_oss"])
def test_caches_that_cannot_be_trimmed_go_back_to_their_prompt(name):
    pair = tiny_pair(name)
    session, options = Session(pair), {"tree_budget": 6, "parity": "off", "compression": compression()}

    def say(ids):
        return [t for r in session.stream(ids, 6, **options) for t in r.tokens]

    said = say(PROMPT)
    coverage = session.cache.coverage
    other = [*PROMPT, (said[0] + 1) % 60, 5]
    again = say(other)
    assert session.reused == len(PROMPT) - 1 and session.cache.coverage == coverage
    fresh = Session(pair)
    for _ in fresh.stream(PROMPT, 1, **options):
        pass
    want = [t for r in fresh.stream(other, 6, **options) for t in r.tokens]
    assert fresh.reused == len(PROMPT) - 1
    assert again == want
    assert say([50, 51]) and session.reused == 0 and session.cache.coverage.gap == 0


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5"])
@pytest.mark.parametrize("chunks", [1, 5])
def test_an_interrupt_while_kept_tokens_are_processed(name, chunks):
    """What was processed counts, with its gaps; the rest of the prompt is processed when it comes again."""
    pair, heard = tiny_pair(name), []
    session = Session(pair)

    def interrupt(done, total):
        heard.append(done)
        if sum(done > 0 for done in heard) == chunks:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(
            session.stream(
                PROMPT, 6, prefill_step_size=8, prompt_progress_callback=interrupt, compression=compression()
            )
        )
    done = list(session.token_ids)
    assert done == PROMPT[: len(done)] and 8 * chunks <= len(done) < 100
    rows = {c.offset for c in session.cache if hasattr(c, "offset")}
    assert rows == {8 * chunks} and session.cache.coverage.gap == len(done) - 8 * chunks
    list(session.stream([*done, 5, 6, 7], 4, parity="off", tree_budget=4))
    assert session.reused == len(done)


def test_forks_of_compressed_sessions_go_separate_ways():
    talk = Talk()
    said, _ = talk.say(PROMPT)
    ids = [*PROMPT, *said]
    fork = Talk()
    fork.session, fork.kept = talk.session.fork([*ids, 1]), list(talk.kept)
    fork.say([*ids, 11, 12])
    talk.say([*ids, 21, 22])


def test_filtered_caches_are_continued_and_never_cut():
    talk = Talk(kv_keep_ratio=0.9, compression=None)
    said, report = talk.say(PROMPT)
    before, after = report.kv_rows
    assert before == 99 and after == 90
    coverage = talk.session.cache.coverage
    assert (coverage.gap, coverage.source, coverage.head) == (9, 99, 0)
    ids = [*PROMPT, *said, 7]
    talk.say(ids)
    assert talk.session.reused == len(ids) - 1
    assert talk.session.reusable([*PROMPT[:50], 3]) == 0
    talk.say([*PROMPT[:50], 3])
    assert talk.session.reused == 0 and talk.session.cache.coverage.gap == 0
