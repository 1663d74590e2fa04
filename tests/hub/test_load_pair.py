"""load() from folders in the public layout; test_fetch.py has the Hub's."""

import gc
import shutil
import weakref

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_ddtree import MlxDdtreeError, Session, load, stream_generate
from mlx_ddtree.errors import ConfigError, PairError, WeightsError
from mlx_ddtree.hub.cached import Snapshot
from mlx_ddtree.hub.load_pair import drafter_here, drafter_name
from mlx_ddtree.target import TreeTarget

from ..drafter.layouts import LAYOUTS, random_tensors, save
from ..families import FAMILIES, tiny_target
from ..helpers import save_drafter, save_target, small_drafter, small_target


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    target = small_target()
    save_target(root / "Qwen3-8B-4bit", target)
    save_drafter(root / "drafter", small_drafter(target))
    return root


def answer(pair):
    return [t for r in stream_generate(pair, [5, 9, 23], 12) for t in r.tokens]


def test_folders(folders):
    pair = load(str(folders / "Qwen3-8B-4bit"), str(folders / "drafter"))
    assert pair.target.taps == (0, 1, 2)
    assert len(answer(pair)) > 0
    if mx.default_device() == mx.cpu:  # 16-bit products are slow there
        assert pair.target.embed(mx.array([[0]])).dtype == mx.float32
    assert pair.drafter.fc.weight.dtype == pair.target.embed(mx.array([[0]])).dtype


@pytest.mark.skipif(mx.default_device() != mx.cpu, reason="the rule is the CPU backend's")
def test_types_on_the_cpu(tmp_path):
    """16-bit weights compute in fp32 with the values they were stored with; quantised ones stay as they are."""
    target = small_target()
    save_target(tmp_path / "bf16", target)
    stored = mx.load(str(tmp_path / "bf16" / "model.safetensors"))["model.layers.0.mlp.up_proj.weight"]
    loaded = load(str(tmp_path / "bf16"), draft=False).target.model.layers[0].mlp.up_proj.weight
    assert (stored.dtype, loaded.dtype) == (mx.bfloat16, mx.float32)
    assert mx.array_equal(stored.astype(mx.float32), loaded)

    quantised = small_target(bits=4)
    save_target(tmp_path / "4bit", quantised, quantization={"group_size": 32, "bits": 4})
    save_drafter(tmp_path / "drafter", small_drafter(quantised))
    pair = load(str(tmp_path / "4bit"), str(tmp_path / "drafter"))
    layer = pair.target.model.layers[0].mlp.up_proj
    assert (layer.weight.dtype, layer.scales.dtype) == (mx.uint32, mx.bfloat16)
    assert pair.drafter.fc.weight.dtype == mx.bfloat16  # the drafter follows the target's activations
    assert len(answer(pair)) > 0


@pytest.mark.parametrize("name", ["qwen3_5", "gpt_oss", "gemma4, shared keys"])
def test_folders_of_other_families(name, tmp_path):
    """Nested text configs, states, rings and shared keys, from disk to tokens."""
    target = tiny_target(name)
    save_target(tmp_path / "target", target, **FAMILIES[name])
    save_drafter(tmp_path / "drafter", small_drafter(target))
    pair = load(str(tmp_path / "target"), str(tmp_path / "drafter"))
    assert isinstance(pair.target, TreeTarget)
    assert answer(pair) == [t for r in stream_generate(pair, [5, 9, 23], 12, method="ar") for t in r.tokens]


def test_a_quantised_drafter_beside_any_target(folders, tmp_path):
    drafter = small_drafter(small_target())
    nn.quantize(drafter, group_size=32, bits=4)
    save_drafter(tmp_path / "4bit", drafter, quantization={"group_size": 32, "bits": 4})
    pair = load(str(folders / "Qwen3-8B-4bit"), str(tmp_path / "4bit"))
    assert pair.drafter.fc.weight.dtype == mx.uint32
    assert answer(pair) == answer(load(str(folders / "Qwen3-8B-4bit"), str(folders / "drafter")))


def test_a_drafter_of_another_target(folders, tmp_path):
    save_drafter(tmp_path / "other", small_drafter(small_target(hidden=64)))
    with pytest.raises(PairError, match="hidden size 64"):
        load(str(folders / "Qwen3-8B-4bit"), str(tmp_path / "other"))


def test_without_drafter(folders):
    assert load(str(folders / "Qwen3-8B-4bit"), draft=False).drafter is None


def test_no_drafter_known(folders, tmp_path):
    """The target alone; who needs a name for the drafter hears that there is none."""
    unknown = str(shutil.copytree(folders / "Qwen3-8B-4bit", tmp_path / "my-model"))
    assert load(unknown).drafter is None
    with pytest.raises(PairError, match=r"draft=\.\.\. / --draft-model"):
        drafter_name(unknown, None)


def test_a_drafter_given_as_the_target_is_not_called_a_target_without_drafter(folders):
    with pytest.raises(ConfigError, match="no tokenizer"):
        load(str(folders / "drafter"))


@pytest.mark.parametrize("name", ["./not/there", "/not/there", "nothing", "a/b/c"])
def test_missing_folders(name):
    with pytest.raises(ConfigError, match="no such folder"):
        load(name, draft=False)


def test_broken_target(folders, tmp_path):
    shutil.copytree(folders / "Qwen3-8B-4bit", tmp_path / "t")
    weights = mx.load(str(tmp_path / "t" / "model.safetensors"))
    weights.pop("model.norm.weight")
    mx.save_safetensors(str(tmp_path / "t" / "model.safetensors"), weights)
    with pytest.raises(WeightsError, match=r"norm\.weight"):
        load(str(tmp_path / "t"), draft=False)
    (tmp_path / "t" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json"):
        load(str(tmp_path / "t"), draft=False)


def test_errors_share_one_base():
    assert issubclass(ConfigError, MlxDdtreeError)


def test_a_pair_that_is_given_up_gives_its_memory_back():
    """Loading again and again, with answers read to the end, left open or kept in a session."""
    gc.collect()
    before = mx.get_active_memory()
    for _ in range(3):
        pair = load()
        model = weakref.ref(pair.target.model)
        session = Session(pair)
        list(session.stream("def f(", 6, tree_budget=4, parity="off"))
        left_open = stream_generate(pair, "def g(", 6, tree_budget=4, parity="off")
        next(left_open)
        del pair, session, left_open
        gc.collect()
        assert model() is None
        assert mx.get_active_memory() - before < 2**20


def test_a_drafter_that_names_its_target_is_found_by_it(tmp_path, folders, caplog):
    """speculators' files do; and a target that is not theirs is said."""
    layout = LAYOUTS["speculators DSpark"]
    save(tmp_path / "speculator", layout, random_tensors(layout))
    cached = [
        Snapshot("me/another", "1", folders / "drafter"),
        Snapshot("RedHatAI/Qwen3-8B-speculator.dspark", "2", tmp_path / "speculator"),
    ]
    assert drafter_here("mlx-community/Qwen3-8B-4bit", cached) == "RedHatAI/Qwen3-8B-speculator.dspark"
    assert drafter_here("mlx-community/Qwen3-4B-4bit", cached) is None
    load(str(folders / "Qwen3-8B-4bit"), str(tmp_path / "speculator"))
    assert "was trained for" not in caplog.text
    shutil.copytree(folders / "Qwen3-8B-4bit", tmp_path / "Other-4bit")
    load(str(tmp_path / "Other-4bit"), str(tmp_path / "speculator"))
    assert "was trained for Qwen/Qwen3-8B, not for" in caplog.text
