"""Scores keep their place in the text when they cross from one tokenizer to another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mlx_ddtree.benchmarking.needles import needle_case
from mlx_ddtree.errors import OptionError
from mlx_ddtree.pflash.bridge import BridgedScorer, carry_over, fast_tokenizer, token_spans, whole_words
from mlx_ddtree.pflash.lexical import LexicalScorer
from mlx_ddtree.pflash.selection import Selection, select


@pytest.fixture(scope="module")
def byte_level():
    """As Qwen's and Llama 3's: bytes, so that a token may be part of a character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    tokenizer.train_from_iterator([needle_case("prose", 60_000, 0.5, 1).text], trainer)
    return tokenizer


@pytest.fixture(scope="module")
def metaspace():
    """As Llama 2's and Gemma's: spaces as a letter, characters it does not know as bytes; other text, other tokens."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([needle_case("code", 60_000, 0.5, 2).text], trainer)
    return tokenizer


TEXTS = st.text(st.sampled_from("abc def\n_é中😀▁ "), max_size=60)


@given(text=TEXTS)
def test_every_token_has_its_characters(byte_level, metaspace, text):
    for tokenizer in (byte_level, metaspace):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        said, spans = token_spans(tokenizer, ids)
        assert said == tokenizer.decode(ids, skip_special_tokens=False)
        covered = np.zeros(len(said), bool)
        for first, end in spans:
            covered[first:end] = True
        assert covered.all() and (np.diff(spans[:, 0]) >= 0).all()


def test_spans_equal_the_tokenizers_own_offsets(byte_level):
    text = needle_case("code", 5000, 0.5, 3).prompt + " é中😀 <|end|>"
    encoded = byte_level.encode(text)
    said, spans = token_spans(byte_level, encoded.ids)
    assert said == text and spans.tolist() == [list(offset) for offset in encoded.offsets]


@given(ids=st.lists(st.integers(0, 699), max_size=40))
def test_tokens_that_no_text_encodes_to_have_characters_too(byte_level, ids):
    said, spans = token_spans(byte_level, ids)
    assert spans.shape == (len(ids), 2) and (spans >= 0).all() and (spans <= len(said)).all()
    assert said == "" or spans.max() == len(said)


@given(text=TEXTS, seed=st.integers(0, 999))
def test_a_tokens_score_is_the_largest_of_those_it_shares_characters_with(byte_level, metaspace, text, seed):
    rng = np.random.default_rng(seed)
    said, ours = token_spans(byte_level, byte_level.encode(text).ids)
    theirs = np.array(metaspace.encode(said).offsets, np.int64).reshape(-1, 2)
    scores = rng.random(len(theirs)).astype(np.float32)
    crossed = carry_over(scores, theirs, ours)
    assert len(crossed) == len(ours)
    for i, (first, end) in enumerate(ours):
        sharing = [s for s, (a, b) in zip(scores, theirs, strict=True) if a < end and b > first]
        assert crossed[i] == (max(sharing) if sharing else crossed[i - 1] if i else 0)


def test_a_tokenizer_bridged_to_itself_changes_nothing(byte_level):
    prompt = needle_case("prose", 4000, 0.5, 4).prompt
    ids = byte_level.encode(prompt.encode("ascii", "ignore").decode()).ids  # no tokens that are parts of characters
    plain, wrapped = LexicalScorer(), PreTrainedTokenizerFast(tokenizer_object=byte_level)
    for tail_end in (None, len(ids) - 7):
        bridged = BridgedScorer(plain, wrapped, wrapped)(ids, tail_end=tail_end)
        np.testing.assert_array_equal(bridged, plain(ids, tail_end=tail_end))


@pytest.mark.parametrize("kind", ["prose", "code"])
def test_a_needle_found_in_other_tokens_is_kept_whole(byte_level, metaspace, kind):
    found = 0
    for seed in range(10):
        case = needle_case(kind, 12_000, 0.1 + 0.08 * seed, seed)
        ids = byte_level.encode(case.prompt).ids
        scores = BridgedScorer(LexicalScorer(query=24), metaspace, byte_level)(ids)
        text, spans = token_spans(byte_level, ids)
        chosen = whole_words(select(scores, ids, 0.3, anchors=False), text, spans)
        needle = np.flatnonzero((spans[:, 0] < case.needle[1]) & (spans[:, 1] > case.needle[0]))
        found += set(needle) <= set(chosen.positions)
    assert found >= 8


def pick(kept, length):
    return Selection(np.array(sorted(kept), np.int32), length, len(kept), {"scores": len(kept)})


@given(text=TEXTS, seed=st.integers(0, 999))
def test_words_and_characters_are_whole(byte_level, text, seed):
    ids = byte_level.encode(text).ids
    said, spans = token_spans(byte_level, ids)
    kept = np.flatnonzero(np.random.default_rng(seed).random(len(ids)) < 0.3)
    grown = whole_words(pick(kept, len(ids)), said, spans)
    assert set(kept) <= set(grown.positions) and grown.forced["words"] == len(grown.positions) - len(kept)
    inside = set(grown.positions.tolist())
    for i in range(1, len(ids)):
        if spans[i, 0] < spans[i - 1, 1]:
            assert (i in inside) == (i - 1 in inside)  # one character
    for i in inside - set(kept.tolist()):  # nothing grows across white space
        between = [said[min(spans[i, 0], spans[j, 0]) : max(spans[i, 1], spans[j, 1])] for j in kept]
        assert any(len(piece.split()) == 1 or piece.isspace() for piece in between)
    again = whole_words(grown, said, spans)
    assert again.positions.tolist() == grown.positions.tolist()


def test_a_word_without_end_is_cut(byte_level):
    ids = byte_level.encode("qzx" * 30 + " short").ids
    said, spans = token_spans(byte_level, ids)
    assert len(whole_words(pick([3], len(ids)), said, spans).positions) == 1
    assert said[spans[whole_words(pick([len(ids) - 1], len(ids)), said, spans).positions[0], 0] :].strip() == "short"


def test_a_tokenizer_without_offsets_is_refused():
    with pytest.raises(OptionError, match="lexical"):
        fast_tokenizer(object())
