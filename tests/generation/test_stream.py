"""Where the text ends, what the responses say, and what is left behind."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache as mlx_lm_cache

from mlx_ddtree import generate, make_prompt_cache, make_sampler, stream_generate
from mlx_ddtree.decoding.text import StopStrings
from mlx_ddtree.errors import OptionError, PromptError

from ..decoding.test_lossless import METHODS, PROMPT, our_tokens, stock_tokens, without_end
from ..helpers import small_pair


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_max_tokens_is_exact(method, count):
    pair = without_end(small_pair())
    responses = list(stream_generate(pair, PROMPT, count, method=method))
    assert sum(len(r.tokens) for r in responses) == count == responses[-1].generation_tokens
    assert responses[-1].finish_reason == "length"
    assert [r.finish_reason for r in responses[:-1]] == [None] * (len(responses) - 1)


@pytest.mark.parametrize("method", METHODS)
def test_stops_at_an_end_token_inside_a_path(method):
    """Whatever token ends the text, wherever it stands in a round, the text stops right there."""
    pair = without_end(small_pair())
    tokens = our_tokens(pair, PROMPT, 40, method="ar")
    for end in set(tokens[3:25]):
        pair.tokenizer.eos_token_ids.add(end)
        responses = list(stream_generate(pair, PROMPT, 40, method=method))
        pair.tokenizer.eos_token_ids.clear()
        got = [t for r in responses for t in r.tokens]
        assert got == tokens[: tokens.index(end) + 1]
        assert responses[-1].finish_reason == "stop"


@pytest.mark.parametrize("method", METHODS)
def test_stop_string_ends_the_text_and_is_not_part_of_it(method):
    pair = without_end(small_pair())
    whole = generate(pair, PROMPT, 40, method="ar")
    stop = whole[12:15]
    responses = list(stream_generate(pair, PROMPT, 40, method=method, stop=[stop, "never there"]))
    assert "".join(r.text for r in responses) == whole[: whole.index(stop)]
    assert responses[-1].finish_reason == "stop"


def test_stop_strings_hold_back_only_what_may_become_one():
    stops = StopStrings(["END", "Enough"])
    assert [stops.feed(s) for s in ("a", "bE", "N", "x", "EN", "DE")] == ["a", "b", "", "ENx", "", ""]
    assert stops.found
    held = StopStrings(["END"])
    assert held.feed("xEN") + held.flush() == "xEN"


@pytest.mark.parametrize("method", METHODS)
def test_text_is_the_decoded_tokens(method):
    pair = without_end(small_pair())
    responses = list(stream_generate(pair, PROMPT, 30, method=method))
    tokens = [t for r in responses for t in r.tokens]
    assert "".join(r.text for r in responses) == pair.tokenizer.decode(tokens)


@pytest.mark.parametrize("method", METHODS)
def test_logprobs_are_those_of_plain_decoding(method):
    pair = without_end(small_pair())
    responses = list(stream_generate(pair, PROMPT, 24, method=method))
    ours = np.concatenate([np.array(r.logprobs) for r in responses])
    tokens = [t for r in responses for t in r.tokens]
    logits = pair.target.model(mx.array([[*PROMPT, *tokens]]))[0, len(PROMPT) - 1 : -1]
    want = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    np.testing.assert_allclose(ours, want, atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_statistics_add_up(method):
    pair = without_end(small_pair())
    *_, last = responses = list(stream_generate(pair, PROMPT, 40, method=method, tree_budget=12))
    assert last.rounds == len(responses) - 1
    assert last.mean_acceptance_length == pytest.approx(39 / last.rounds)
    assert all(r.acceptance_length >= len(r.tokens) for r in responses)
    assert all(r.nodes == {"ar": 0, "dflash": r.nodes, "ddtree": 12}[method] for r in responses[1:])
    assert last.prompt_tokens == len(PROMPT)
    assert last.seconds["verify"] > 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", [1, 5, 12])
def test_a_prompt_cache_is_continued_as_in_mlx_lm(method, first):
    """Two calls over one cache see the same context as mlx-lm's two calls over one cache."""
    pair = without_end(small_pair())
    cache, stock = make_prompt_cache(pair), mlx_lm_cache(pair.target.model)
    answer = our_tokens(pair, PROMPT, first, method=method, prompt_cache=cache)
    assert answer == stock_tokens(pair, PROMPT, first, prompt_cache=stock)
    assert {c.offset for c in cache} == {len(PROMPT) + first}
    if stock[0].offset < len(PROMPT) + first:  # mlx-lm leaves the last token out when it stops by length
        pair.target.model(mx.array([[answer[-1]]]), cache=stock)
    follow = [8, 3, 30]
    assert our_tokens(pair, follow, 20, method=method, prompt_cache=cache) == stock_tokens(
        pair, follow, 20, prompt_cache=stock
    )


@pytest.mark.parametrize("method", ["ar", "dflash"])
def test_every_method_leaves_the_same_caches(method):
    """Target's and drafter's keys and values are those of the text, whoever produced it."""
    pair = without_end(small_pair())
    ours, tree = make_prompt_cache(pair), make_prompt_cache(pair)
    our_tokens(pair, PROMPT, 20, method=method, prompt_cache=ours)
    our_tokens(pair, PROMPT, 20, method="ddtree", prompt_cache=tree)
    for a, b in zip(ours, tree, strict=True):
        for x, y in zip(a.keys_and_values(), b.keys_and_values(), strict=True):
            np.testing.assert_allclose(np.array(x), np.array(y), atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_mlx_lms_own_cache_is_continued(method):
    """A cache of the target alone works too: the drafter just does not know what came before."""
    pair = without_end(small_pair())
    cache = mlx_lm_cache(pair.target.model)
    pair.target.model(mx.array([PROMPT]), cache=cache)
    want = stock_tokens(pair, [*PROMPT, 8, 3, 30], 20)
    assert our_tokens(pair, [8, 3, 30], 20, method=method, prompt_cache=cache) == want


@pytest.mark.parametrize("method", METHODS)
def test_closing_early_leaves_a_usable_cache(method):
    pair = without_end(small_pair())
    cache, seen = make_prompt_cache(pair), []
    stream = stream_generate(pair, PROMPT, 40, method=method, prompt_cache=cache)
    for _ in range(4):
        seen += next(stream).tokens
    stream.close()
    assert {c.offset for c in cache} == {len(PROMPT) + len(seen)}
    want = stock_tokens(pair, [*PROMPT, *seen, 8, 3], 20)
    assert our_tokens(pair, [8, 3], 20, method=method, prompt_cache=cache) == want


@pytest.mark.parametrize("method", ["dflash", "ddtree"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_interrupted_round_is_undone(method, call):
    """Ctrl-C in the middle of a round (here: in the sampler) leaves the caches as before the round."""
    pair = without_end(small_pair())
    calls = 0

    def sampler(log_probs):
        nonlocal calls
        calls += 1
        if calls == call + 1:
            raise KeyboardInterrupt
        return mx.argmax(log_probs, axis=-1)

    cache, seen = make_prompt_cache(pair), []
    with pytest.raises(KeyboardInterrupt):
        for response in stream_generate(pair, PROMPT, 40, method=method, prompt_cache=cache, sampler=sampler):
            seen += response.tokens
    assert {c.offset for c in cache} == {len(PROMPT) + len(seen)}
    want = stock_tokens(pair, [*PROMPT, *seen, 8, 3], 20)
    assert our_tokens(pair, [8, 3], 20, method=method, prompt_cache=cache) == want


def test_prompt_forms_agree():
    pair = small_pair()
    messages = [{"role": "user", "content": "hi there"}]
    ids = pair.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    text = pair.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    answers = {generate(pair, form, 12) for form in (messages, ids, mx.array(ids), text)}
    assert len(answers) == 1


def test_progress_is_reported_to_the_end():
    calls = []
    list(
        stream_generate(
            small_pair(), PROMPT * 4, 3, prefill_step_size=8, prompt_progress_callback=lambda *c: calls.append(c)
        )
    )
    assert calls == [(0, 24), (8, 24), (16, 24), (23, 24), (24, 24)]


@pytest.mark.parametrize(("asked", "said"), [(-1, 12), (100, 12), (12, 12), (11, 11)])
def test_generation_ends_at_the_context_limit(asked, said):
    pair = without_end(small_pair())
    assert pair.target.max_context == 512
    assert len(our_tokens(pair, [1] * 500, asked, method="ar")) == said


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompt": []}, PromptError, "empty"),
        ({"prompt": ""}, PromptError, "empty"),
        ({"prompt": [3, 64]}, PromptError, "vocabulary"),
        ({"prompt": [1] * 512}, PromptError, "context ends at 512"),
        ({"max_tokens": 0}, OptionError, "max_tokens"),
        ({"max_tokens": -2}, OptionError, "max_tokens"),
        ({"tree_budget": -1}, OptionError, "tree budget -1"),
        ({"tree_budget": 1025}, OptionError, "1024"),
        ({"block_size": 1}, OptionError, "block_size 1"),
        ({"block_size": 9}, OptionError, "2 to 8"),
        ({"method": "magic"}, OptionError, "ddtree, dflash, ar"),
        ({"prompt_cache": []}, OptionError, "layers"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    pair = small_pair()
    prompt = options.pop("prompt", PROMPT)
    with pytest.raises(error, match=message):
        next(iter(stream_generate(pair, prompt, options.pop("max_tokens", 5), **options)))


@pytest.mark.parametrize("options", [{"temp": -1}, {"temp": 1, "top_p": 2}, {"temp": 1, "min_p": -0.1}])
def test_bad_sampler_options_are_refused(options):
    with pytest.raises(OptionError):
        make_sampler(**options)


def test_a_pair_without_drafter_says_what_is_used(caplog):
    """In one line, and the tokens are those of plain decoding."""
    pair = without_end(small_pair(drafter=False))
    assert our_tokens(pair, PROMPT, 5) == our_tokens(pair, PROMPT, 5, method="ar")
    said = [record.message for record in caplog.records if "no drafter" in record.message]
    assert len(said) == 1 and "mlx_ddtree.train" in said[0]
