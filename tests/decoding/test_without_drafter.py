"""A target without a drafter copies what was said before: the tokens are plain decoding's, and repeats come several at a
time."""

import pytest

from mlx_ddtree import load, make_sampler, stream_generate
from mlx_ddtree.budget.memory import Memory
from mlx_ddtree.pair import Pair

from ..families import tiny_pair
from ..helpers import small_pair
from .test_adaptive import constantly
from .test_lossless import PROMPT, our_tokens, stock_tokens, without_end

WAYS = [
    {},
    {"tree_budget": 6},
    {"method": "dflash"},
    {"method": "dflash", "block_size": 5},
]


@pytest.fixture(scope="module")
def embedded():
    return load(draft=False)


@pytest.fixture(scope="module")
def remembered(embedded):
    """A memory of what the embedded target says to two prompts, one of them QUESTION."""
    memory = Memory()
    for prompt in (QUESTION, "Write a function that reverses a list."):
        messages = [{"role": "user", "content": prompt}]
        list(stream_generate(embedded, messages, 60, method="ar", memory=memory))
    return memory


QUESTION = "Write a function that counts vowels."


def answer(pair, **options):
    """Tokens of the answer to QUESTION, and its last response."""
    responses = list(stream_generate(pair, [{"role": "user", "content": QUESTION}], 60, **options))
    return [token for response in responses for token in response.tokens], responses[-1]


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5", "gpt_oss"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_tokens_are_plain_decodings(name, way):
    """At temperature 0, on texts that repeat themselves, for families with three kinds of caches."""
    pair = without_end(tiny_pair(name))
    alone = constantly(Pair(pair.target, None, pair.tokenizer), verify=0.6) if way.get("tree_budget") != 6 else pair
    alone.drafter = None
    prompt = [5, 9, 23, 7] * 4
    memory = Memory()
    expected = stock_tokens(pair, prompt, 40)
    for _ in range(2):
        assert our_tokens(alone, prompt, 40, memory=memory, **way) == expected


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_seed_gives_one_text_whatever_is_copied(embedded, remembered, way):
    sampled = make_sampler(0.8, seed=3)
    plain, _ = answer(embedded, sampler=sampled, method="ar")
    assert answer(embedded, sampler=sampled, **way)[0] == plain
    assert answer(embedded, sampler=sampled, memory=remembered, **way)[0] == plain


def test_an_answer_that_was_given_before_comes_in_few_rounds(embedded, remembered):
    """The embedded target at temperature 0: the same tokens, several a round."""
    plain, _ = answer(embedded, method="ar")
    tokens, last = answer(embedded, memory=remembered, tree_budget=8)
    assert tokens == plain
    assert last.mean_acceptance_length > 3
    assert last.statistics.kinds["lookup"] > 0


def test_an_embedded_pair_with_a_memory_says_the_same(remembered):
    """Beside a drafter what is remembered enters its trees; tokens do not change."""
    pair = constantly(load())
    plain, _ = answer(pair, method="ar")
    tokens, last = answer(pair, memory=remembered)
    assert tokens == plain
    assert last.mean_acceptance_length > 1
    sampled = make_sampler(0.8, seed=3)
    assert answer(pair, sampler=sampled, memory=remembered)[0] == answer(pair, sampler=sampled, method="ar")[0]


def test_what_does_not_repeat_itself_is_decoded_plainly():
    """Where a verification costs as much as all of its rows, no copy is worth one."""
    pair = without_end(small_pair(drafter=False))
    cost = constantly(pair).profile.cost
    cost.verify = cost.chain = [[2.0 * rows for rows in cost.rows] for _ in cost.contexts]
    *_, last = stream_generate(pair, PROMPT, 60)
    assert last.statistics.kinds["plain"] > 0.9 * last.rounds


@pytest.mark.parametrize("way", [{}, {"tree_budget": 12}], ids=str)
def test_a_drafter_and_a_memory_share_a_tree(way):
    """Small pair, free rows: the remembered answer is accepted where random drafts are not."""
    pair = constantly(without_end(small_pair()), verify=0.1)
    memory = Memory()
    expected = our_tokens(pair, PROMPT, 48, memory=memory, method="ar")
    assert our_tokens(pair, PROMPT, 48, memory=memory, **way) == expected
    *_, last = stream_generate(pair, PROMPT, 48, memory=memory, **way)
    *_, without = stream_generate(pair, PROMPT, 48, **way)
    assert last.rounds < without.rounds
