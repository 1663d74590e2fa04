"""Chunks end before messages, alike however a prompt goes on."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.generation.turns import NEAREST, chunk_ends, message_openings

from ..talks import SPECIAL, TEMPLATE
from ..training.tiny import make_special_tokenizer, make_tokenizer

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
BRACKETS = "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('No.') }}{% endif %}" + CHATML.replace(
    "im_", "turn_"
)


def openings(template, *special):
    tokenizer = make_special_tokenizer(special, template, eos=None)
    return [tokenizer.decode(opening, skip_special_tokens=False) for opening in message_openings(tokenizer)]


@pytest.mark.parametrize(
    ("template", "special", "expected"),
    [
        (CHATML, SPECIAL, ["<|im_start|>"]),
        (TEMPLATE, SPECIAL, ["<|im_start|>"]),
        (NO_SYSTEM, ("<|turn_start|>", "<|turn_end|>"), ["<|turn_start|>"]),
        (BRACKETS, ("<s>", "</s>", "[INST]", "[/INST]"), ["[INST]"]),
        (PLAIN, (), ["assistant: "]),
        ("{{ raise_exception('never') }}", SPECIAL, []),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", SPECIAL, []),
    ],
)
def test_messages_are_told_by_what_their_template_writes_before_them(template, special, expected):
    assert openings(template, *special) == expected


def test_without_a_template_there_are_no_messages():
    assert message_openings(make_tokenizer(chat=False)) == ()


IDS = st.lists(st.sampled_from([1, 2, 3]), min_size=10, max_size=40).map(lambda ids: [t for t in ids for _ in range(9)])


@given(IDS, IDS, st.integers(1, 200))
def test_where_chunks_end_depends_on_what_is_before_them(ids, more, step_size):
    """Whatever follows, so a prompt that goes on from a mark is cut as it would have been from its first token."""
    openings = [(2,), (3, 3)]
    ends, longer = chunk_ends(ids, openings, step_size), chunk_ends([*ids, *more], openings, step_size)
    sure = len(ids) - 1
    assert [end for end in longer.all if end < sure] == [end for end in ends.all if end < sure]
    assert [end for end in longer.turns if end < sure] == [end for end in ends.turns if end < sure]


@given(IDS, st.integers(1, 200))
def test_chunks_are_bounded_and_turns_apart(ids, step_size):
    ends = chunk_ends(ids, [(2,), (3, 3)], step_size)
    borders = [0, *ends.all, len(ids)]
    assert all(0 < b - a <= step_size for a, b in itertools.pairwise(borders)) or not ids
    assert set(ends.turns) <= set(ends.all)
    turns = [0, *ends.turns]
    assert all(b - a >= NEAREST for a, b in itertools.pairwise(turns))
    assert all(ids[turn] == 2 or ids[turn : turn + 2] == [3, 3] for turn in ends.turns)


def test_without_openings_chunks_are_mlx_lms():
    assert list(chunk_ends([1] * 100, (), 30).all) == [30, 60, 90]
