"""Drafting under a grammar is lossless: the tokens are those of plain decoding with the same mask."""

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.sample_utils import make_logits_processors

from mlx_ddtree import (
    Grammar,
    OptionError,
    Session,
    generate,
    load,
    make_prompt_cache,
    make_sampler,
    stream_branches,
    stream_generate,
)
from mlx_ddtree.budget.profile import ParityBounds
from mlx_ddtree.decoding.state import DecodeState

from ..grammar.pairs import EOS, PROMPT, SCHEMA, THINK, THOUGHT, byte_pair, byte_tokenizer, our_tokens, stock_tokens
from ..helpers import any_profile
from .rounding import round_blocks

JSON = Grammar.json_schema(SCHEMA)
WORDS = Grammar.regex("([a-f]{2,4} ){3,40}\\.")
DRAWS = 150
WAYS = [
    {"method": "ar"},
    {"method": "dflash", "block_size": 6},
    {"method": "dflash"},
    {"tree_budget": 3},
    {"tree_budget": 24, "block_size": 8},
    {},
]


@pytest.fixture(scope="module")
def pair():
    return byte_pair()


@pytest.mark.parametrize("grammar", [JSON, WORDS], ids=["json", "words"])
@pytest.mark.parametrize("count", [200, 9])
def test_greedy_tokens_are_those_of_plain_decoding(pair, grammar, count):
    """To their end, which stands exactly where the form ends; or to the limit, in the middle of it."""
    expected = stock_tokens(pair, grammar, PROMPT, count)
    assert (expected[-1] == EOS) == (count == 200)
    for how in WAYS:
        assert our_tokens(pair, PROMPT, count, grammar=grammar, **how) == expected, how
    if grammar is JSON and count == 200:
        assert json.loads(pair.tokenizer.decode(expected[:-1])).keys() == SCHEMA["properties"].keys()


def test_the_embedded_pair_writes_json():
    pair = load()
    question = [{"role": "user", "content": "Write a function that counts vowels."}]
    ids = pair.tokenizer.apply_chat_template(question, add_generation_prompt=True)
    expected = stock_tokens(pair, JSON, ids, 80)
    for how in ({"method": "ar"}, {"method": "dflash", "block_size": 8}, {"tree_budget": 8}):
        assert our_tokens(pair, question, 80, grammar=JSON, parity="off", **how) == expected, how
    json.loads(pair.tokenizer.decode(expected[:-1]))


@pytest.mark.parametrize("options", [{}, {"top_k": 4, "min_p": 0.1}])
def test_a_seed_gives_the_same_text_by_every_method(pair, options):
    """Filters count among the tokens that are allowed."""
    texts = []
    for how in (WAYS[0], WAYS[2], WAYS[4], WAYS[5]):
        sampler = make_sampler(1.2, seed=5, **options)
        texts.append(our_tokens(pair, PROMPT, 60, grammar=WORDS, sampler=sampler, **how))
    assert all(text == texts[0] for text in texts)
    assert texts[0] != our_tokens(pair, PROMPT, 60, grammar=WORDS, sampler=make_sampler(1.2, seed=6, **options))


def test_draws_have_the_distribution_of_the_masked_logits(pair):
    """Of the first two tokens, by trees, against the target's own probabilities within the grammar."""
    grammar = Grammar.regex("[abc][abc]x")
    letters = [pair.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "abc"]
    whole = {text: pair.tokenizer.encode(text, add_special_tokens=False) for text in ("ab", "abc")}
    assert all(len(ids) == 1 for ids in whole.values())
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(DRAWS):
        tokens = our_tokens(pair, PROMPT, 2, grammar=grammar, sampler=make_sampler(1.5, seed=seed), tree_budget=4)
        counts[tuple(tokens)] = counts.get(tuple(tokens), 0) + 1
    first = [*letters, whole["ab"][0]]

    def chances(prompt, tokens):
        logits = np.array(pair.target.model(mx.array([prompt]))[0, -1].astype(mx.float32)) / 1.5
        weights = np.exp(logits[tokens] - logits[tokens].max())
        return dict(zip(tokens, weights / weights.sum(), strict=True))

    expected = {}
    for token, chance in chances(PROMPT, first).items():
        if token == whole["ab"][0]:
            follow = pair.tokenizer.encode("x", add_special_tokens=False)
        else:
            follow = letters
        for other, next_chance in chances([*PROMPT, token], follow).items():
            expected[token, other] = chance * next_chance
    assert counts.keys() <= expected.keys()
    statistic = sum((counts.get(pair_, 0) - DRAWS * p) ** 2 / (DRAWS * p) for pair_, p in expected.items())
    freedom = len(expected) - 1
    assert statistic < freedom + 4 * np.sqrt(2 * freedom)


def test_forced_spans_ask_no_drafter(pair):
    """A form without any choice takes a few verifications, none of them drafted."""
    grammar = Grammar.regex("Q{30}")
    for how in ({}, {"tree_budget": 16, "block_size": 8}, {"method": "dflash", "block_size": 8}):
        last = list(stream_generate(pair, PROMPT, 60, grammar=grammar, **how))[-1]
        assert last.generation_tokens == 31 and last.rounds <= 8, how
        assert "draft" not in last.statistics.kinds and last.statistics.kinds["forced"] > 0, how


def test_without_a_drafter_what_is_forced_is_still_verified_at_once():
    pair = byte_pair(drafter=False)
    expected = stock_tokens(pair, JSON, PROMPT, 200)
    for how in ({}, {"tree_budget": 8}, {"method": "dflash", "block_size": 8}):
        responses = list(stream_generate(pair, PROMPT, 200, grammar=JSON, **how))
        assert [token for response in responses for token in response.tokens] == expected
        assert responses[-1].rounds < len(expected) - 5
        assert responses[-1].statistics.kinds["forced"] > 0


@pytest.mark.parametrize("family", ["qwen3_5", pytest.param("gpt_oss", marks=pytest.mark.slow)])
def test_recurrent_states_and_rings_follow_grammars(family):
    from ..families import tiny_pair

    model = tiny_pair(family)
    model.tokenizer = byte_tokenizer()
    model.profile = any_profile()
    words = Grammar.regex("[!-?]{30}")  # bytes that these small vocabularies have
    expected = stock_tokens(model, words, [20, 30], 40)
    for how in ({"method": "ar"}, {"tree_budget": 9}, {}):
        assert our_tokens(model, [20, 30], 40, grammar=words, **how) == expected


@pytest.mark.parametrize("parity", ["exact", "rows"])
def test_near_ties_are_decided_within_the_grammar(parity):
    """Where rows round coarsely: margins count between allowed tokens only, and lone rows are masked too."""
    pair = byte_pair()
    pair.profile = replace(pair.profile, parity=ParityBounds(2.0, 2.0), in_grammars=None)
    round_blocks(pair.target, 6)
    ties = 0
    for place in range(4):
        prompt = [*PROMPT, 90 + place]
        expected = our_tokens(pair, prompt, 60, grammar=WORDS, method="ar")
        responses = list(stream_generate(pair, prompt, 60, grammar=WORDS, tree_budget=12, parity=parity))
        ties += responses[-1].statistics.kinds["tie"]
        if parity == "exact":
            assert [token for response in responses for token in response.tokens] == expected
    assert ties > 0


def test_processors_come_before_the_grammar(pair):
    """None of them lets a forbidden token through, and penalties see each node's path."""
    processors = make_logits_processors(repetition_penalty=1.7, repetition_context_size=8)
    expected = stock_tokens(pair, WORDS, PROMPT, 60, processors)
    assert expected != stock_tokens(pair, WORDS, PROMPT, 60)
    for how in WAYS:
        assert our_tokens(pair, PROMPT, 60, grammar=WORDS, logits_processors=processors, **how) == expected
    bias = make_logits_processors({7: 1000.0})
    assert our_tokens(pair, PROMPT, 60, grammar=WORDS, logits_processors=bias) == stock_tokens(pair, WORDS, PROMPT, 60)


def test_stop_strings_end_the_text_within_the_form(pair):
    text = generate(pair, PROMPT, 200, grammar=JSON)
    stopped = list(stream_generate(pair, PROMPT, 200, grammar=JSON, stop=['"kind"']))
    assert "".join(response.text for response in stopped) == text[: text.index('"kind"')]
    assert stopped[-1].stopped_by == '"kind"'


def test_a_prompt_cache_goes_on_with_another_form(pair):
    """The form is an answer's, not the cache's."""
    cache = make_prompt_cache(pair)
    first = our_tokens(pair, PROMPT, 200, grammar=JSON, prompt_cache=cache)
    assert cache.token_ids == [*PROMPT, *first]
    second = our_tokens(pair, [80, 81], 60, grammar=WORDS, prompt_cache=cache)
    assert second == stock_tokens(pair, WORDS, [*PROMPT, *first, 80, 81], 60)
    free = our_tokens(pair, [80], 20, prompt_cache=cache)
    whole = [*PROMPT, *first, 80, 81, *second, 80]
    assert free == our_tokens(pair, whole, 20)


def test_a_session_answers_in_a_form_and_without(pair):
    session = Session(pair)
    for prompt, grammar in (([80, 81, 82], WORDS), ([80, 81, 83, 84], None), ([80, 81, 83, 84], JSON)):
        said = [token for r in session.stream(prompt, 40, grammar=grammar) for token in r.tokens]
        assert said == our_tokens(pair, prompt, 40, grammar=grammar)


def test_an_interrupted_answer_leaves_what_was_emitted(pair):
    cache = make_prompt_cache(pair)
    stream = stream_generate(pair, PROMPT, 200, grammar=JSON, prompt_cache=cache)
    said = [token for _, response in zip(range(4), stream, strict=False) for token in response.tokens]
    stream.close()
    assert cache.token_ids == [*PROMPT, *said]


def test_a_model_that_reasons_does_so_first():
    """Then its form comes, by every method alike; without reasoning the form comes at once."""
    pair = byte_pair(tokenizer=byte_tokenizer(reasons=True))
    begun = [*PROMPT, THINK]
    favour = make_logits_processors({THOUGHT: 9.0})  # random models reason without end
    expected = our_tokens(pair, begun, 60, grammar=WORDS, logits_processors=favour, method="ar")
    form = expected[expected.index(THOUGHT) + 1 :]
    assert expected.index(THOUGHT) > 0 and form
    assert set(pair.tokenizer.decode(form)) <= set("abcdef .") | set("<eos>")
    for how in (WAYS[2], WAYS[4], WAYS[5]):
        assert our_tokens(pair, begun, 60, grammar=WORDS, logits_processors=favour, **how) == expected
    strict = Grammar("regex", WORDS.text, after_reasoning=False)
    assert our_tokens(pair, begun, 60, grammar=strict) == our_tokens(pair, begun, 60, grammar=strict, method="ar")
    assert set(generate(pair, begun, 60, grammar=strict)) <= set("abcdef .")


def test_a_form_teaches_free_texts_nothing(pair):
    """Chances that are counted under a grammar are kept apart, and not written to the profile's file."""
    profile = pair.profile
    before = (profile.rounds_unsaved, [*profile.survival(True).trials], profile.cost.step(10))
    our_tokens(pair, PROMPT, 200, grammar=JSON)
    assert profile.rounds_unsaved == before[0] and profile.cost.step(10) == before[2]
    np.testing.assert_array_equal(profile.survival(True).trials, before[1])
    assert profile.for_grammars() is profile.for_grammars()
    assert profile.for_grammars().path is None


def test_several_continuations_are_refused(pair):
    with pytest.raises(OptionError, match="follow no grammar"):
        stream_branches(pair, PROMPT, 2, 20, temp=1.0, seed=1, grammar=WORDS)


def test_what_is_wrong_is_said_at_the_call(pair):
    for options in (
        {"regex": "(a"},
        {"json_schema": "{"},
        {"regex": "a", "grammar": WORDS},
        {"json_schema": "no/file"},
    ):
        with pytest.raises(OptionError):
            stream_generate(pair, PROMPT, 20, **options)


def test_a_grammar_that_grows_too_complex_ends_the_answer_with_one_line(pair):
    """What was said stays, in the cache too."""
    cache = make_prompt_cache(pair)
    said = []
    bomb = Grammar.regex("(((a|b|ab){9,300}){9,300}){9,300}")
    with pytest.raises(OptionError, match="grammar") as caught:
        for response in stream_generate(pair, PROMPT, 400, grammar=bomb, prompt_cache=cache):
            said += response.tokens
    assert "\n" not in str(caught.value)
    assert not said or cache.token_ids == [*PROMPT, *said]


def test_free_texts_ask_no_grammar(pair):
    assert DecodeState(pair, make_prompt_cache(pair)).walk is None
