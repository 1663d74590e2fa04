"""Names of public targets, and of anybody's quantisations of them, lead to their drafter."""

import pytest

from mlx_ddtree.hub.registry import DRAFTERS, PAIRS, find_drafter, find_target


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
        ("/models/Qwen3.6-35B-A3B-6bit/", "incoai/Qwen3.6-35B-A3B-DFlash2"),
        ("mlx-community/Qwen3.8-27B-4bit", "incoai/Qwen3.8-27B-DFlash2"),
        ("someone/Qwen3.8-27B-oQ4", "incoai/Qwen3.8-27B-DFlash2"),
        ("unsloth/Qwen3.8-27B-UD-MLX-4bit", "incoai/Qwen3.8-27B-DFlash2"),
        ("someone/Qwen3.8-27B-OptiQ-4bit", "incoai/Qwen3.8-27B-DFlash2"),
        ("someone/Qwen3.8-27B-mxfp4", "incoai/Qwen3.8-27B-DFlash2"),
        ("someone/Qwen3.8-27B-NVFP4", "incoai/Qwen3.8-27B-DFlash2"),
        ("Qwen/Qwen3.6-27B-FP8", "z-lab/Qwen3.6-27B-DFlash"),
        ("mlx-community/Qwen3-8B-4bit-DWQ-lr9e8", "z-lab/Qwen3-8B-DFlash-b16"),
        ("mlx-community/gemma-4-31b-it-mixed_3_6", "z-lab/gemma-4-31B-it-DFlash"),
        ("someone/Muse-Glimmer-30B-oQ4", "incoai/Muse-Glimmer-30B-DFlash2"),
        (
            "nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-BF16",
            "nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4-DSpark",
        ),
        ("mlx-community/Qwen3-32B-4bit", None),
        ("someone/Qwen3.8-27B-abliterated-4bit", None),
        ("mlx-community/Qwen3-8B-Base-4bit", None),
        ("someone/Qwen3-80B", None),
    ],
)
def test_quantisations_and_strangers(name, drafter):
    assert find_drafter(name) == drafter


def test_every_drafter_leads_back_to_its_target():
    """However far down its target's list it stands."""
    for target, drafters in DRAFTERS.items():
        assert len({drafter.repository for drafter in drafters}) == len(drafters)
        for drafter in drafters:
            assert find_target(drafter.repository) == target and drafter.why
