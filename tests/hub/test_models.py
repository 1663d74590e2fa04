"""mlx_ddtree.models: sizes are what mlx-lm's models have, what is here is what the cache holds, downloads are complete."""

import json
import re
import shutil

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from mlx_ddtree.errors import ConfigError, UnsupportedModelError
from mlx_ddtree.hub.cached import is_complete
from mlx_ddtree.hub.catalogue import public_pairs
from mlx_ddtree.hub.memory import WORKSPACE, mac_memory, machine_memory
from mlx_ddtree.hub.public_configs import PUBLIC_CONFIGS
from mlx_ddtree.hub.registry import DRAFTERS, PAIRS, find_drafter, find_pairs, find_target, resolve, usual_quantisation
from mlx_ddtree.hub.size import CacheSize, model_size, usual_drafter, usual_drafter_bytes
from mlx_ddtree.programs.models import main

from ..families import COMMON, FAMILIES, tiny_model
from ..helpers import save_drafter, save_target, small_drafter, small_target
from .loopback import running_hub
from .programs import run

TARGET, DRAFTER = "mlx-community/Qwen3-8B-4bit", "z-lab/Qwen3-8B-DFlash-b16"
PUBLISHED = {
    "Qwen/Qwen3-4B": 4.02,
    "Qwen/Qwen3-8B": 8.19,
    "Qwen/Qwen3-Coder-30B-A3B-Instruct": 30.5,
    "meta-llama/Llama-3.1-8B-Instruct": 8.03,
    "openai/gpt-oss-20b": 20.9,
    "openai/gpt-oss-120b": 117,
}
"""Billions of parameters, as the models' pages give them."""
NAMED = {"Qwen/Qwen3-Coder-Next": 80, "moonshotai/Kimi-K2.5": 1000}
"""Rounded; the other names hold theirs."""


@pytest.mark.parametrize("target", PUBLIC_CONFIGS)
def test_public_configs_have_the_parameters_that_are_published(target):
    """Or, where only a rounded number is known, those of their names (vision and MTP parts are not counted)."""
    count = model_size(PUBLIC_CONFIGS[target]).parameters / 1e9
    named = NAMED.get(target) or float(re.search(r"-(\d+)b", target.lower())[1])
    assert count == pytest.approx(named, rel=0.06)
    assert count == pytest.approx(PUBLISHED.get(target, count), rel=0.01)


def grown_bytes(caches):
    """Arrays of caches, attention's without the rows that are allocated ahead."""
    total = 0
    for cache in caches:
        if getattr(cache, "keys", None) is not None:
            rows = min(cache.offset, cache.keys.shape[2])
            total += sum(x[:, :, :rows].nbytes for x in (cache.keys, cache.values))
        else:
            total += sum(v.nbytes for _, v in tree_flatten(cache.state) if isinstance(v, mx.array))
    return total


@pytest.mark.parametrize("name", FAMILIES)
def test_cache_sizes_are_those_of_real_caches(name):
    """Every family: full attention, windows, latent keys, shared keys and recurrent states."""
    config = COMMON | FAMILIES[name]
    size = model_size(config).cache
    model = tiny_model(FAMILIES[name])
    model.set_dtype(mx.bfloat16)
    for tokens in (1, 30):
        caches = make_prompt_cache(model)
        model(mx.zeros((1, tokens), mx.int32), cache=caches)
        rotating = [c for c in caches if getattr(c, "max_size", None)]
        for cache in rotating:  # a prompt may overfill a ring until the next token
            assert cache.max_size == 12
        if tokens == 1 or not rotating:
            assert size.bytes(tokens) == grown_bytes(caches)


def test_windows_bound_what_grows():
    size = CacheSize(100, ((4, None), (4, 12)))
    assert [size.bytes(n) for n in (1, 12, 20)] == [108, 196, 228]
    windows, full = (model_size(COMMON | c).cache for c in (FAMILIES["gpt_oss"], {"model_type": "qwen3"}))
    assert windows.bytes(500) < full.bytes(500)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_weight_bytes_are_those_of_a_converted_model(bits):
    config = COMMON | {"model_type": "qwen3", "hidden_size": 64, "vocab_size": 128, "intermediate_size": 128}
    model = tiny_model({**config})
    model.set_dtype(mx.bfloat16)
    if bits < 16:
        nn.quantize(model, 64, bits)
    assert model_size(config).weights[bits] == sum(p.nbytes for _, p in tree_flatten(model.parameters()))


def test_names():
    assert resolve("qwen3-8b") == resolve("Qwen3-8B-4bit".removesuffix("-4bit")) == "Qwen/Qwen3-8B"
    assert resolve("me/anything") == "me/anything"
    assert find_target("Z-lab/qwen3-8b-dflash-b16") == "Qwen/Qwen3-8B"
    assert [t for t, _ in find_pairs(["27b", "3.6"])] == ["Qwen/Qwen3.6-27B"]


def test_a_pair_fits_where_its_parts_do():
    """The limit is the sum of the parts, to the byte."""
    [pair] = public_pairs(["qwen3-8b-dflash"], 1000, 10**12, [], {DRAFTER: 10**9})
    need = pair.variants[0].need
    assert need.cache == 1000 * 36 * 2 * 8 * 128 * 2
    assert need.drafter == 10**9 and not need.drafter_is_estimate
    assert need.total == need.weights + need.cache + 10**9 + need.drafter_cache + WORKSPACE
    for usable, fits in ((need.total, True), (need.total - 1, False)):
        [pair] = public_pairs(["qwen3-8b-dflash"], 1000, usable, [], {DRAFTER: 10**9})
        assert (pair.variants[0].fits, pair.fits) == (fits, fits)


@pytest.mark.parametrize("target", PUBLIC_CONFIGS)
def test_a_drafter_of_unknown_size_counts_as_a_usual_one(target):
    """Counted as nothing, a pair would fit where it does not."""
    [pair] = public_pairs([target, PAIRS[target]], 1000, 10**13, [], {})
    need = pair.variants[0].need
    assert need.drafter_is_estimate and need.drafter > 5e8 and need.drafter_cache > 0
    assert need.total == need.weights + need.cache + need.drafter + need.drafter_cache + WORKSPACE


@pytest.mark.parametrize(("target", "billions"), [("Qwen/Qwen3-8B", 1.05), ("Qwen/Qwen3-4B", 0.54)])
def test_the_estimate_is_near_published_drafters(target, billions):
    """z-lab's v1 drafters, whose pages say 1 B and 0.5 B parameters."""
    assert usual_drafter_bytes(usual_drafter(PUBLIC_CONFIGS[target])) == pytest.approx(2e9 * billions, rel=0.03)


@pytest.mark.parametrize(("sold", "usable"), [(16, 10.67), (24, 16), (32, 21.33), (36, 27), (64, 48), (128, 96)])
def test_a_mac_keeps_less_resident_than_it_has(sold, usable):
    """GiB that Metal recommends at most on Macs that are sold with so many GB."""
    assert mac_memory(sold).usable / 2**30 == pytest.approx(usable, abs=0.01)


def test_every_public_target_has_a_4_bit_repository_that_finds_its_drafter():
    for target, drafter in PAIRS.items():
        assert find_drafter(usual_quantisation(target)) == drafter


def test_this_machine_has_memory():
    memory = machine_memory()
    assert 1e9 < memory.usable < 1e13 and memory.what


def listed(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_list(capsys):
    everything = listed(capsys)
    known = [(target, drafter.repository) for target, drafters in DRAFTERS.items() for drafter in drafters]
    assert [(p["target"], p["drafter"]) for p in everything["pairs"]] == known
    runs = {p["target"]: p["verifies"] for p in everything["pairs"]}
    assert runs["Qwen/Qwen3-8B"] is True and runs["LiquidAI/LFM2.5-2.6B"] is None
    some = listed(capsys, "--fits", "--ram", "24", "--context", "4096")
    assert (some["memory"], some["context"]) == (16 * 2**30, 4096)
    names = {p["target"] for p in some["pairs"]}
    assert {"Qwen/Qwen3-8B", "openai/gpt-oss-20b"} <= names and "Qwen/Qwen3.6-27B" not in names
    assert main(["27b", "--ram", "36"]) == 0
    table = capsys.readouterr().out
    assert "(34.2)" in table and " 20.7 " in table  # 8 bits do not fit, 4 do
    assert "29.0 GB (what the GPU of a Mac with 36 GB may use)" in table and "--online asks the Hub" in table
    assert main(["--fits", "--ram", "1"]) == 0
    assert f"none of {len(known)} pairs fits 0.7 GB" in capsys.readouterr().out


def test_the_list_says_what_to_type(capsys):
    """A repository that a Mac of that size can hold in 4 bits, and whose drafter is found by its name."""
    assert main(["--ram", "24"]) == 0
    typed = re.search(r"--model (\S+) --prompt", capsys.readouterr().out)[1]
    assert typed == "mlx-community/gpt-oss-20b-MXFP4-Q4" and find_drafter(typed) == PAIRS["openai/gpt-oss-20b"]
    assert main(["122b", "--ram", "24"]) == 0
    table = capsys.readouterr().out
    assert "mlx-community/Qwen3.5-122B-A10B-4bit" in table and "--model" not in table
    for pair in listed(capsys)["pairs"]:
        assert find_drafter(pair["repository_4bit"]) == PAIRS[pair["target"]]


@pytest.mark.parametrize("size", ["nan", "-3", "0", "much", "inf"])
def test_sizes_of_memory_that_are_none_are_refused(size, capsys):
    with pytest.raises(SystemExit):
        main(["--ram", size])
    assert f"{size!r} is no size of memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing-like-it"], "no public pair's name holds nothing-like-it"),
        (["--revision", "v1"], "belong to --download"),
        (["--download", "qwen"], "close: Qwen/Qwen3-4B"),
        (["words", "--download", "me/unknown"], "takes one name"),
    ],
)
def test_refusals(arguments, message, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and len(err.splitlines()) == 1


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    target = small_target(bits=4)
    save_target(root / "target", target, quantization={"group_size": 32, "bits": 4})
    save_drafter(root / "drafter", small_drafter(target), shards=2)
    return root


@pytest.fixture
def hub(folders):
    with running_hub() as state:
        state.add(TARGET, folders / "target")
        state.add(DRAFTER, folders / "drafter", "main", "v1")
        yield state


def models(*arguments, home, **values):
    done = run("-m", "mlx_ddtree.models", *arguments, home=home, **values)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def test_download_and_list(hub, folders, tmp_path):
    """A pair is fetched once, found in the cache with its real size, and listed without a request."""
    result = models("--download", TARGET, "--draft-revision", "v1", "--json", home=tmp_path, HF_ENDPOINT=hub.url)
    assert result["drafter"] == DRAFTER
    assert result["target_revision"] == hub.repositories[TARGET].refs["main"]
    assert sorted(hub.downloads()) == sorted([*hub.files(TARGET), *hub.files(DRAFTER)])
    hub.requests.clear()
    again = models("--download", TARGET, "--draft-revision", "v1", "--json", home=tmp_path, HF_HUB_OFFLINE="1")
    assert again == result
    [pair] = models("qwen3-8b-dflash", "--json", home=tmp_path, HF_ENDPOINT=hub.url)["pairs"]
    assert hub.requests == []
    here = pair["variants"][-1]
    assert (here["repository"], here["bits"], pair["drafter_here"]) == (TARGET, 4, True)
    sizes = [sum(p.stat().st_size for p in (folders / f).glob("*.safetensors")) for f in ("target", "drafter")]
    assert [here["need"]["weights"], here["need"]["drafter"]] == sizes
    assert here["need"]["drafter_cache"] == 2 * 2 * 2 * 2 * 16 * 8192


def test_half_a_download_is_not_here(hub, tmp_path):
    """A target of which nothing came but its name is not listed as here."""
    hub.statuses[TARGET] = 500
    failed = models("--download", TARGET, home=tmp_path, HF_ENDPOINT=hub.url)
    assert "answers 500" in failed
    [pair] = models("qwen3-8b-dflash", "--json", home=tmp_path)["pairs"]
    assert pair["drafter_here"] and [v["repository"] for v in pair["variants"]] == [None] * 3


@pytest.mark.parametrize("index", [True, False])
def test_a_missing_shard_is_missed(index, folders, tmp_path):
    """Whether an index names it or only the other shards' names tell."""
    shutil.copytree(folders / "drafter", tmp_path / "d")
    shards = sorted(p.name for p in (tmp_path / "d").glob("*.safetensors"))
    if index:
        weight_map = {str(i): name for i, name in enumerate(shards)}
        (tmp_path / "d" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert is_complete(tmp_path / "d")
    (tmp_path / "d" / shards[0]).unlink()
    assert not is_complete(tmp_path / "d")
    (tmp_path / "d" / shards[1]).unlink()
    assert not is_complete(tmp_path / "d")


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 3}}', "null"])
def test_a_damaged_index_is_no_complete_model(text, folders, tmp_path):
    shutil.copytree(folders / "drafter", tmp_path / "d")
    assert is_complete(tmp_path / "d")
    (tmp_path / "d" / "model.safetensors.index.json").write_text(text)
    assert not is_complete(tmp_path / "d")


@pytest.mark.parametrize("damage", [{"num_hidden_layers": 10**9}, {"vocab_size": -5}, {"rope_scaling": "x"}])
def test_sizes_of_a_config_that_is_none_are_refused(damage):
    """The list reads configs of whatever lies in the Hub's cache."""
    with pytest.raises((ConfigError, UnsupportedModelError)):
        model_size(PUBLIC_CONFIGS["Qwen/Qwen3-8B"] | damage)


def test_sizes_from_the_hub(hub, folders, tmp_path):
    """--online asks for the drafters that are listed; one that the Hub does not have stays an estimate."""
    pairs = models("qwen3-", "b16", "--json", "--online", home=tmp_path, HF_ENDPOINT=hub.url)["pairs"]
    needs = {p["drafter"]: p["variants"][0]["need"] for p in pairs}
    size = sum(p.stat().st_size for p in (folders / "drafter").glob("*.safetensors"))
    assert needs[DRAFTER]["drafter"] == size and not needs[DRAFTER]["drafter_is_estimate"]
    unknown = needs["z-lab/Qwen3-4B-DFlash-b16"]
    assert unknown["drafter"] > 0 and unknown["drafter_is_estimate"]
    nobody = models("qwen3-8b", "--online", home=tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert nobody.startswith("error: ") and "check the connection" in nobody
