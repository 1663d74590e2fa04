"""What is wrong with a call is said by the call, in a sentence; mlx-lm's own calls work."""

import inspect

import mlx_lm
import pytest
from mlx_lm.generate import generate_step

import mlx_ddtree
from mlx_ddtree import GenerationOptions, MlxDdtreeError, generate, make_sampler, stream_branches, stream_generate
from mlx_ddtree.errors import OptionError, PromptError

from ..helpers import small_pair

PROMPT = [5, 9, 23]


@pytest.fixture(scope="module")
def pair():
    return small_pair()


def test_mlx_lms_calls_work(pair):
    model, tokenizer = pair
    want = generate(pair, PROMPT, 8)
    assert generate(model, tokenizer, PROMPT, 8) == want
    assert generate(model, tokenizer, prompt=PROMPT, max_tokens=8) == want
    assert generate(model=model, tokenizer=tokenizer, prompt=PROMPT, max_tokens=8) == want
    assert "".join(r.text for r in stream_generate(model, tokenizer, PROMPT, max_tokens=8)) == want
    assert generate(model, tokenizer, PROMPT, 8, n=2, temp=0.7, seed=1) == generate(
        pair, PROMPT, 8, n=2, temp=0.7, seed=1
    )


@pytest.mark.parametrize("function", [mlx_lm.stream_generate, generate_step])
def test_mlx_lms_defaults_may_be_written_out(pair, function):
    """What a caller passes on from arguments of its own, None where nothing was asked for."""
    elsewhere = ("model", "tokenizer", "prompt", "stream", "kwargs", "max_tokens")
    parameters = inspect.signature(function).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.name not in elsewhere}
    assert defaults
    assert generate(pair, PROMPT, 8, **defaults) == generate(pair, PROMPT, 8)


def test_options_come_as_an_object_or_by_name(pair):
    options = GenerationOptions(max_tokens=8, temp=0.8, seed=3)
    want = generate(pair, PROMPT, 8, sampler=make_sampler(0.8, seed=3))
    assert generate(pair, PROMPT, options=options) == want
    assert generate(pair, PROMPT, 8, temp=0.8, seed=3) == want
    assert generate(pair, PROMPT, options=options.changed(max_tokens=3), max_tokens=8) == want


@pytest.mark.parametrize("call", [stream_generate, generate, lambda *a, **k: stream_branches(*a, n=2, **k)])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"prompt": None}, "the prompt is None"),
        ({"prompt": 3}, "the prompt is 3"),
        ({"prompt": b"abc"}, "the prompt is b'abc'"),
        ({"prompt": [1.5]}, "holds 1.5"),
        ({"prompt": {"role": "user", "content": "x"}}, "chat messages"),
        ({"sampler": 0.7}, "make_sampler"),
        ({"method": "foo"}, "unknown method 'foo'"),
        ({"max_tokens": 5.5}, "whole number"),
        ({"bogus_option": 1}, "no option 'bogus_option'"),
        ({"options": {"temp": 1}}, "GenerationOptions"),
        ({"tokenizer": "another"}, "its own tokenizer"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_at_the_call(pair, call, wrong, says):
    """Not when the first response is asked for: nothing is iterated here."""
    given = {"prompt": PROMPT, **({} if "options" in wrong or "sampler" in wrong else {"temp": 1.0})} | wrong
    with pytest.raises(MlxDdtreeError, match=says):
        call(pair, **given)


@pytest.mark.parametrize("first", ["Hello", None, 3])
def test_a_first_argument_that_is_no_pair_shows_the_call(first):
    with pytest.raises(OptionError, match=r"load\(\)"):
        generate(first, "Hello")


@pytest.mark.parametrize(
    "options",
    [{}, {"sampler": make_sampler(seed=1)}, {"temp": 1, "kv_budget": 99}, {"temp": 1, "n": 0}, {"temp": 1, "n": 2.5}],
    ids=str,
)
def test_several_answers_need_seeds_and_the_whole_prompt(pair, options):
    with pytest.raises(OptionError):
        stream_branches(pair, PROMPT, options.pop("n", 2), **options)


def test_a_drafter_that_is_missing_is_said_at_the_call(caplog):
    """Once; a block that the drafter cannot draft is refused there."""
    alone = small_pair(drafter=False)
    for _ in range(2):
        stream_generate(alone, PROMPT)
    assert caplog.text.count("no drafter for") == 1
    with pytest.raises(OptionError, match="2 to 8"):
        stream_generate(small_pair(), PROMPT, block_size=9)


def test_a_pair_shows_itself_in_one_line(pair):
    assert "\n" not in repr(pair) and len(repr(pair)) < 120 and "qwen3" in repr(pair)


def test_the_errors_of_load_are_exported():
    names = ("ConfigError", "WeightsError", "PairError", "UnsupportedModelError", "PromptError", "OptionError")
    for name in names:
        assert issubclass(getattr(mlx_ddtree, name), MlxDdtreeError) and name in mlx_ddtree.__all__


def test_a_prompt_may_be_numpys_or_mlxs(pair):
    import mlx.core as mx
    import numpy as np

    want = generate(pair, PROMPT, 4)
    assert generate(pair, np.array(PROMPT), 4) == want == generate(pair, mx.array(PROMPT), 4)
    assert generate(pair, list(np.array(PROMPT)), 4) == want
    with pytest.raises(PromptError):
        generate(pair, mx.array([PROMPT]), 4)
