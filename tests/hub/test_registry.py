"""Names of public targets, and of anybody's quantisations of them, lead to their drafter."""

import pytest

from mlx_ddtree.hub.registry import PAIRS, find_drafter


@pytest.mark.parametrize(("target", "drafter"), PAIRS.items())
def test_public_targets(target, drafter):
    assert find_drafter(target) == drafter


@pytest.mark.parametrize(
    ("name", "drafter"),
    [
        ("mlx-community/Qwen3-8B-4bit", "z-lab/Qwen3-8B-DFlash-b16"),
        ("mlx-community/Qwen3-4B-bf16", "z-lab/Qwen3-4B-DFlash-b16"),
        ("mlx-community/Qwen3-8B-4bit-DWQ", "z-lab/Qwen3-8B-DFlash-b16"),
        ("lmstudio-community/Qwen3-8B-MLX-8bit", "z-lab/Qwen3-8B-DFlash-b16"),
        ("mlx-community/Meta-Llama-3.1-8B-Instruct-4bit", "z-lab/LLaMA3.1-8B-Instruct-DFlash-UltraChat"),
        ("mlx-community/gpt-oss-20b-MXFP4-Q8", "z-lab/gpt-oss-20b-DFlash"),
        ("/models/Qwen3.6-35B-A3B-6bit/", "z-lab/Qwen3.6-35B-A3B-DFlash"),
        ("Qwen/Qwen3-14B", None),
        ("mlx-community/Qwen3-8B-Base-4bit", None),
        ("someone/Qwen3-80B", None),
    ],
)
def test_quantisations_and_strangers(name, drafter):
    assert find_drafter(name) == drafter
