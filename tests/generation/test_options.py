"""Options are declared once, checked when they are made, and refused in one line that says what to do."""

import argparse

import pytest
from mlx_lm.sample_utils import make_logits_processors

from mlx_ddtree import GenerationOptions, Grammar, OptionError, make_sampler
from mlx_ddtree.generation.options import DEFAULTS, FLAGS
from mlx_ddtree.icecache.options import IceCacheOptions
from mlx_ddtree.pflash.compress import PrefillCompression
from mlx_ddtree.programs import arguments
from mlx_ddtree.server.settings import RequestDefaults

from ..helpers import small_pair

WRONG = {
    "max_tokens": (5.5, 0, -2, "10", None, True, 2**70),
    "stop": ("", ["a", ""], [1], 3),
    "json_schema": ("no/such/file", "{", '{"type": "objekt"}', {"type": "object"}, 3),
    "regex": ("(a", 3),
    "grammar": ("no/such/file", "/", 3, ["start: x"]),
    "temp": (float("nan"), float("inf"), -1, "warm", None),
    "top_p": (2, -0.1, float("nan")),
    "min_p": (1.5, "0.1"),
    "min_tokens_to_keep": (0, 1.5),
    "top_k": (-1, 2.5),
    "xtc_probability": (1.1, -1),
    "xtc_threshold": (0.6,),
    "seed": (1.5, "one"),
    "repetition_penalty": (0, -1, float("inf")),
    "repetition_context_size": (0, -3),
    "sampler": (0.7, "greedy"),
    "logits_processors": ([0.1], "penalty"),
    "method": ("foo", None),
    "tree_budget": (-1, 1025, "many", 2.5),
    "block_size": (1, 2.5),
    "parity": ("maybe",),
    "memory": (3, ["a file"]),
    "prefill_step_size": (0, -1),
    "prefill_seconds": (0, -1, "long"),
    "max_kv_size": (0,),
    "kv_bits": (7, 0),
    "kv_group_size": (48,),
    "quantized_kv_start": (-1,),
    "prefill_compression": ("sometimes",),
    "prefill_threshold": (-1,),
    "prefill_keep_ratio": (0, 1.5),
    "prefill_scorer": (3,),
    "prefill_positions": ("random",),
    "prefill_protect": ([""],),
    "compression": ("auto",),
    "kv_keep_ratio": (0, 2),
    "kv_budget": (0, 3, 1.5),
    "kv_page_size": (-1,),
    "kv_offload": ("/nowhere",),
}
CASES = [(name, value) for name, values in WRONG.items() for value in values]


def test_every_option_has_a_wrong_value_here():
    assert WRONG.keys() == DEFAULTS.keys()


@pytest.mark.parametrize(("name", "value"), CASES, ids=str)
def test_wrong_values_are_refused_in_one_line(name, value):
    with pytest.raises(OptionError) as caught:
        GenerationOptions(**{name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("temperature", "temp"),
        ("tree_budgets", "tree_budget"),
        ("max_token", "max_tokens"),
        ("num_draft_tokens", "block"),
        ("guided_json", "json_schema"),
    ],
)
def test_unknown_names_are_refused_with_the_one_that_was_meant(name, meant):
    with pytest.raises(OptionError, match=f"no option '{name}'.*did you mean {meant}"):
        GenerationOptions().changed(**{name: 1})


@pytest.mark.parametrize(
    "both",
    [
        {"sampler": make_sampler(1, seed=1), "temp": 0.5},
        {"sampler": make_sampler(1, seed=1), "seed": 3},
        {"compression": PrefillCompression("auto"), "prefill_threshold": 5},
        {"kv_offload": "/tmp"},
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused(both):
    with pytest.raises(OptionError, match=r"twice|give both"):
        GenerationOptions(**both)


def test_a_form_is_a_file_a_text_or_an_object(tmp_path):
    """An answer has one at most."""
    assert GenerationOptions().make_grammar() is None
    schema, lark = tmp_path / "schema.json", tmp_path / "words.lark"
    schema.write_text(' {"type": "object"}')
    lark.write_text('start: "a"')
    for given in (str(schema), '{"type": "object"}'):
        assert GenerationOptions(json_schema=given).make_grammar().kind == "json_schema"
    assert GenerationOptions(grammar=str(lark)).make_grammar() == Grammar.lark('start: "a"')
    assert GenerationOptions(grammar=Grammar.regex("a")) == GenerationOptions(grammar=Grammar.regex("a"))
    assert GenerationOptions(regex="a").make_grammar() == Grammar.regex("a")
    with pytest.raises(OptionError, match="one form: give one of grammar, regex"):
        GenerationOptions(grammar=str(lark), regex="a")
    lark.write_bytes(b"\xff\xfe")
    with pytest.raises(OptionError, match="is not UTF-8 text"):
        GenerationOptions(grammar=str(lark))


def test_values_are_held_as_their_type():
    options = GenerationOptions(stop="end", temp=1, prefill_protect=["a"])
    assert options.stop == ("end",) and options.prefill_protect == ("a",)
    assert isinstance(options.temp, float)


def test_a_penalty_joins_a_sampler_and_processors_of_ones_own():
    own = make_logits_processors(presence_penalty=0.5)
    options = GenerationOptions(sampler=make_sampler(0.7), logits_processors=own, repetition_penalty=1.1)
    assert options.make_logits_processors()[0] is own[0]
    assert len(options.make_logits_processors()) == 2


def test_objects_are_made_of_the_single_options():
    tokenizer = small_pair().tokenizer
    sampler = GenerationOptions(temp=0.7, top_p=0.9, min_p=0.1, top_k=5, min_tokens_to_keep=2, seed=3)
    assert sampler.make_sampler(tokenizer) == make_sampler(0.7, 0.9, 0.1, 2, 5, seed=3)
    assert GenerationOptions(kv_budget=256).make_icecache() == IceCacheOptions(256)
    compression = GenerationOptions(prefill_compression="auto", prefill_threshold=9, prefill_keep_ratio=0.5)
    assert compression.make_compression() == PrefillCompression("auto", 9, 0.5)


def test_keywords_ask_for_the_same():
    options = GenerationOptions(temp=0.5, seed=2, prefill_compression="auto", kv_keep_ratio=0.5, stop=("x",))
    again = GenerationOptions(**options.keywords())
    assert again.make_compression() == options.make_compression()
    assert again.changed(compression=None, prefill_compression="auto") == options


def test_the_command_line_has_every_option_with_its_default():
    parser = argparse.ArgumentParser()
    arguments.add_generation_options(parser, max_tokens=77)
    assert arguments.generation_options(parser.parse_args([])) == GenerationOptions(max_tokens=77)
    flags = {action.dest for action in parser._actions} - {"help"}
    assert flags == FLAGS.keys()


def test_the_server_has_the_same_defaults():
    for name, value in vars(RequestDefaults()).items():
        assert value == (1024 if name == "max_tokens" else DEFAULTS[name])


def test_a_chat_sets_options_by_text():
    options = GenerationOptions().with_text("tree_budget", "8").with_text("seed", "3").with_text("stop", "end")
    assert (options.tree_budget, options.seed, options.stop) == (8, 3, ("end",))
    options = options.with_text("seed", "none").with_text("stop", "none").with_text("tree_budget", "auto")
    assert options == GenerationOptions()


def test_the_published_budget_has_its_sizes():
    made = GenerationOptions(kv_budget="published").make_icecache()
    assert made == IceCacheOptions(256, 16, sinks=32, window=32, formation="dci", ranking="tree")
    assert GenerationOptions().with_text("kv_budget", "published").make_icecache() == made
    assert GenerationOptions().with_text("kv_budget", "64").make_icecache() == IceCacheOptions(64)
    with pytest.raises(OptionError, match="pages of 16"):
        GenerationOptions(kv_budget="published", kv_page_size=8)
    with pytest.raises(OptionError, match="'published'"):
        GenerationOptions(kv_budget="large")
