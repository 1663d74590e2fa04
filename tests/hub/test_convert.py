"""mlx_ddtree.convert: every public layout becomes a folder that loads and drafts, or nothing is left behind."""

import json
import shutil
import subprocess
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from huggingface_hub import ModelCard
from mlx.utils import tree_flatten

from mlx_ddtree import load, stream_generate
from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.drafter.make import make_drafter
from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.hub import convert as conversion
from mlx_ddtree.hub.convert import Quantisation, convert
from mlx_ddtree.hub.names import DEMO
from mlx_ddtree.programs.convert import main

from ..drafter.test_dflash2 import ASSISTANT, save2, small_drafter2
from ..helpers import public_config, save_drafter, save_target, sharpen, small_drafter, small_target

EMBEDDED = str(DEMO / "drafter")
Q4, Q8 = Quantisation(4, 32), Quantisation(8, 32)


def weights_of(drafter):
    return dict(tree_flatten(drafter.parameters()))


def z_lab(folder):
    drafter = small_drafter(small_target())
    save_drafter(folder, drafter)
    return drafter


def prefixed_shards(folder):
    drafter = small_drafter(small_target())
    save_drafter(folder, drafter, {f"model.{k}": v for k, v in weights_of(drafter).items()}, shards=3)
    return drafter


def dflash2(folder):
    drafter = small_drafter2(rank=32)
    save2(folder, drafter)
    return drafter


def metas(folder):
    mx.random.seed(2)
    drafter = make_drafter(DrafterConfig.from_dict(ASSISTANT), 3)
    sharpen(drafter)
    theirs = {"fc.weight": "encoder.fc.weight", "hidden_norm.weight": "encoder.output_norm_enc.weight"}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(ASSISTANT))
    stored = {theirs.get(name, name): p for name, p in weights_of(drafter).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), stored)
    return drafter


LAYOUTS = [z_lab, prefixed_shards, dflash2, metas]


def draft_of(drafter):
    """Hidden states of one draft over random features."""
    rng = np.random.default_rng(0)
    features, block = (mx.array(rng.normal(size=s), mx.float32) for s in ((1, 6, 96), (1, 8, 32)))
    return np.array(drafter(block, features, drafter.make_cache()).astype(mx.float32))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unquantised_is_the_same_drafter(layout, tmp_path):
    drafter = layout(tmp_path / "source")
    done = convert(str(tmp_path / "source"), tmp_path / "mlx")
    loaded = load_drafter(tmp_path / "mlx")
    ours, theirs = weights_of(loaded), weights_of(drafter)
    assert ours.keys() == theirs.keys() and all(mx.array_equal(ours[k], theirs[k]) for k in ours)
    assert loaded.config == drafter.config
    assert (done.dtype, done.quantization, done.bits_per_weight) == ("float32", None, 32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", [Q4, Q8], ids=["4 bits", "8 bits"])
def test_quantised_is_mlx_quantisation_of_it(layout, how, tmp_path):
    """Linear layers are what MLX quantises them to; a draft is the quantised network's, near the original's."""
    drafter = layout(tmp_path / "source")
    done = convert(str(tmp_path / "source"), tmp_path / "mlx", quantisation=how)
    loaded, before = load_drafter(tmp_path / "mlx"), draft_of(drafter)
    whole = ("candidate_selector", "kernel_projection")
    nn.quantize(
        drafter,
        32,
        how.bits,
        class_predicate=lambda p, m: hasattr(m, "to_quantized") and not any(w in p for w in whole),
    )
    np.testing.assert_array_equal(draft_of(loaded), draft_of(drafter))
    error = np.abs(draft_of(loaded) - before).mean() / np.abs(before).mean()
    assert error < {4: 0.8, 8: 0.1}[how.bits]
    assert done.quantization == {"group_size": 32, "bits": how.bits, "mode": "affine"}
    assert done.bits_per_weight < 32


def test_what_stays_whole(tmp_path):
    """Norms, base kernels, the convolutions' corrections and the selector; codebooks keep their public names."""
    dflash2(tmp_path / "source")
    convert(str(tmp_path / "source"), tmp_path / "mlx", quantisation=Q4, dtype="bfloat16")
    stored = mx.load(str(tmp_path / "mlx" / "model.safetensors"))
    whole = {name for name in stored if stored[name].dtype == mx.bfloat16 and not name.endswith(("scales", "biases"))}
    assert {"candidate_selector.predecessor_codebook", "candidate_selector.hidden_projection.weight"} <= whole
    assert {"layers.0.attention_conv.kernel_projection.weight", "layers.0.attention_conv.base_kernel"} <= whole
    assert {"norm.weight", "hidden_norm.weight", "layers.1.self_attn.q_norm.weight"} <= whole
    assert not [name for name in whole if "_proj.weight" in name or name == "fc.weight"]


@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
def test_undoing_a_quantisation(mode, tmp_path):
    """-d gives the values that the quantised layers stand for."""
    z_lab(tmp_path / "source")
    convert(str(tmp_path / "source"), tmp_path / "4bit", quantisation=Quantisation(group_size=32, mode=mode))
    convert(str(tmp_path / "4bit"), tmp_path / "back", dequantise=True)
    quantised, back = load_drafter(tmp_path / "4bit"), load_drafter(tmp_path / "back")
    layer = quantised.layers[0].mlp.up_proj
    expected = mx.dequantize(layer.weight, layer.scales, layer.get("biases"), 32, 4, mode)
    assert mx.array_equal(back.layers[0].mlp.up_proj.weight, expected)
    assert back.config.quantization is None


def test_the_public_config_is_kept(tmp_path):
    drafter = z_lab(tmp_path / "source")
    convert(str(tmp_path / "source"), tmp_path / "mlx", quantisation=Q4, dtype="float16")
    written = json.loads((tmp_path / "mlx" / "config.json").read_text())
    expected = json.loads(json.dumps(public_config(drafter))) | {"dtype": "float16"}
    settings = {"group_size": 32, "bits": 4, "mode": "affine"}
    expected |= {"quantization": settings, "quantization_config": settings}
    del expected["auto_map"]  # names torch code, which is not in the folder
    assert written == expected


def test_large_drafters_are_sharded(tmp_path, monkeypatch):
    """Every tensor is in the file that the index names."""
    drafter = dflash2(tmp_path / "source")
    monkeypatch.setattr(conversion, "make_shards", lambda w: [dict(list(w.items())[i::3]) for i in range(3)])
    convert(str(tmp_path / "source"), tmp_path / "mlx")
    index = json.loads((tmp_path / "mlx" / "model.safetensors.index.json").read_text())
    files = {p.name: set(mx.load(str(p))) for p in (tmp_path / "mlx").glob("*.safetensors")}
    assert sorted(files) == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert all(name in files[file] for name, file in index["weight_map"].items())
    assert index["metadata"]["total_size"] == sum(p.nbytes for p in weights_of(drafter).values())
    np.testing.assert_array_equal(draft_of(load_drafter(tmp_path / "mlx")), draft_of(drafter))


def test_the_embedded_drafter_still_drafts(tmp_path):
    """In 4 bits the text is the target's, and about as many drafted tokens are right."""
    convert(EMBEDDED, tmp_path / "mlx", quantisation=Quantisation(4))
    prompt = [{"role": "user", "content": "Write a function that reverses a string."}]
    options = {"tree_budget": 8, "parity": "off"}  # fp32, and nothing to be measured first
    runs = {}
    for name in (EMBEDDED, str(tmp_path / "mlx")):
        responses = list(stream_generate(load(draft=name), prompt, 64, **options))
        runs[name] = [t for r in responses for t in r.tokens], responses[-1].mean_acceptance_length
    (text, tau), (same_text, same_tau) = runs.values()
    assert text == same_text
    assert same_tau > 0.8 * tau > 3


def test_a_pair_with_a_converted_drafter(tmp_path):
    save_target(tmp_path / "target", small_target())
    z_lab(tmp_path / "source")
    convert(str(tmp_path / "source"), tmp_path / "mlx", quantisation=Q4, dtype="bfloat16")
    pair = load(str(tmp_path / "target"), str(tmp_path / "mlx"))
    runs = [
        stream_generate(pair, [5, 9, 23], 24, parity="off", **how) for how in ({"tree_budget": 8}, {"method": "ar"})
    ]
    texts = [[t for r in run for t in r.tokens] for run in runs]
    assert texts[0] == texts[1]


CARD = """---
license: other
license_name: tiny-licence
base_model: {base}
tags: [diffusion, mlx]
---
# Theirs
"""


@pytest.mark.parametrize("base", ["Qwen/Qwen3-8B", "[Qwen/Qwen3-8B, other/one]"])
def test_the_card(base, tmp_path):
    """Licence, target and tags come from the source; the text says how to use it."""
    z_lab(tmp_path / "source")
    (tmp_path / "source" / "README.md").write_text(CARD.format(base=base))
    (tmp_path / "source" / "LICENSE.txt").write_text("Be kind.")
    done = convert(str(tmp_path / "source"), tmp_path / "mlx", quantisation=Q4, name="me/tiny-4bit")
    card = ModelCard.load(tmp_path / "mlx" / "README.md", ignore_metadata_errors=False)
    assert (card.data.license, card.data.license_name, card.data.library_name) == ("other", "tiny-licence", "mlx")
    assert card.data.tags == ["mlx", "dflash", "speculative-decoding", "diffusion"]
    assert card.data.base_model_relation == "quantized"
    assert done.target == "Qwen/Qwen3-8B"
    assert (tmp_path / "mlx" / "LICENSE.txt").read_text() == "Be kind."
    for part in (
        "--model Qwen/Qwen3-8B --draft-model me/tiny-4bit",
        "| block size | 8 |",
        "4-bit affine, groups of 32",
        "That of the source: tiny-licence (LICENSE.txt).",
    ):
        assert part in card.text
    assert str(tmp_path) not in card.content


def test_a_source_without_a_card(tmp_path):
    z_lab(tmp_path / "source")
    (tmp_path / "source" / "README.md").write_text("---\n: [broken\n---\n")
    done = convert(str(tmp_path / "source"), tmp_path / "mlx", target="me/my-model")
    text = (tmp_path / "mlx" / "README.md").read_text()
    assert "The source states none; ask its authors." in text
    assert "--model me/my-model" in text and done.target == "me/my-model"


def damaged(damage):
    def make(folder):
        z_lab(folder)
        damage(folder)

    return make


def misshape(folder):
    weights = mx.load(str(folder / "model.safetensors"))
    mx.save_safetensors(str(folder / "model.safetensors"), weights | {"norm.weight": mx.zeros((5,))})


def quantise(folder):
    drafter = z_lab(folder)
    nn.quantize(drafter, 32, 4)
    save_drafter(folder, drafter, quantization={"group_size": 32, "bits": 4})


def unknown_mode(folder):
    drafter = z_lab(folder)
    nn.quantize(drafter, 32, 4)
    save_drafter(folder, drafter, quantization={"group_size": 32, "bits": 4, "mode": "magic"})


REFUSALS = [
    (lambda f: shutil.copytree(str(DEMO / "target"), f), [], "is a language model (Qwen3ForCausalLM), not a DFlash"),
    (lambda f: f.mkdir(), [], "config.json does not exist"),
    (damaged(lambda f: (f / "model.safetensors").unlink()), [], "no *.safetensors"),
    (damaged(lambda f: (f / "model.safetensors").write_bytes(b"garbage" * 9)), [], "model.safetensors cannot be read"),
    (damaged(misshape), [], "norm.weight has shape (5,), expected (32,)"),
    (z_lab, ["-q", "--q-bits", "7"], "MLX has no such quantisation"),
    (z_lab, ["-q", "--q-group-size", "48"], "MLX has no such quantisation"),
    (z_lab, ["-q", "--q-group-size", "128"], "no layer of this drafter can be quantised in groups of 128"),
    (z_lab, ["--q-bits", "8"], "belong to -q"),
    (z_lab, ["-d"], "nothing to dequantise"),
    (z_lab, ["--draft-revision", "v1"], "is a folder here, so it has no revision 'v1'"),
    (quantise, ["-q"], "quantised already"),
    (quantise, ["-q", "-d"], "choose either -q or -d"),
    (unknown_mode, [], "quantisation mode 'magic' is not known"),
    (z_lab, ["--upload-repo", "just-a-name"], "give owner/name"),
    (z_lab, ["--upload-repo", "me/--x..y"], "--upload-repo me/--x..y"),
]


@pytest.mark.parametrize(("make", "options", "message"), REFUSALS)
def test_refusals_leave_nothing_behind(make, options, message, tmp_path, capsys):
    """One line, exit code 2, and no folder, not even half of one."""
    make(tmp_path / "source")
    arguments = ["--hf-path", str(tmp_path / "source"), "--mlx-path", str(tmp_path / "mlx"), *options]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("[INFO]")]
    assert (out, len(lines)) == ("", 1) and lines[0].startswith("error: ") and message in lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_nothing_is_overwritten(tmp_path, capsys):
    z_lab(tmp_path / "source")
    (tmp_path / "mlx").mkdir()
    arguments = ["--hf-path", str(tmp_path / "source"), "--mlx-path", str(tmp_path / "mlx")]
    assert main(arguments) == 0  # an empty folder is filled
    before = (tmp_path / "mlx" / "README.md").stat().st_mtime_ns
    assert main([*arguments, "-q"]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert (tmp_path / "mlx" / "README.md").stat().st_mtime_ns == before
    (tmp_path / "file").write_text("mine")
    assert main(["--hf-path", str(tmp_path / "source"), "--mlx-path", str(tmp_path / "file")]) == 2
    assert (tmp_path / "file").read_text() == "mine"


def test_ctrl_c_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    """In the last moment before the folder is moved into place."""
    z_lab(tmp_path / "source")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "write_card", interrupted)
    assert main(["--hf-path", str(tmp_path / "source"), "--mlx-path", str(tmp_path / "mlx")]) == 130
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_disks_that_take_no_more(tmp_path):
    """A limit on file sizes stands for a full disk; a file stands where the folder's parent should be."""
    command = (
        f"ulimit -f 500; exec {sys.executable} -m mlx_ddtree.convert --hf-path {EMBEDDED} --mlx-path {tmp_path}/mlx"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}/mlx cannot be written (") and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(MlxDdtreeError, match="cannot be written"):
        convert(EMBEDDED, tmp_path / "file" / "mlx")


def test_output_for_machines_and_people(tmp_path, capsys):
    arguments = ["--hf-path", EMBEDDED, "--mlx-path", str(tmp_path / "new" / "mlx"), "-q"]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["quantization"] == {"group_size": 64, "bits": 4, "mode": "affine"}
    assert result["bytes"] == (tmp_path / "new" / "mlx" / "model.safetensors").stat().st_size
    assert (result["dtype"], result["url"], result["revision"]) == ("bfloat16", None, None)
    assert main(["--hf-path", EMBEDDED, "--mlx-path", str(tmp_path / "two")]) == 0
    assert "1.9 M parameters, 16.00 bits each, 3.8 MB" in capsys.readouterr().out
