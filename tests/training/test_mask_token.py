"""The mask token is one that no text holds and that the embedding has a row for, whatever the vocabulary looks like."""

import pytest

from mlx_ddtree.errors import OptionError
from mlx_ddtree.training.examples import Example
from mlx_ddtree.training.mask_token import choose_mask_token

from . import templates
from .tiny import EOS, MASK, VOCAB, make_special_tokenizer, make_tokenizer


def largest(tokenizer):
    return max(tokenizer.get_vocab().values())


def test_the_tokenizers_own_unless_the_data_use_it():
    tokenizer = make_tokenizer()
    assert choose_mask_token(tokenizer, VOCAB) == MASK
    assert choose_mask_token(tokenizer, VOCAB, [Example((), (5, MASK))]) == largest(tokenizer) + 1


def test_a_padded_embedding_has_a_row_behind_the_vocabulary():
    tokenizer = templates.qwen3()
    assert choose_mask_token(tokenizer, largest(tokenizer) + 5) == largest(tokenizer) + 1


def test_gaps_do_not_lead_to_an_id_in_use():
    """Counting tokens would give an id that one of the special tokens has."""
    tokenizer = templates.qwen3(gap=2)
    first_special = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert len(tokenizer.get_vocab()) in tokenizer.get_vocab().values()
    assert choose_mask_token(tokenizer, largest(tokenizer) + 2) == largest(tokenizer) + 1
    assert choose_mask_token(tokenizer, largest(tokenizer) + 1) == first_special - 1


@pytest.mark.parametrize(
    ("make", "token"),
    [(templates.smollm2, "<empty_output>"), (templates.llama3, "<|reserved_special_token_1|>")],
)
def test_an_unpadded_vocabulary_lends_an_unused_special_token(make, token):
    tokenizer = make()
    rows = largest(tokenizer) + 1
    chosen = choose_mask_token(tokenizer, rows)
    assert tokenizer.convert_ids_to_tokens(chosen) == token
    other = choose_mask_token(tokenizer, rows, [Example((3, chosen), None)])
    assert other != chosen
    assert other not in tokenizer.eos_token_ids


def test_where_nothing_is_left_it_is_said():
    tokenizer = templates.qwen3()
    with pytest.raises(OptionError, match=r"no special token is unused.*--mask-token"):
        choose_mask_token(tokenizer, largest(tokenizer) + 1)
    spoken = make_special_tokenizer(("<think>", "</think>", "<end>"), None, eos="<end>")
    with pytest.raises(OptionError, match="no special token is unused"):
        choose_mask_token(spoken, largest(spoken) + 1)


def test_a_given_token_is_checked():
    tokenizer = make_tokenizer()
    assert choose_mask_token(tokenizer, VOCAB, given=9) == 9
    for given in (VOCAB, -1):
        with pytest.raises(OptionError, match=f"--mask-token {given} is outside"):
            choose_mask_token(tokenizer, VOCAB, given=given)
    with pytest.raises(OptionError, match="stands in the training data"):
        choose_mask_token(tokenizer, VOCAB, [Example((9,), (EOS,))], given=9)
