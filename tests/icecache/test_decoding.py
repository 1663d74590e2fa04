"""Decoding with a KV budget: what is exact stays exact, what is approximate says so, and caches stay whole."""

import json
from functools import cache

import pytest
from mlx_lm.models.cache import KVCache, QuantizedKVCache

from mlx_ddtree import Session, generate, make_prompt_cache, stream_generate
from mlx_ddtree.errors import OptionError, UnsupportedModelError
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.icecache.cache import IceLayer
from mlx_ddtree.icecache.options import IceCacheOptions
from mlx_ddtree.icecache.select import PageSet
from mlx_ddtree.icecache.store import ColdRows
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs.generate import main
from mlx_ddtree.target import PathTarget, PlainTarget

from .. import families

tiny_pair = cache(families.tiny_pair)  # measured once
KINDS = ["qwen3", "qwen3_5", "gpt_oss", "gemma4, shared keys"]
OTHERS = ["llama, no groups", "minimax", "qwen3_moe", "qwen3_next", "qwen3, one kv head", "gemma4, experts"]
PROMPT = [(7 * i * i + 3 * i) % 56 + 4 for i in range(90)]
SMALL = {"budget": 40, "page_size": 4, "sinks": 2, "window": 8, "full_layers": 1}


def options(**changes):
    return IceCacheOptions(**(SMALL | changes))


def tokens(pair, prompt=PROMPT, n=40, **how):
    return [t for r in stream_generate(pair, prompt, n, **how) for t in r.tokens]


SLOW = [pytest.param(family, marks=pytest.mark.slow) for family in OTHERS]


@pytest.mark.parametrize("family", [*KINDS, *SLOW])
def test_a_node_of_its_own_says_what_plain_decoding_says(family):
    """Under the same budget, whatever the tree: pages turn at the same places of the text."""
    pair = tiny_pair(family)
    responses = list(stream_generate(pair, PROMPT, 40, method="ar", kv_budget=options(select="node")))
    want = [t for r in responses for t in r.tokens]
    reads = responses[-1].statistics.as_dict()["kv_reads"]
    assert reads["read_tokens"] <= 40 < reads["context_tokens"]
    for how in ({"tree_budget": 9}, {"method": "dflash", "block_size": 8}, {}):
        assert tokens(pair, kv_budget=options(select="node"), **how) == want


@pytest.mark.parametrize(
    "kind", [{"formation": "dci"}, {"formation": "dci", "ranking": "tree"}, {"ranking": "page_mass"}]
)
@pytest.mark.parametrize("length", [20, 38, 70])
def test_so_it_does_where_the_budget_runs_out(kind, length):
    """From prompts within the budget on, across its end, with every way of making pages."""
    pair, how = tiny_pair("qwen3"), options(select="node", reuse=2, **kind)
    want = tokens(pair, PROMPT[:length], 50, method="ar", kv_budget=how)
    assert tokens(pair, PROMPT[:length], 50, tree_budget=12, kv_budget=how) == want


@pytest.mark.parametrize(
    ("family", "select"),
    [("qwen3", "root"), ("qwen3", "union"), ("qwen3", "node"), ("qwen3_5", "root"), ("gpt_oss", "node")],
)
def test_a_budget_for_everything_changes_nothing(family, select):
    pair = tiny_pair(family)
    want = tokens(pair, method="ar")
    for how in ({"method": "ar"}, {"method": "dflash"}, {"tree_budget": 9}, {}):
        assert tokens(pair, kv_budget=options(budget=len(PROMPT) + 40, select=select), **how) == want
        stream = stream_generate(pair, PROMPT, 400, kv_budget=options(budget=140, select=select), **how)
        said = []
        for response in stream:  # paged, and not short of anything before token 50
            said += response.tokens
            if len(said) >= 40:
                break
        assert said[:40] == want


def test_without_a_budget_caches_are_what_they_were():
    pair = tiny_pair("qwen3")
    cache = make_prompt_cache(pair)
    responses = list(stream_generate(pair, PROMPT, 10, prompt_cache=cache))
    assert {type(layer) for layer in cache} == {KVCache}
    assert "kv_reads" not in responses[-1].statistics.as_dict()


@pytest.mark.parametrize("select", ["root", "union"])
def test_the_report_says_what_was_read(select):
    pair = tiny_pair("qwen3")
    *_, last = stream_generate(pair, PROMPT, 40, tree_budget=9, kv_budget=options(select=select))
    reads = last.statistics.as_dict()["kv_reads"]
    assert reads["approximate"]
    assert (reads["paged_layers"], reads["full_layers"]) == (3, 1)
    assert len(PROMPT) <= reads["context_tokens"] <= len(PROMPT) + 40
    assert 30 < reads["read_tokens"] <= 40
    assert f"{reads['read_tokens']:.0f} of {reads['context_tokens']:.0f} tokens" in last.statistics.lines()


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("family", ["qwen3", "qwen3_5"])
def test_an_interrupted_answer_goes_on_where_it_stopped(family, offload, tmp_path):
    pair, how = tiny_pair(family), {"method": "ar", "kv_budget": options(offload=tmp_path if offload else None)}
    want = tokens(pair, n=40, **how)
    cache = make_prompt_cache(pair)
    stream = stream_generate(pair, PROMPT, 40, prompt_cache=cache, **how)
    said = [t for _ in range(25) for t in next(stream).tokens]
    stream.close()
    assert said == want[:25]
    assert cache.token_ids == [*PROMPT, *said]
    assert all(
        layer.offset == len(cache.token_ids) for layer in cache[: pair.target.num_caches] if hasattr(layer, "offset")
    )
    assert any(isinstance(layer, IceLayer) for layer in cache)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize(
    ("owner", "name", "when"),
    [
        *((IceLayer, "attend_rows", n) for n in (3, 60)),
        *((PageSet, "extend", n) for n in (2, 8)),
        (ColdRows, "append", 9),
    ],
)
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_anywhere_leaves_the_cache_whole(owner, name, when, after, offload, tmp_path, monkeypatch):
    """Ctrl-C in the middle of a round: what was emitted is what the cache holds, and the text goes on as without."""
    pair, how = (
        tiny_pair("qwen3"),
        {"tree_budget": 9, "kv_budget": options(select="node", offload=tmp_path if offload else None)},
    )
    want = tokens(pair, n=40, **how)
    cache, said, calls, whole = make_prompt_cache(pair), [], [0], getattr(owner, name)

    def interrupted(*args, **more):
        calls[0] += 1
        if calls[0] == when and not after:
            raise KeyboardInterrupt
        result = whole(*args, **more)
        if calls[0] == when and after:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, name, interrupted)
    try:
        for response in stream_generate(pair, PROMPT, 40, prompt_cache=cache, **how):
            said += response.tokens
    except KeyboardInterrupt:
        pass
    assert said == want[: len(said)]
    held = cache.token_ids
    assert held == [*PROMPT, *said][: len(held)]
    assert len(held) >= len(PROMPT) - 1
    rest = [*PROMPT, *said][len(held) :] or [9]
    if rest != [9]:
        assert tokens(pair, rest, 40 - len(said), prompt_cache=cache, **how) == want[len(said) :]


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("family", ["qwen3", "qwen3_5"])
def test_conversations_are_continued_edited_and_forked(family, offload, tmp_path):
    """The session's caches hold the same tokens as without a budget, and what is new is read in full."""
    pair, how = tiny_pair(family), {"kv_budget": options(offload=tmp_path if offload else None), "method": "ar"}
    session, ids = Session(pair), list(PROMPT)
    for turn in range(3):
        ids = [*ids, 7 + turn, 9, 30]
        said = [t for r in session.stream(ids, 30, **how) for t in r.tokens]
        assert session.token_ids == [*ids, *said]
        assert session.reused == (0 if turn == 0 else len(ids) - 3)
        ids = [*ids, *said]
    edited = [*ids[:-20], 11, 12]
    other = session.fork(edited)
    for one in (session, other):
        said = [t for r in one.stream(edited, 30, **how) for t in r.tokens]
        assert one.token_ids == [*edited, *said]
    assert session.token_ids == other.token_ids
    full = [t for r in session.stream([*edited[:50], 5], 10) for t in r.tokens]
    if family == "qwen3":  # the prompt's own rows were computed in full: no trace of the budget is left
        assert full == tokens(pair, [*edited[:50], 5], 10)
    assert not list(tmp_path.iterdir())


def test_another_budget_makes_pages_anew():
    pair, cache = tiny_pair("qwen3"), None
    for budget in (60, 40):
        cache = make_prompt_cache(pair)
        tokens(pair, n=8, prompt_cache=cache, method="ar", kv_budget=options(budget=60))
        tokens(pair, [9, 8, 7], 8, prompt_cache=cache, method="ar", kv_budget=options(budget=budget))
        assert cache[1].reader.options.budget == budget


@pytest.mark.parametrize(("family", "full_layers"), [("deepseek_v3", 0), ("kimi_k25", 0), ("gemma4, shared keys", 2)])
def test_families_without_keys_to_page_are_refused_by_name(family, full_layers):
    """Latent attention; and layers whose keys others read too."""
    with pytest.raises(UnsupportedModelError, match=f"{family.split(',')[0]} has no layer"):
        generate(tiny_pair(family), PROMPT, 8, kv_budget=options(full_layers=full_layers))


def test_caches_of_other_kinds_are_refused():
    pair = tiny_pair("qwen3")
    quantised = [QuantizedKVCache(group_size=32) for _ in range(pair.target.num_caches)]
    with pytest.raises(OptionError, match="QuantizedKVCache"):
        generate(pair, PROMPT, 8, kv_budget=options(), prompt_cache=quantised)
    plain = Pair(PlainTarget(pair.target.model), None, pair.tokenizer)
    with pytest.raises(UnsupportedModelError, match="leave out"):
        generate(plain, PROMPT, 8, method="ar", kv_budget=options())
    by_paths = Pair(PathTarget(pair.target.model), None, pair.tokenizer)
    with pytest.raises(UnsupportedModelError, match="copies of its caches"):
        generate(by_paths, PROMPT, 8, kv_budget=options())
    with pytest.raises(UnsupportedModelError, match="first 9"):
        generate(pair, PROMPT, 8, kv_budget=options(full_layers=9))


def test_the_command_line(capsys, tmp_path):
    prompt = "Write a function that adds two numbers. " * 12
    arguments = ["--prompt", prompt, "--max-tokens", "12", "--json", "--method", "ar"]
    assert main([*arguments, "--kv-budget", "80", "--kv-page-size", "8", "--kv-offload", str(tmp_path)]) == 0
    reads = json.loads(capsys.readouterr().out)["statistics"]["kv_reads"]
    assert reads["read_tokens"] <= 80 < reads["context_tokens"]
    for wrong, says in (
        (["--kv-budget", "12"], "has no room for a page"),
        (["--kv-offload", str(tmp_path)], "give both"),
        (["--kv-budget", "80", "--kv-offload", str(tmp_path / "missing")], "no folder"),
    ):
        assert main([*arguments, *wrong]) == 2
        assert says in capsys.readouterr().err


def test_the_chat_has_it_as_settings():
    settings = GenerationOptions().with_text("kv_budget", "256")
    assert settings.make_icecache() == IceCacheOptions(256)
    assert GenerationOptions().make_icecache() is None
    with pytest.raises(OptionError, match="has no room"):
        settings.with_text("kv_budget", "10")


@pytest.mark.slow
def test_the_server_reads_in_part_and_says_so():
    """One budget for all its requests; sessions go on between them."""
    from ..server import running

    with (
        running.started(running.make_engine(kv_budget=IceCacheOptions(80, page_size=8))) as engine,
        running.serving(engine) as site,
    ):
        messages = [{"role": "user", "content": "Write a function that adds two numbers. " * 12}]
        for turn in range(2):
            reply = site.http.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 20}).json()
            reads = reply["mlx_ddtree"]["kv_reads"]
            assert reads["read_tokens"] <= 80 < reads["context_tokens"]
            cached = reply["usage"]["prompt_tokens_details"]["cached_tokens"]
            assert (cached > 100) == (turn > 0)
            messages += [reply["choices"][0]["message"], {"role": "user", "content": "And three numbers?"}]
