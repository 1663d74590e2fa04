"""Checkpoints as people have them: whatever a folder says, the tokens of every method are stock mlx_lm's for that folder.

Adapters, quantisation that differs by layer, the text part of models that also see, and scaled rotary embeddings; tiny
random instances in float32, read from disk by both.
"""

import json

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.generate import generate_step
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_adapters, load_model

from mlx_ddtree import load
from mlx_ddtree.errors import PromptError
from mlx_ddtree.pair import Pair
from mlx_ddtree.target import TreeTarget

from ..decoding.test_lossless import PROMPT, our_tokens
from ..every_model import OWN
from ..families import COMMON, FAMILIES, LLAMA3_ROPE, divisible, tiny_model
from ..helpers import any_profile, small_drafter
from ..training.tiny import EOS, make_tokenizer

COUNT = 24
WAYS = [{"method": "ar"}, {"method": "dflash"}, {"tree_budget": 9}]


def write(folder, config, *, quantization=None, names=None, more=()):
    """A model's folder as it lies on the Hub.

    quantization: of config.json, whose keys are mlx-lm's; names: old and new beginnings of all weights' names, and of
    quantization's.  more: names of weights that text does not need.
    """
    config = COMMON | config
    model = tiny_model(config)
    if quantization is not None:
        nn.quantize(model, 32, 4, class_predicate=lambda path, m: quantization.get(path, divisible(path, m)))
    renamed = {_renamed(name, names): value for name, value in tree_flatten(model.parameters())}
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), renamed | {name: mx.ones((2, 2)) for name in more})
    if quantization is not None:
        by_path = {_renamed(path, names): value for path, value in quantization.items()}
        config = config | {"quantization": {"group_size": 32, "bits": 4} | by_path}
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": EOS}))
    make_tokenizer()._tokenizer.save_pretrained(folder)
    return folder


def _renamed(name, names):
    for old, new in names or ():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def write_adapter(folder, of, kind="lora", **parameters):
    """An adapter as mlx_lm.lora writes it, with weights that matter."""
    config = {"num_layers": 3, "lora_parameters": {"rank": 4, "scale": 2.0, "dropout": 0.0} | parameters}
    model, _ = load_model(of)
    model.freeze()
    if kind == "full":
        model.layers[1].unfreeze()
    else:
        linear_to_lora_layers(model, config["num_layers"], config["lora_parameters"], use_dora=kind == "dora")
    mx.random.seed(5)
    made = tree_map(lambda p: p + 0.3 * mx.random.normal(p.shape), model.trainable_parameters())
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config | {"fine_tune_type": kind}))
    mx.save_safetensors(str(folder / "adapters.safetensors"), dict(tree_flatten(made)))
    return folder


def stock_tokens(model, prompt=PROMPT * 3, count=COUNT):
    return [token for token, _ in generate_step(mx.array(prompt), model, max_tokens=count)]


def assert_tokens_are_stocks(folder, adapter=None, prompt=PROMPT * 3, count=COUNT):
    stock, _ = load_model(folder)
    if adapter is not None:
        stock = load_adapters(stock, str(adapter))
    expected = stock_tokens(stock, prompt, count)
    pair = load(str(folder), draft=False, adapter_path=adapter)
    assert isinstance(pair.target, TreeTarget)
    drafted = Pair(pair.target, small_drafter(pair.target), pair.tokenizer)
    drafted.profile = any_profile()
    drafted.tokenizer.eos_token_ids.clear()
    for way in WAYS:
        assert our_tokens(drafted, prompt, count, parity="off", **way) == expected, way
    return expected


HEAD_AND_TABLE = {"keys": ["model.embed_tokens", "lm_head", "model.layers.3.mlp.up_proj"]}
ADAPTERS = {
    "LoRA": ("qwen3", {}, None),
    "LoRA on 4 bits": ("llama, windows", {}, {}),
    "LoRA on experts": ("gpt_oss", {}, None),
    "LoRA on a recurrent hybrid": ("qwen3_5", {}, None),
    "LoRA on the table and the head": ("llama, no groups", HEAD_AND_TABLE, None),
    "LoRA on a table that is the head": ("qwen3", {"keys": ["model.embed_tokens"]}, {}),
    "DoRA on 4 bits": ("qwen3", {"kind": "dora"}, {}),
    "DoRA on the table and the head": ("llama, no groups", {"kind": "dora"} | HEAD_AND_TABLE, None),
    "fully fine-tuned layers": ("deepseek_v3", {"kind": "full"}, None),
    "LoRA on an unlisted family": ({"model_type": "qwen2"}, {"keys": ["model.embed_tokens"]}, None),
}


@pytest.mark.parametrize(("family", "options", "quantization"), ADAPTERS.values(), ids=ADAPTERS.keys())
def test_adapters(tmp_path, family, options, quantization):
    config = family if isinstance(family, dict) else FAMILIES[family]
    folder = write(tmp_path / "model", config, quantization=quantization)
    adapter = write_adapter(tmp_path / "adapter", folder, **options)
    plain, _ = load_model(folder)
    assert assert_tokens_are_stocks(folder, adapter) != stock_tokens(plain)


MIXED = {
    "layers.0.mlp.down_proj": {"group_size": 32, "bits": 8},
    "layers.1.self_attn.v_proj": {"group_size": 32, "bits": 6},
    "layers.1.mlp.up_proj": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    "layers.2.mlp.gate_proj": False,
    "embed_tokens": {"group_size": 32, "bits": 8},
}
GEMMA = [("language_model.model.", "model.language_model.")]
QUANTISED = {
    "llama": (FAMILIES["llama, no groups"], "model.", None),
    "head in 8 bits": (FAMILIES["llama, no groups"], "lm_head", None),
    "qwen3_5, below language_model": (FAMILIES["qwen3_5"], "language_model.model.", None),
    "gemma4, below model.language_model": (FAMILIES["gemma4, shared keys"], "language_model.model.", GEMMA),
}


@pytest.mark.parametrize(("config", "where", "names"), QUANTISED.values(), ids=QUANTISED.keys())
def test_quantisation_that_differs_by_layer(tmp_path, config, where, names):
    overrides = {where + path: value for path, value in MIXED.items()}
    if where == "lm_head":
        overrides = {where: {"group_size": 32, "bits": 8}}
    assert_tokens_are_stocks(write(tmp_path / "model", config, quantization=overrides, names=names))


SEEING = {
    "gemma3": ({"model_type": "gemma3"} | OWN["gemma3"], None),
    "gemma4": (FAMILIES["gemma4, shared keys"], GEMMA),
    "mistral3": ({"model_type": "mistral3"} | OWN["mistral3"], GEMMA),
    "qwen3_vl": ({"model_type": "qwen3_vl"} | OWN["qwen3_vl"], GEMMA),
    "kimi_k25": (FAMILIES["kimi_k25"], None),
    "lfm2-vl": ({"model_type": "lfm2-vl"} | OWN["lfm2-vl"], None),
}


@pytest.mark.parametrize(("config", "names"), SEEING.values(), ids=SEEING.keys())
def test_the_text_part_of_models_that_see(tmp_path, config, names):
    model = "model." if names else ""
    more = (f"{model}vision_tower.patch.weight", f"{model}multi_modal_projector.linear.weight")
    assert_tokens_are_stocks(write(tmp_path / "model", config, names=names, more=more))


SHORT = {"original_max_position_embeddings": 16}
SCALED = {
    "YaRN": ({"model_type": "qwen3"}, {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0} | SHORT, 512),
    "llama3": ({"model_type": "llama"}, LLAMA3_ROPE | SHORT, 512),
    "linear": ({"model_type": "llama"}, {"type": "linear", "factor": 4.0}, 64),
    "longrope": (
        {"model_type": "phi3", "original_max_position_embeddings": 16},
        {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4} | SHORT,
        512,
    ),
    "dynamic": ({"model_type": "qwen3"}, {"rope_type": "dynamic", "factor": 4.0}, 16),
    "dynamic, unlisted family": ({"model_type": "qwen2"}, {"type": "dynamic", "factor": 4.0}, 16),
}
"""A family, its rope_scaling, and its max_position_embeddings: every text goes behind 16 positions."""


@pytest.mark.parametrize(("family", "scaling", "stated"), SCALED.values(), ids=SCALED.keys())
def test_scaled_rotary_embeddings(tmp_path, family, scaling, stated):
    config = family | {"rope_scaling": scaling, "max_position_embeddings": stated}
    assert_tokens_are_stocks(write(tmp_path / "model", config), prompt=PROMPT * 2)


@pytest.mark.parametrize(("scaling", "limit"), [(None, 16), ({"type": "linear", "factor": 2.0}, 32)])
def test_texts_end_where_the_context_does(tmp_path, scaling, limit):
    """Up to there stock's tokens; a prompt that is longer is refused in one line."""
    config = {"model_type": "llama", "rope_scaling": scaling, "max_position_embeddings": 16}
    folder = write(tmp_path / "model", config)
    assert_tokens_are_stocks(folder, prompt=PROMPT, count=limit - len(PROMPT))
    pair = load(str(folder), draft=False)
    pair.tokenizer.eos_token_ids.clear()
    assert len(our_tokens(pair, PROMPT, 100, method="ar")) == limit - len(PROMPT)
    with pytest.raises(PromptError, match=f"ends at {limit}"):
        our_tokens(pair, [5] * limit, 1, method="ar")
