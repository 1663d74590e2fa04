"""One matcher follows all paths, and allows behind each of them what a fresh one would."""

import random
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from mlx_lm.tokenizer_utils import load as load_tokenizer

from mlx_ddtree import Grammar, OptionError
from mlx_ddtree.generation.grammars import open_walk, reasoning_of, vocabulary_of
from mlx_ddtree.grammar.reasoning import Reasoning
from mlx_ddtree.grammar.vocabulary import Vocabulary, has, only_token, with_token
from mlx_ddtree.grammar.walk import GrammarWalk
from mlx_ddtree.pair import Pair
from mlx_ddtree.tree import DraftTree

from ..helpers import small_pair, small_target
from .pairs import END, EOS, SCHEMA, THINK, THOUGHT, VOCAB, allowed_ids, byte_tokenizer

GRAMMARS = [
    Grammar.json_schema(SCHEMA),
    Grammar.json_object(),
    Grammar.regex("(foo|foobar)[a-z]{2,5}( and [0-9]{3})*\\."),
    Grammar.lark('start: "(" start ")" | /[ab]{1,3}/'),
]


@pytest.fixture(scope="module")
def pair():
    return Pair(small_target(vocab=VOCAB), None, byte_tokenizer())


@pytest.fixture(scope="module")
def thinker():
    return Pair(small_target(vocab=VOCAB), None, byte_tokenizer(reasons=True))


def encoded(pair, text):
    return pair.tokenizer.encode(text, add_special_tokens=False)


def allowed(walk, path=()):
    return set(np.flatnonzero(np.unpackbits(walk.place(path).words.view(np.uint8), bitorder="little")).tolist())


def fresh(pair, grammar, path):
    vocabulary = vocabulary_of(pair)
    matcher = vocabulary.matcher(grammar)
    assert not path or matcher.consume_tokens(list(path))
    return set(allowed_ids(vocabulary, matcher).tolist())


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.kind)
def test_what_is_allowed_depends_on_the_path_alone(pair, grammar):
    """However the walk came there: from other paths, further on, or from a text that was taken back."""
    random_one = random.Random(7)
    walk = open_walk(pair, grammar, [])
    text, paths = [], [()]
    for _ in range(120):
        path = random_one.choice(paths)
        now = allowed(walk, path)
        assert now == fresh(pair, grammar, [*text, *path])
        assert (walk.place(path).only is None) == (len(now) > 1)
        token = random_one.choice(sorted(now))
        if token not in walk.vocabulary.ends:
            paths.append((*path, token))
        if random_one.random() < 0.1:
            text = text[: random_one.randrange(len(text) + 1)] if random_one.random() < 0.3 else [*text, *path]
            walk.stand(text)
            paths = [()]


def test_paths_that_part_leave_nothing_behind():
    """A case in which llguidance's own way back (LLMatcher.rollback) allows what cannot follow."""
    tokenizer = load_tokenizer(Path(str(files("mlx_ddtree") / "demo" / "target")))
    vocabulary = Vocabulary(tokenizer._tokenizer, tokenizer.eos_token_ids, len(tokenizer._tokenizer))

    def ids(*pieces):
        tokens = [tokenizer.encode(piece, add_special_tokens=False) for piece in pieces]
        assert all(len(token) == 1 for token in tokens)
        return tuple(token for (token,) in tokens)

    walk = GrammarWalk(vocabulary, vocabulary.matcher(Grammar.json_object()))
    text = ids("{", '"', '":')
    walk.stand(text)
    parting = [ids(' "', "alse"), ids(' ["', '",', ' ["', " import"), ids(' ["', '"],', ' "')]
    for path in (whole[:length] for whole in parting for length in range(1, len(whole) + 1)):
        fresh_one = vocabulary.matcher(Grammar.json_object())
        assert fresh_one.consume_tokens([*text, *path])
        assert allowed(walk, path) == set(allowed_ids(vocabulary, fresh_one).tolist())


def test_long_texts_copy_matchers_only_where_paths_part(pair, monkeypatch):
    """Then a matcher goes on along the first path, and is made anew for others: with the same masks."""
    monkeypatch.setattr("mlx_ddtree.grammar.walk.CHEAP", 0)
    grammar = Grammar.json_object()
    walk = open_walk(pair, grammar, [])
    text = encoded(pair, '{"a": [1, ')
    walk.stand(text)
    for path in ("2", "2]", "2],", "2, 3", "2, 34", "2, 3]", "2]}", "[", "[5", "2], "):
        tokens = tuple(encoded(pair, path))
        for length in range(len(tokens) + 1):
            assert allowed(walk, tokens[:length]) == fresh(pair, grammar, [*text, *tokens[:length]])


def test_an_end_is_allowed_exactly_where_the_form_may_end(pair):
    grammar = Grammar.regex("ab+")
    walk = open_walk(pair, grammar, [])
    walk.stand(encoded(pair, "a"))
    assert EOS not in allowed(walk)
    walk.stand(encoded(pair, "abb"))
    assert EOS in allowed(walk) and len(allowed(walk)) > 1
    walk = open_walk(pair, Grammar.regex("ab"), [])
    walk.stand(encoded(pair, "ab"))
    assert allowed(walk) == {EOS} and walk.forced(5) == [EOS]


def test_every_end_token_may_end_an_answer():
    pair = Pair(small_target(vocab=VOCAB), None, byte_tokenizer(ends=("<eos>", "<end>")))
    walk = open_walk(pair, Grammar.regex("a"), [])
    walk.stand(encoded(pair, "a"))
    assert allowed(walk) == {EOS, END}


def test_the_masks_of_a_tree_are_those_of_its_paths(pair):
    """Nodes behind an end, or behind what is not allowed, are never reached; they only must not fail."""
    grammar = Grammar.regex("a(b|c)*")
    walk = open_walk(pair, grammar, [9, 9])
    walk.start = 2
    a, b, c, x = (encoded(pair, letter)[0] for letter in "abcx")
    walk.stand([9, 9, a])
    tree = DraftTree(
        np.array([a, b, c, EOS, x, c, b], np.int32),
        np.array([-1, 0, 0, 1, 2, 3, 4], np.int32),
        np.array([0, 1, 1, 2, 2, 3, 3], np.int32),
        np.zeros(7, np.float32),
    )
    masks = walk.masks(tree)
    for node, path in enumerate([(), (b,), (c,)]):
        bits = np.flatnonzero(np.unpackbits(masks[node].view(np.uint8), bitorder="little"))
        assert set(bits.tolist()) == fresh(pair, grammar, [a, *path])


def test_what_must_follow_is_known_as_far_as_there_is_no_choice(pair):
    walk = open_walk(pair, Grammar.json_schema(SCHEMA), [])
    assert pair.tokenizer.decode(walk.forced(9)) == '{"name": '  # a token of the value may begin with its quote
    assert walk.forced(2) == walk.forced(9)[:2]
    walk.stand(encoded(pair, '{"name": "x'))
    assert walk.forced(9) == []


def test_a_model_may_reason_first(thinker):
    """The form begins behind its reasoning, in which everything is allowed but an end."""
    grammar = Grammar.regex("ab")
    a, b = encoded(thinker, "a")[0], encoded(thinker, "b")[0]
    walk = open_walk(thinker, grammar, [50, 51])
    assert allowed(walk) == {THINK} | fresh(thinker, grammar, [])
    anything = set(range(VOCAB)) - {EOS}
    assert allowed(walk, (THINK,)) == allowed(walk, (THINK, 60)) == anything
    assert allowed(walk, (THINK, 60, THOUGHT, a)) == allowed(walk, (a,)) == {b}
    walk.start = 2
    for text in ([THINK, 60], [THINK, 60, 61], [THINK]):
        walk.stand([50, 51, *text])
        assert allowed(walk, (60,)) == anything and walk.place().only is None
        assert allowed(walk, (THOUGHT, a)) == {b}
    walk.stand([50, 51, THINK, THOUGHT, a])
    assert allowed(walk) == {b} and walk.forced(9) == [b, EOS]
    walk.stand([50, 51, THINK, THOUGHT, a, b])
    assert allowed(walk) == {EOS}
    walk.stand([50, 51])
    assert THINK in allowed(walk)


def test_where_reasoning_has_begun_or_is_over(thinker):
    """A prompt may end within it; or behind its end, where a template was told that there is to be none."""
    space = encoded(thinker, "\n")
    assert reasoning_of(thinker.tokenizer, [50, THINK, *space]) == Reasoning((THINK,), (THOUGHT,), True)
    assert reasoning_of(thinker.tokenizer, [50, THINK, *space, THOUGHT, *space]) is None
    assert reasoning_of(thinker.tokenizer, [THINK, THOUGHT, 80, 81]) == Reasoning((THINK,), (THOUGHT,), False)
    walk = open_walk(thinker, Grammar.regex("ab"), [50, THINK])
    assert allowed(walk) == set(range(VOCAB)) - {EOS}
    assert allowed(walk, (THOUGHT,)) == fresh(thinker, Grammar.regex("ab"), [])
    strict = open_walk(thinker, Grammar.regex("ab", after_reasoning=False), [50, THINK])
    assert allowed(strict) == fresh(thinker, Grammar.regex("ab"), [])


def test_marks_of_several_tokens_are_found_wherever_the_text_is_cut():
    reasoning = Reasoning((1, 2), (3, 4), False)
    assert reasoning.form_begins([]) == 0 and reasoning.form_begins([9]) == 0
    assert reasoning.form_begins([1, 2, 9, 3]) is None
    assert reasoning.form_begins([1, 2, 9, 3, 4], searched=4) == 5
    assert Reasoning((1,), (3, 4), True).form_begins([9, 3, 3, 4, 7]) == 4


@pytest.mark.parametrize(
    "grammar",
    [Grammar.regex("(((a|b|ab){1,300}){1,300}){1,300}"), Grammar.lark('start: s\ns: s s s | s s | "a" | "b"')],
    ids=["expressions", "readings"],
)
def test_a_grammar_that_takes_too_much_ends_with_one_line(pair, grammar):
    walk = open_walk(pair, grammar, [])
    with pytest.raises(OptionError, match="the grammar cannot be followed: ") as caught:
        for length in range(1, 300):
            walk.stand(encoded(pair, "ba" * length))
            walk.place()
    assert "\n" not in str(caught.value)


def test_a_text_that_breaks_its_grammar_is_an_error(pair):
    walk = open_walk(pair, Grammar.regex("ab"), [])
    with pytest.raises(OptionError):
        walk.stand(encoded(pair, "ba"))


def test_tokenizers_that_no_grammar_can_be_laid_into_are_refused(pair):
    with pytest.raises(OptionError, match=r"cannot be laid into this tokenizer: .*decoder"):
        open_walk(small_pair(drafter=False), Grammar.regex("a"), [])
    with pytest.raises(OptionError, match="no end token"):
        Vocabulary(pair.tokenizer._tokenizer, [], VOCAB)


def test_models_that_answer_in_channels_are_refused():
    tokenizer = byte_tokenizer()
    tokenizer._tokenizer.add_special_tokens({"additional_special_tokens": ["<|channel|>"]})
    with pytest.raises(OptionError, match="channels"):
        open_walk(Pair(small_target(vocab=VOCAB), None, tokenizer), Grammar.regex("a"), [])


def test_the_vocabulary_is_made_once_for_its_ends(pair):
    assert vocabulary_of(pair) is vocabulary_of(pair)
    other = Pair(pair.target, None, byte_tokenizer())
    first = vocabulary_of(other)
    other.tokenizer.add_eos_token("<end>")
    assert vocabulary_of(other) is not first and END in vocabulary_of(other).ends


def test_sets_of_tokens():
    words = np.zeros(3, np.uint32)
    assert only_token(words) is None
    one = with_token(words, 95)
    assert has(one, 95) and not has(one, 94) and only_token(one) == 95
    assert only_token(with_token(one, 64)) is None and only_token(with_token(one, 2)) is None


def test_tokens_that_the_model_cannot_say_are_never_allowed(pair):
    """A tokenizer may have more tokens than the model has logits."""
    vocabulary = Vocabulary(pair.tokenizer._tokenizer, [EOS], VOCAB - 70)
    walk = GrammarWalk(vocabulary, vocabulary.matcher(Grammar.regex("[ -~]+")))
    assert max(allowed(walk)) < VOCAB - 70
