"""A target on several machines says what it says on one: every method, at temperature 0 and above, with its caches."""

import pytest

import mlx_ddtree

from .folders import save_pair
from .launch import Ranks
from .programs import decode_all, pair_of

pytestmark = pytest.mark.ranks
ONE_FOR_EACH = {"linear_num_key_heads": 4}  # mlx-lm splits gated delta layers by their heads
TENSOR = {
    "qwen3": {},
    "qwen3, one kv head": {},
    "qwen3_moe": {},
    "llama, windows": {},
    "qwen3_5": ONE_FOR_EACH,
    "qwen3_5_moe": ONE_FOR_EACH,
    "gpt_oss": {},
    "deepseek_v3": {},
    "kimi_k25": {},
    "minimax": {},
}
FOR_FOUR = [name for name in TENSOR if name != "minimax"]  # which normalises all keys together, so none can be repeated
PIPELINE = {"qwen3_moe": {}, "qwen3_5": ONE_FOR_EACH, "qwen3_next": {}, "deepseek_v3": {}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    wide = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}  # a rank's part has whole groups
    save_pair(root / "quantised", "qwen3", 4, **wide)
    return {
        name: str(save_pair(root / f"pair{i}", name, **TENSOR.get(name, {})))
        for i, name in enumerate(TENSOR | PIPELINE)
    } | {"embedded": "embedded", "4 bits": str(root / "quantised")}


@pytest.mark.parametrize(
    ("split", "ranks", "length", "parity", "names"),
    [
        ("tensor", 2, 16, "exact", ["qwen3", "qwen3_5"]),
        ("tensor", 2, 16, "off", ["embedded", "4 bits"]),
        pytest.param("tensor", 4, 5, "off", ["qwen3_5"], marks=pytest.mark.slow),  # four ranks on two cores
        ("pipeline", 2, 16, "off", ["qwen3_5"]),
        pytest.param("tensor", 2, 24, "exact", ["embedded", *TENSOR], marks=pytest.mark.slow),
        pytest.param("tensor", 4, 8, "off", ["embedded", "4 bits", *FOR_FOUR], marks=pytest.mark.slow),
        pytest.param("pipeline", 2, 24, "exact", list(PIPELINE), marks=pytest.mark.slow),
        pytest.param("pipeline", 3, 8, "off", list(PIPELINE), marks=pytest.mark.slow),
    ],
)
def test_the_same_tokens(split, ranks, length, parity, names, folders, tmp_path):
    chosen = [folders[name] for name in names]
    with Ranks(ranks, ["tests.distributed.programs", "answers", length, parity, split, *chosen], tmp_path) as started:
        results = iter(started.results(900))
    for folder in chosen:
        for want in decode_all(mlx_ddtree.load(*pair_of(folder)), length, parity):
            got = next(results)
            assert got["tokens"] == want["tokens"], (folder, want["how"])
            assert got["exchange"]["ranks"] == ranks
            assert got["exchange"]["payload_bytes"] > 0
