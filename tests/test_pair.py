"""A drafter that was not made for the target is refused with the reason."""

import pytest

from mlx_ddtree.decoding.context import make_prompt_cache
from mlx_ddtree.errors import PairError, UnsupportedModelError
from mlx_ddtree.pair import Pair
from mlx_ddtree.target import PlainTarget, make_target

from .drafter.test_dflash2 import small_drafter2
from .every_model import mute_model
from .helpers import any_profile, small_drafter, small_pair, small_target
from .training.tiny import make_tokenizer


@pytest.mark.parametrize(
    ("drafter", "reason"),
    [
        (lambda t: small_drafter(small_target(hidden=64)), "hidden size 64, but the target's is 32"),
        (lambda t: small_drafter2(small_target(vocab=60)), "tables for 60 tokens.* vocabulary has 64"),
        (lambda t: small_drafter(t, taps=(0, 5)), r"taps layers \(0, 5\), but the target has layers 0..2"),
        (lambda t: small_drafter(t, taps=(0, 3)), "taps layers"),
        (lambda t: small_drafter(t, taps=(0, -1)), "taps layers"),
        (
            lambda t: small_drafter(t, dflash_config={"target_layer_ids": [0, 1, 2], "mask_token_id": 64}),
            "mask token 64",
        ),
    ],
)
def test_mismatches(drafter, reason):
    target = small_target()
    with pytest.raises(PairError, match=reason):
        Pair(target, drafter(target), make_tokenizer())


@pytest.mark.parametrize(("make", "vocab"), [(small_drafter, 48), (small_drafter, 96), (small_drafter2, 48)])
def test_a_target_with_a_resized_vocabulary(make, vocab):
    """Rows of the embedding that a fine-tune has cut or added: only tables by token have to reach as far."""
    from .decoding.test_lossless import PROMPT, our_tokens, stock_tokens, without_end

    pair = without_end(Pair(small_target(vocab=vocab), make(small_target(vocab=64)), make_tokenizer()))
    prompt = [token % vocab for token in PROMPT]
    assert our_tokens(pair, prompt, 24) == stock_tokens(pair, prompt, 24)


def test_layer_ids_that_the_drafter_leaves_out_are_derived():
    target = small_target(layers=9)
    Pair(target, small_drafter(target, dflash_config={"mask_token_id": 1}), make_tokenizer())
    assert target.taps == (1, 4, 6)


def test_a_refused_drafter_leaves_the_target_as_it_was():
    target = small_target()
    with pytest.raises(PairError):
        Pair(target, small_drafter(target, taps=(0, 5)), make_tokenizer())
    assert target.taps == ()


def plain_target():
    return make_target(mute_model())


def test_unknown_architectures_decode_plainly_and_say_so(caplog):
    from .decoding.test_lossless import PROMPT, our_tokens, stock_tokens, without_end

    target = plain_target()
    assert isinstance(target, PlainTarget)
    with pytest.raises(UnsupportedModelError, match=r"'qwen2'.*draft=False"):
        Pair(target, small_drafter(small_target()), make_tokenizer())
    pair = without_end(Pair(target, None, make_tokenizer()))
    assert our_tokens(pair, PROMPT, 24, method="ar") == stock_tokens(pair, PROMPT, 24)
    assert our_tokens(pair, PROMPT, 24) == stock_tokens(pair, PROMPT, 24)
    assert caplog.text.count("decoding plainly") == 1
    assert target.why in caplog.text


def test_a_pair_is_one_line():
    """At a prompt or in a log, networks of hundreds of lines are of no use."""
    assert repr(small_pair()) == "Pair(target='qwen3', drafter='DFlashDrafter', block_size=8)"
    assert repr(small_pair(drafter=False)) == "Pair(target='qwen3', drafter=None)"
    pair = small_pair()
    pair.notes |= {"target": "me/my-model", "drafter": "me/drafter", "adapter_folder": "/a"}
    assert repr(pair) == "Pair(target='me/my-model', drafter='me/drafter', block_size=8, adapter='/a')"


def test_prompt_cache_holds_target_then_drafter_layers():
    assert len(make_prompt_cache(small_pair())) == 3 + 2
    assert len(make_prompt_cache(small_pair(drafter=False))) == 3


def test_a_notebook_shows_what_was_loaded():
    """Names and sizes, without this machine's folders; what was measured once it was."""
    pair = small_pair()
    pair.notes |= {"target": "me/my-model", "drafter": "/somewhere/of/mine/my-drafter"}
    shown = pair._repr_html_()
    assert "me/my-model, qwen3" in shown and "mine/my-drafter, 2 layers, blocks of 8 tokens" in shown
    assert "/somewhere" not in shown + repr(pair) and "at the first answer" in shown
    pair.profile = any_profile()
    assert " ms, a draft " in pair._repr_html_()
    assert "none: what the text repeats" in pair.without_drafter()._repr_html_()
