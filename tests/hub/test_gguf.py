"""GGUF files: the folder that is written computes what the file's model computes, with the file's own numbers."""

import json

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from mlx_lm.models import llama

from mlx_ddtree.errors import WeightsError
from mlx_ddtree.hub.gguf import LAYERS, OUTSIDE, convert_gguf, dequantise, halves_apart, make_config, quantised_bits
from mlx_ddtree.hub.load_target import load_target

HEADS, KV_HEADS, WIDTH, LAYER_COUNT = 4, 2, 64, 2
PIECES = [chr(code) for code in range(33, 127)] + ["Ġ", "ab", "<|im_end|>", "<|im_start|>"]
END = len(PIECES) - 2


def llama_cpp_order(rows, heads):
    """What llama.cpp's converter does to the rows of queries and keys: the two halves of a head are interleaved."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


@pytest.fixture(scope="module")
def model():
    mx.random.seed(3)
    args = llama.ModelArgs(
        model_type="llama", hidden_size=WIDTH, num_hidden_layers=LAYER_COUNT, intermediate_size=96, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, rms_norm_eps=1e-5, vocab_size=len(PIECES), rope_theta=1e5, tie_word_embeddings=True,
    )  # fmt: skip
    made = llama.Model(args)
    mx.eval(made.parameters())
    return made


def facts():
    number = lambda x, dtype=mx.uint32: mx.array(x, dtype)  # noqa: E731
    return {
        "general.architecture": "llama",
        "llama.embedding_length": number(WIDTH),
        "llama.block_count": number(LAYER_COUNT),
        "llama.feed_forward_length": number(96),
        "llama.attention.head_count": number(HEADS),
        "llama.attention.head_count_kv": number(KV_HEADS),
        "llama.rope.dimension_count": number(WIDTH // HEADS),
        "llama.attention.layer_norm_rms_epsilon": number(1e-5, mx.float32),
        "llama.context_length": number(512),
        "llama.rope.freq_base": number(1e5, mx.float32),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": PIECES,
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.token_type": mx.array([1] * END + [3, 3], mx.int32),
        "tokenizer.ggml.bos_token_id": number(END + 1),
        "tokenizer.ggml.eos_token_id": number(END),
        "tokenizer.chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    }


def save(model, path, **changed):
    theirs = {ours: name for name, ours in (LAYERS | OUTSIDE).items()}
    tensors = {}
    for name, tensor in tree_flatten(model.parameters()):
        module, _, part = name.rpartition(".")
        layer = ""
        if module.startswith("model.layers."):
            number, module = module.removeprefix("model.layers.").split(".", 1)
            layer = f"blk.{number}."
        stem = theirs[module]
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(stem)
        tensors[f"{layer}{stem}.{part}"] = tensor if heads is None else llama_cpp_order(tensor, heads)
    mx.save_gguf(str(path), tensors, facts() | changed)
    return path


def test_the_folder_computes_what_the_model_computes(model, tmp_path):
    (tmp_path / "folder").mkdir()
    convert_gguf(save(model, tmp_path / "model.gguf"), tmp_path / "folder", quantised=True)
    loaded = load_target(str(tmp_path / "folder"))
    ids = mx.array([[5, 9, 2, 77, 40]])
    wanted = model(ids)
    got = loaded.target.model(ids)
    assert mx.allclose(got, wanted, atol=1e-5)
    assert loaded.target.args.rope_theta == 1e5
    assert loaded.tokenizer.eos_token_ids == {END}


def test_the_vocabulary_is_the_files(model, tmp_path):
    """Words, digits one by one, and special tokens that are matched as a whole and left out of texts."""
    (tmp_path / "folder").mkdir()
    convert_gguf(save(model, tmp_path / "model.gguf"), tmp_path / "folder", quantised=False)
    tokenizer = load_target(str(tmp_path / "folder")).tokenizer
    ids = tokenizer.encode("ab c12<|im_end|>")
    assert [PIECES[i] for i in ids] == ["ab", "Ġ", "c", "1", "2", "<|im_end|>"]
    assert tokenizer.decode(ids) == "ab c12<|im_end|>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab c12"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}]) == tokenizer.encode("ab")


@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 3))
def test_rows_come_back_from_llama_cpps_order(heads, half, width):
    rows = mx.arange(heads * 2 * half * width).reshape(heads * 2 * half, width)
    assert mx.array_equal(halves_apart(llama_cpp_order(rows, heads), heads), rows)


@pytest.mark.parametrize("bits", [4, 8])
def test_widened_weights_are_the_codes_times_scales_plus_biases(bits):
    codes = np.random.default_rng(1).integers(0, 2**bits, (3, 64)).astype(np.uint32)
    packed = (codes.reshape(3, -1, 32 // bits) << (np.arange(32 // bits) * bits).astype(np.uint32)).sum(
        -1, dtype=np.uint32
    )
    scales = np.random.default_rng(2).normal(size=(3, 2)).astype(np.float16)
    biases = np.random.default_rng(3).normal(size=(3, 2)).astype(np.float16)
    weights = {"m.weight": mx.array(packed), "m.scales": mx.array(scales), "m.biases": mx.array(biases)}
    assert quantised_bits(weights) == {"m": bits}
    wide = lambda x: np.repeat(x, 32, axis=1).astype(np.float32)  # noqa: E731
    got = np.array(dequantise(weights, {"m": bits})["m.weight"])
    np.testing.assert_allclose(got, codes * wide(scales) + wide(biases), rtol=1e-6, atol=1e-6)


def test_modules_of_other_bits_are_named_in_the_config():
    loaded = {name: x.item() if isinstance(x, mx.array) and not x.ndim else x for name, x in facts().items()}
    config = make_config(loaded, {"a": 4, "b": 4, "c": 8}, tied=True)
    assert config["quantization"] == {"group_size": 32, "bits": 4, "c": {"group_size": 32, "bits": 8}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"general.architecture": "gemma3"}, "'gemma3' model"),
        ({"tokenizer.ggml.pre": "qwen2"}, "take the model from the Hub"),
    ],
)
def test_what_is_not_read_is_refused_in_one_line(model, tmp_path, changed, said):
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsError, match=said):
        convert_gguf(save(model, tmp_path / "model.gguf", **changed), tmp_path / "folder", quantised=True)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model"])
def test_a_damaged_file_is_refused(tmp_path, content):
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read"):
        convert_gguf(file, tmp_path, quantised=True)


def test_the_config_can_be_written_as_json():
    loaded = {name: x.item() if isinstance(x, mx.array) and not x.ndim else x for name, x in facts().items()}
    assert json.loads(json.dumps(make_config(loaded, {}, tied=True)))["head_dim"] == WIDTH // HEADS
