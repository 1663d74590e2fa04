"""Cases are repeatable, hold their needle where they say, once, and are as long as asked."""

import random

import pytest

from mlx_ddtree.benchmarking.needles import KINDS, haystack, make_fact, needle_case


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_the_needle_is_where_it_is_said_to_be(kind, depth):
    for seed in range(5):
        case = needle_case(kind, 6000, depth, seed)
        start, end = case.needle
        assert case.text[start:end] == case.fact.answer
        assert case.text.count(case.fact.value) == 1
        assert abs(start / len(case.text) - depth) < 0.06
        assert 6000 <= len(case.text) < 9000
        assert case.prompt.endswith(case.fact.question)
        assert needle_case(kind, 6000, depth, seed) == case


def test_other_seeds_are_other_cases():
    assert len({needle_case("prose", 2000, 0.5, seed).text for seed in range(20)}) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_haystack_is_no_longer_than_its_last_piece(kind):
    pieces = haystack(kind, 3000, random.Random(1))
    assert sum(map(len, pieces[:-1])) < 3000 <= sum(map(len, pieces))


def test_code_is_asked_in_its_own_words():
    fact = make_fact("code", random.Random(2))
    assert fact.answer.split(" = ")[0] in fact.question
    assert fact.statement == fact.answer + "\n"
