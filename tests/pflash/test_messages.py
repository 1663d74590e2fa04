"""Messages that have aged are compressed once, by themselves, so a conversation still begins as it began before."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from mlx_ddtree import Session, stream_generate
from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.turns import shared_beginning
from mlx_ddtree.pflash.compress import PrefillCompression, selection_of
from mlx_ddtree.pflash.messages import LEAST_MESSAGE, aged_spans, without_aged
from mlx_ddtree.pflash.modes import MESSAGES
from mlx_ddtree.server.sessions import Sessions

from ..talks import Talk, answer, talking_pair, tool, user

THRESHOLD = 2000
TEMPLATE = {"preserve_thinking": True}
"""What sessions ask of a template that knows it."""


class Counting:
    """A scorer that likes some characters more than others, and knows what it has read."""

    def __init__(self):
        self.read = []

    def __call__(self, ids, progress=None, *, tail_end=None):
        self.read.append(tuple(ids))
        return np.array(ids, np.float32) % 7


@pytest.fixture
def pair():
    return talking_pair("qwen3_5")


@pytest.fixture
def compression():
    return PrefillCompression(MESSAGES, THRESHOLD, 0.3, Counting())


def long_text(number, length=400):
    rng = np.random.default_rng(number)
    return "".join(rng.choice(list("abcdefgh. ,"), length))


def turns(count):
    """The prompts of a conversation whose answers are long, and results of tools too."""
    messages = [{"role": "system", "content": "You help."}]
    for number in range(count):
        messages.append(user(f"Question {number}: {long_text(number, 300)}"))
        yield list(messages)
        messages.append(answer(long_text(100 + number, 500)))
        messages.append(tool(long_text(200 + number)))
        yield list(messages)
        messages.append(answer("Done."))


def ids_of(pair, messages):
    return Talk(pair, messages, TEMPLATE).ids()


def aged_of(pair, messages, threshold=THRESHOLD):
    return aged_spans(pair.tokenizer, messages, ids_of(pair, messages), threshold, **TEMPLATE)


def shortened(pair, messages, compression):
    ids, aged = ids_of(pair, messages), aged_of(pair, messages, compression.threshold)
    return without_aged(pair, ids, aged, compression)


def test_a_message_is_scored_once_and_is_then_what_it_was(pair, compression):
    """A prompt begins like the one before, but where a message has just aged out."""
    compression = replace(compression, threshold=3 * THRESHOLD)
    prompts = list(turns(10))[8:]
    kept = [shortened(pair, messages, compression)[0] for messages in prompts]
    scorer = compression.scorer
    assert len(scorer.read) == len(set(scorer.read)) > 5
    moved = 0
    for before, after in pairwise(kept):
        shared = shared_beginning(before, after)
        moved += shared < len(before) - 1  # the last token is a part of the reasoning's end then
        assert shared >= len(before) - 3 * THRESHOLD
    assert 0 < moved <= len(kept) / 2
    assert len(kept[-1]) < 0.75 * len(ids_of(pair, prompts[-1]))


def test_what_is_young_small_or_the_templates_own_stays(pair, compression):
    *_, messages = turns(8)
    ids = ids_of(pair, messages)
    aged = aged_of(pair, messages)
    texts = [pair.tokenizer.decode(ids[first:end]) for first, end in aged]
    contents = [pair.tokenizer.decode(pair.tokenizer.encode(message["content"])) for message in messages]
    assert texts == [text for text in contents if text in texts]
    assert all(end <= len(ids) - THRESHOLD // 2 for _, end in aged)
    assert all(end - first >= LEAST_MESSAGE for first, end in aged)
    roles = {message["role"] for message, content in zip(messages, contents, strict=True) if content in texts}
    assert roles == {"user", "assistant", "tool"}
    kept, report = without_aged(pair, ids, aged, compression)
    outside = np.ones(len(ids), bool)
    for first, end in aged:
        outside[first:end] = False
    spans = np.zeros(len(ids), bool)
    for first, end in report.spans:
        spans[first:end] = True
    assert spans[outside].all()
    assert np.array(ids)[spans].tolist() == kept
    assert (report.prompt_tokens, report.kept_tokens, report.messages) == (len(ids), len(kept), len(aged))
    assert "approximate" in report.lines()


def test_a_short_conversation_is_whole(pair, compression):
    messages = next(iter(turns(1)))
    assert shortened(pair, messages, compression) == (ids_of(pair, messages), None)


def test_a_session_says_what_plain_decoding_says_of_what_is_left(pair, compression):
    session = Session(pair, remembers=False)
    reused = []
    for messages in list(turns(4))[6:]:
        responses = list(session.stream(messages, 3, compression=compression, tree_budget=4, parity="off"))
        left, report = shortened(pair, messages, compression)
        plain = stream_generate(pair, left, 3, method="ar", parity="off")
        assert [t for r in responses for t in r.tokens] == [t for r in plain for t in r.tokens]
        assert responses[-1].compression.kept_tokens == report.kept_tokens < report.prompt_tokens
        reused.append(session.reused / len(left))
    assert reused[0] == 0 and min(reused[1:]) > 0.25


def test_sessions_of_a_server_find_what_is_left(pair, compression):
    sessions = Sessions(pair, 4, 2**30)
    *_, before, last = turns(6)
    for messages in (before, last):
        ids, _ = shortened(pair, messages, compression)
        session = sessions.take(ids)
        list(session.stream(ids, 2, tree_budget=0, parity="off"))
    assert session.reused > 0.5 * len(ids)


def test_one_prompt_has_no_messages_that_age(pair):
    with pytest.raises(OptionError, match="use Session"):
        stream_generate(pair, "a long text", prefill_compression="messages")


def test_identical_prompts_are_scored_once(pair):
    scorer = Counting()
    options = PrefillCompression("always", keep_ratio=0.3, scorer=scorer)
    ids = ids_of(pair, [user(long_text(1, 1500))])
    first, second = (selection_of(pair, ids, options, ()) for _ in range(2))
    assert len(scorer.read) == 1 and first is second
    other = selection_of(pair, ids, options, [(100, 400)])
    assert len(scorer.read) == 2 and set(range(100, 400)) <= set(other.positions.tolist())
