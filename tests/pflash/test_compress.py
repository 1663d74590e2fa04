"""Compressed prompts in stream_generate: what stays, what is said about it, and what is refused."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import make_prompt_cache as mlx_lm_cache

from mlx_ddtree import load, make_prompt_cache, make_sampler, stream_generate
from mlx_ddtree.errors import OptionError, PromptError, UnsupportedModelError
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.bridge import BridgedScorer
from mlx_ddtree.pflash.compress import PrefillCompression
from mlx_ddtree.pflash.protect import QUESTION, template_spans, text_spans
from mlx_ddtree.pflash.scorers import scorer_of
from mlx_ddtree.pflash.scoring import TailAttentionScorer
from mlx_ddtree.target import PlainTarget

from .. import families
from ..helpers import save_target, small_target
from .test_positions import assert_close, masked_logits

PROMPT = np.random.default_rng(1).integers(3, 60, 120).tolist()
SMALL = {"chunk": 2, "least": 40, "keep_ratio": 0.4}
tiny_pair = cache(families.tiny_pair)


@cache
def demo():
    return load()


def scores(token_ids, progress=None):
    """A scorer of the test's own."""
    return np.random.default_rng(len(token_ids)).random(len(token_ids)).astype(np.float32)


def always(**options):
    return PrefillCompression("always", **({"scorer": scores} | SMALL | options))


def answer(pair, prompt, n=16, **options):
    responses = list(stream_generate(pair, prompt, n, **options))
    return (
        [t for r in responses for t in r.tokens],
        responses[-1],
        np.concatenate([np.array(r.logprobs) for r in responses]),
    )


def places(spans):
    return [i for first, end in spans for i in range(first, end)]


@pytest.mark.parametrize("scorer", [scores, "self", "lexical"])
def test_answers_follow_from_the_reported_spans(scorer):
    """They are those of the whole prompt when nobody may attend to what the report leaves out."""
    pair = tiny_pair("qwen3")
    tokens, last, logprobs = answer(pair, PROMPT, compression=always(scorer=scorer))
    report = last.compression
    kept = places(report.spans)
    assert len(kept) == report.kept_tokens == sum(report.forced.values())
    assert report.kept_tokens <= report.requested + 2 and kept[-1] == len(PROMPT) - 1
    logits = masked_logits(pair, [*PROMPT, *tokens[:-1]], kept, len(PROMPT))
    want = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    assert_close(logprobs, want)


@pytest.mark.parametrize("positions", ["original", "compact"])
def test_all_methods_say_the_same(positions):
    pair, compression = tiny_pair("qwen3"), always(positions=positions)
    for sampler in (None, make_sampler(0.9, seed=2)):
        said = [
            answer(pair, PROMPT, 40, compression=compression, sampler=sampler, **how)[0]
            for how in ({"method": "ar"}, {"method": "dflash"}, {"tree_budget": 9}, {})
        ]
        assert said[0] == said[1] == said[2] == said[3]


def test_the_scorers_time_is_part_of_the_first_tokens():
    _, last, _ = answer(tiny_pair("qwen3"), PROMPT, compression=always())
    seconds = last.compression.seconds
    assert seconds["first_token"] >= seconds["score"] + seconds["prefill"] > seconds["score"] > 0
    assert last.prompt_tps <= len(PROMPT) / (seconds["score"] + seconds["prefill"]) * 1.001
    assert "Prompt (approximate)" in last.compression.lines()
    assert last.compression.as_dict()["ratio"] == pytest.approx(len(places(last.compression.spans)) / 120, abs=1e-3)


@pytest.mark.parametrize(
    "compression",
    [
        None,
        PrefillCompression("off"),
        PrefillCompression("auto", scorer=scores),
        always(least=200),
        always(keep_ratio=1.0),
    ],
)
def test_prompts_that_are_not_concerned_stay_as_they_are(compression):
    pair = tiny_pair("qwen3")
    tokens, last, logprobs = answer(pair, PROMPT, compression=compression, tree_budget=5)
    plain, _, want = answer(pair, PROMPT, tree_budget=5)
    assert tokens == plain
    np.testing.assert_array_equal(logprobs, want)
    assert last.compression is None


def test_the_threshold_counts_tokens():
    options = PrefillCompression("auto", threshold=2000, scorer=scores)
    assert not options.concerns(2000) and options.concerns(2001)
    assert PrefillCompression("always").concerns(1024) and not PrefillCompression("always").concerns(1023)


def test_the_default_ratio_falls_with_length():
    ratio = PrefillCompression().ratio
    assert [ratio(n) for n in (2000, 10_000, 25_000, 40_000, 100_000, 10**6)] == pytest.approx(
        [0.5, 0.5, 0.35, 0.2, 0.1, 0.1]
    )


def test_too_much_protection_is_refused_or_reported():
    """Never an empty middle in silence."""
    pair, protect = tiny_pair("qwen3"), [(0, 119)]
    with pytest.raises(PromptError, match="protected"):
        answer(pair, PROMPT, compression=always(protect=protect))
    tokens, last, _ = answer(
        pair, PROMPT, compression=PrefillCompression("auto", 50, scorer=scores, protect=protect, **SMALL)
    )
    assert "protected" in last.compression.refused and last.compression.kept_tokens == 120
    assert tokens == answer(pair, PROMPT)[0]


def test_protected_spans_may_exceed_the_cap_and_the_report_says_by_how_much():
    _, last, _ = answer(tiny_pair("qwen3"), PROMPT, 2, compression=always(protect=[(10, 70)], keep_ratio=0.4))
    report = last.compression
    assert report.forced["protected"] == 61  # the last token too
    assert report.over == report.kept_tokens - report.requested - 2 > 0
    assert f"{report.over} above the cap" in report.lines()


def test_a_prompt_beyond_the_context_needs_compact_positions():
    pair, prompt = tiny_pair("qwen3"), (PROMPT * 5)[:550]  # its context ends at 512
    with pytest.raises(PromptError, match="compact"):
        answer(pair, prompt, compression=always())
    tokens, last, _ = answer(pair, prompt, compression=always(positions="compact"))
    assert len(tokens) == 16 and last.compression.kept_tokens < 300


def test_caches_that_know_no_gaps_are_refused():
    pair = tiny_pair("qwen3")
    with pytest.raises(OptionError, match="make_prompt_cache"):
        answer(pair, PROMPT, compression=always(), prompt_cache=mlx_lm_cache(pair.target.model))


def test_targets_without_positions_are_refused_by_name_and_take_compact_ones():
    target = PlainTarget(families.tiny_model({"model_type": "qwen2"}))
    pair = Pair(target, None, tiny_pair("qwen3").tokenizer)
    with pytest.raises(UnsupportedModelError, match=r"qwen2.*compact"):
        answer(pair, PROMPT, compression=always(), method="ar")
    with pytest.raises(UnsupportedModelError, match="lexical"):
        answer(pair, PROMPT, compression=always(scorer="self", positions="compact"), method="ar")
    tokens, last, _ = answer(pair, PROMPT, compression=always(positions="compact"), method="ar")
    assert tokens == answer(pair, [PROMPT[i] for i in places(last.compression.spans)], method="ar")[0]


@pytest.mark.parametrize(
    "wrong",
    [{"mode": "sometimes"}, {"positions": "none"}, {"keep_ratio": 0.0}, {"keep_ratio": 1.5}, {"threshold": -1}],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError):
        PrefillCompression(**wrong)


def test_what_is_no_scorer_is_refused():
    with pytest.raises(OptionError, match="lexical"):
        scorer_of(tiny_pair("qwen3"), 5)


def test_a_small_models_folder_is_a_scorer_with_either_tokenizer(tmp_path):
    """Of the target's own tokenizer it scores as it stands; of another one its scores cross over.  It is loaded once."""
    pair = tiny_pair("qwen3")
    save_target(tmp_path / "small", small_target(seed=4))
    folder = str(tmp_path / "small")
    assert isinstance(scorer_of(pair, folder), TailAttentionScorer)
    assert scorer_of(pair, folder) is scorer_of(pair, folder)
    _, last, _ = answer(pair, PROMPT, compression=always(scorer=folder), tree_budget=6)
    assert last.compression.scorer == folder and last.compression.ratio < 0.45
    bridged = scorer_of(demo(), folder)
    assert isinstance(bridged, BridgedScorer)
    ids = demo().tokenizer.encode("the sum of all numbers " * 30)
    assert bridged(ids).shape == (len(ids),) and len(set(bridged(ids).tolist())) > 5


CONTENT = st.text(st.sampled_from("ab \n<|im_start|>user:éß"), max_size=30)


@settings(max_examples=40)
@given(st.lists(CONTENT, min_size=1, max_size=6), CONTENT, st.booleans())
def test_only_what_users_and_assistants_said_may_go(contents, system, closed):
    """The tokens outside of the protected spans say parts of contents, in order, and nothing else."""
    tokenizer = demo().tokenizer
    messages = [{"role": "system", "content": system}] if closed else []
    messages += [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    spans = template_spans(tokenizer, messages, ids)
    assert places(spans) == sorted(set(places(spans)))
    free = [i for i in range(len(ids)) if i not in places(spans)]
    groups = np.split(np.array(free, int), np.flatnonzero(np.diff(free) > 1) + 1) if free else []
    said = [tokenizer.decode([ids[i] for i in group]) for group in groups]
    rest = iter(contents)
    assert all(any(piece in content for content in rest) for piece in said)


def test_a_short_last_question_stays_and_a_long_one_may_go():
    tokenizer = demo().tokenizer
    for words, stays in ((20, True), (2 * QUESTION, False)):
        messages = [{"role": "user", "content": "first " * 300}, {"role": "assistant", "content": "second " * 300}]
        messages.append({"role": "user", "content": "third " * words})
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        kept = set(places(template_spans(tokenizer, messages, ids)))
        dropped = tokenizer.decode([t for i, t in enumerate(ids) if i not in kept])
        assert "first" in dropped and "second" in dropped and ("third" in dropped) != stays


def test_tools_and_marked_texts_are_protected():
    tokenizer = demo().tokenizer
    text = "x = 1\n" * 200 + "SECRET = 42\n" + "y = 2\n" * 200 + "SECRET = 42\n"
    ids = tokenizer.encode(text)
    spans = text_spans(tokenizer, ids, ["SECRET = 42"])
    assert [tokenizer.decode(ids[a:b]).strip() for a, b in spans] == ["SECRET = 42"] * 2
    with pytest.raises(PromptError, match="does not occur"):
        text_spans(tokenizer, ids, ["nowhere"])


def test_a_template_that_rewrites_contents_gives_nothing_away():
    """What the template made of a content may go; what is not found stays."""
    tokenizer = demo().tokenizer
    for template in ("{% for m in messages %}[{{ m.role }}]{{ m.content | upper }}{% endfor %}[a]", "only this"):
        kwargs = {"chat_template": template}
        messages = [{"role": "system", "content": "rules"}, {"role": "user", "content": "long text " * 300}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, **kwargs)
        kept = set(places(template_spans(tokenizer, messages, ids, **kwargs)))
        dropped = tokenizer.decode([t for i, t in enumerate(ids) if i not in kept])
        assert dropped.strip() == ("LONG TEXT " * 300 if "upper" in template else "").strip()


def test_the_embedded_pair_with_chat_messages():
    """End to end: system prompt, question and template stay, the middle shrinks, drafts change nothing."""
    pair = demo()
    code = "\n".join(f"def function_{i}(a, b):\n    return a * {i} + b" for i in range(60))
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"{code}\n\nWhat is function_7?"},
    ]
    compression = PrefillCompression("always", keep_ratio=0.3, scorer="lexical", least=500)
    hows = ({"method": "ar"}, {"tree_budget": 8, "parity": "off"})
    said = [answer(pair, messages, 16, compression=compression, **how)[0] for how in hows]
    assert said[0] == said[1]
    prompt_cache = make_prompt_cache(pair)
    _, last, _ = answer(pair, messages, 2, compression=compression, prompt_cache=prompt_cache, method="ar")
    ids = pair.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    text = pair.tokenizer.decode([ids[i] for i in places(last.compression.spans)])
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>") and text.endswith(
        "What is function_7?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert last.compression.ratio < 0.4
    assert prompt_cache.coverage.gap == len(ids) - last.compression.kept_tokens
    assert prompt_cache.token_ids[: len(ids)] == ids
