"""The public drafters of each target, best first."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from mlx_ddtree.errors import ConfigError
from mlx_ddtree.hub.names import BROUGHT


class KnownDrafter(NamedTuple):
    """A public drafter.

    kind: the network, as docs/drafters.md calls it.  block: tokens of a draft, the root included; None where only its
        file says it.
    why: what speaks for it.  licence: where it is known without asking the Hub.
    own_tables: whether it brings an embedding and a head.
    """

    repository: str
    kind: str
    block: int | None
    why: str
    licence: str | None = None
    own_tables: bool = False


def _zlab(name: str, block: int | None = 16) -> KnownDrafter:
    return KnownDrafter(f"z-lab/{name}", "DFlash", block, "the paper's authors'")


def _inco(name: str, block: int | None = 8, licence: str | None = "apache-2.0") -> KnownDrafter:
    why = "pairs of tokens are scored, so trees and chains are longer than v1's"
    return KnownDrafter(f"incoai/{name}", "DFlash 2", block, why, licence)


def _deepspec(name: str) -> KnownDrafter:
    why = "16 to 18 % more accepted tokens than a DFlash of equal training (arXiv 2607.05147); carries its own head"
    return KnownDrafter(f"deepseek-ai/{name}", "DSpark", 8, why, own_tables=True)


def _redhat(name: str, block: int | None = 8) -> KnownDrafter:
    kind = "DSpark" if name.endswith("dspark") else "DFlash"
    return KnownDrafter(
        f"RedHatAI/{name}", kind, block, "trained on vLLM's outputs; may propose a part of the vocabulary"
    )


def _jetspec(name: str, block: int | None = None) -> KnownDrafter:
    return KnownDrafter(f"JetSpec/jetspec-{name}", "JetSpec", block, "causal; meant for trees of 256 nodes")


def _authors(name: str, kind: str, block: int | None, licence: str | None = None) -> KnownDrafter:
    return KnownDrafter(name, kind, block, "the target's authors'", licence)


DRAFTERS: dict[str, tuple[KnownDrafter, ...]] = {
    "Qwen/Qwen3-4B": (
        _zlab("Qwen3-4B-DFlash-b16"),
        _deepspec("dspark_qwen3_4b_block7"),
        _redhat("Qwen3-4B-speculator.dspark", None),
    ),
    "Qwen/Qwen3-8B": (_zlab("Qwen3-8B-DFlash-b16"), _deepspec("dspark_qwen3_8b_block7"), _jetspec("qwen3-8b", 16)),
    "Qwen/Qwen3-14B": (_deepspec("dspark_qwen3_14b_block7"),),
    "Qwen/Qwen3-Coder-30B-A3B-Instruct": (_zlab("Qwen3-Coder-30B-A3B-DFlash"),),
    "Qwen/Qwen3-Coder-Next": (_zlab("Qwen3-Coder-Next-DFlash"),),
    "Qwen/Qwen3.5-4B": (_zlab("Qwen3.5-4B-DFlash"),),
    "Qwen/Qwen3.5-9B": (_zlab("Qwen3.5-9B-DFlash"),),
    "Qwen/Qwen3.5-27B": (_zlab("Qwen3.5-27B-DFlash"),),
    "Qwen/Qwen3.5-35B-A3B": (_zlab("Qwen3.5-35B-A3B-DFlash"),),
    "Qwen/Qwen3.5-122B-A10B": (_zlab("Qwen3.5-122B-A10B-DFlash"),),
    "Qwen/Qwen3.6-27B": (_zlab("Qwen3.6-27B-DFlash"),),
    "Qwen/Qwen3.6-35B-A3B": (
        _inco("Qwen3.6-35B-A3B-DFlash2"),
        _zlab("Qwen3.6-35B-A3B-DFlash"),
        _redhat("Qwen3.6-35B-A3B-speculator.dspark", None),
        _jetspec("Qwen3.6-35B-A3B", 16),
    ),
    "Qwen/Qwen3.8-Flash-Next": (_inco("Qwen3.8-Flash-Next-DFlash2", 16, None),),
    "Qwen/Qwen3.8-27B": (
        _inco("Qwen3.8-27B-DFlash2"),
        _redhat("Qwen3.8-27B-speculator.dspark", 9),
        KnownDrafter("RadixArk/Qwen3.8-27B-DSpark", "DSpark", 8, "on a par with DFlash 2; small layers, YaRN"),
    ),
    "google/gemma-4-12B-it": (_zlab("gemma-4-12B-it-DFlash", None), _deepspec("dspark_gemma4_12b_block7")),
    "google/gemma-4-26B-A4B-it": (_zlab("gemma-4-26B-A4B-it-DFlash", None), _jetspec("gemma4-26B-A4B0-it")),
    "google/gemma-4-31B-it": (
        _zlab("gemma-4-31B-it-DFlash", None),
        _redhat("gemma-4-31B-it-speculator.dspark", None),
        _redhat("gemma-4-31B-it-speculator.dflash"),
    ),
    "meta-llama/Llama-3.1-8B-Instruct": (_zlab("LLaMA3.1-8B-Instruct-DFlash-UltraChat", None),),
    "openbmb/MiniCPM5-2B": (_authors("openbmb/MiniCPM5-2B-DSpark", "DSpark", None),),
    "openai/gpt-oss-20b": (_zlab("gpt-oss-20b-DFlash", None), _jetspec("gpt-oss-20b")),
    "openai/gpt-oss-120b": (_zlab("gpt-oss-120b-DFlash", None),),
    "MiniMaxAI/MiniMax-M2.7": (_zlab("MiniMax-M2.7-DFlash", None),),
    "MiniMaxAI/MiniMax-M3.1-Flash": (_inco("MiniMax-M3.1-Flash-DFlash2", None, None),),
    "moonshotai/Kimi-K2.5": (_zlab("Kimi-K2.5-DFlash", None),),
    "moonshotai/Kimi-K2.6": (_zlab("Kimi-K2.6-DFlash", None),),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (
        KnownDrafter(
            f"{BROUGHT}SmolLM2-135M-Instruct-DFlash", "DFlash", 8, "trained here; comes with this package", "apache-2.0"
        ),
    ),
    "LiquidAI/LFM2.5-1.2B-Instruct": (_authors("LiquidAI/LFM2.5-1.2B-Instruct-DSpark", "DSpark", 10, "lfm1.0"),),
    "LiquidAI/LFM2.5-2.6B": (_authors("LiquidAI/LFM2.5-2.6B-DSpark", "DSpark", 10),),
    "LiquidAI/LFM2.5-8B-A1B": (_authors("LiquidAI/LFM2.5-8B-A1B-DSpark", "DSpark", 10),),
    "LiquidAI/LFM2.5-24B-A2B": (_authors("LiquidAI/LFM2.5-24B-A2B-DSpark", "DSpark", 10),),
    "meta-models/Muse-Glimmer-30B": (
        _inco("Muse-Glimmer-30B-DFlash2", None),
        KnownDrafter(
            "DaoCloud/Muse-Glimmer-30B-DSpark", "DSpark", 16, "16 to 36 % more accepted than the assistant it began as"
        ),
        _authors("meta-models/Muse-Glimmer-30B-assistant", "DFlash", 16, "apache-2.0"),
    ),
    "nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4": (
        _authors("nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4-DSpark", "DSpark", 8, "openmdw-1.1"),
    ),
    "ornith-ai/Ornith-1.5-9B": (_authors("ornith-ai/Ornith-1.5-9B-DFlash", "DFlash", None),),
    "ornith-ai/Ornith-1.5-35B-A3B": (_authors("ornith-ai/Ornith-1.5-35B-A3B-DFlash", "DFlash", None),),
    "ornith-ai/Ornith-1.5-122B": (_inco("Ornith-1.5-122B-DFlash2", None, None),),
    "poolside/Laguna-XS-2.1": (_authors("poolside/Laguna-XS-2.1-DFlash", "Laguna", 16, "openmdw-1.1"),),
    "poolside/Laguna-S-2.1": (_authors("poolside/Laguna-S-2.1-DFlash", "Laguna", None),),
    "zai-org/GLM-5.3-Flash": (_inco("GLM-5.3-Flash-DFlash2", None, None),),
    "zai-org/GLM-5.3": (
        _inco("GLM-5.3-DFlash2", None, None),
        _redhat("GLM-5.3-speculator.dspark", None),
    ),
}
"""Target repository -> its drafters in the order in which they are to be tried.  A pair stands here as soon as its
drafter is public; whether its architecture can verify trees yet, `target.TREE_FAMILIES` says.  Names were compared with
the Hub's model cards and collections; a block, a licence or a target that none of them names is left out.  Qwen3's
DSpark drafters stand behind z-lab's because they bring an embedding and a head of 16 bits, each larger than a target's
in 4."""

PAIRS: dict[str, str] = {target: drafters[0].repository for target, drafters in DRAFTERS.items()}
"""Target repository -> the drafter that is used where none is named."""

OTHER_QUANTISATIONS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "mlx-community/SmolLM2-135M-Instruct",
    "meta-llama/Llama-3.1-8B-Instruct": "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit",
    "openai/gpt-oss-20b": "mlx-community/gpt-oss-20b-MXFP4-Q4",
    "openai/gpt-oss-120b": "mlx-community/gpt-oss-120b-MXFP4-Q4",
    "moonshotai/Kimi-K2.5": "mlx-community/Kimi-K2.5",
    "moonshotai/Kimi-K2.6": "mlx-community/Kimi-K2.6",
}
"""Public target -> its usual 4-bit repository, where the name is not the target's and -4bit."""

_QUANTISATION = re.compile(
    r"[-_](mlx|ud|optiq|dwq[a-z0-9]*|awq|gptq|oq[0-9]+[a-z]*|[0-9]+(\.[0-9]+)?-?bits?|bf16|fp16|fp8|int[48]|w[48]a(8|16)"
    r"|mxfp[48]|nvfp4|q[2-8](_[0-9a-z]+)*|gs[0-9]+|mixed_[0-9]_[0-9]|lr[0-9e.-]+)$"
)
"""What the names of quantisations end with, in any order; see tests/hub/test_registry.py."""


def find_drafter(target: str) -> str | None:
    """The drafter of a public target or of anybody's quantisation of it, or None.

    >>> find_drafter("mlx-community/Qwen3-8B-4bit")
    'z-lab/Qwen3-8B-DFlash-b16'
    """
    wanted = _plain_name(target)
    return next((drafter for known, drafter in PAIRS.items() if _plain_name(known) == wanted), None)


def usual_quantisation(target: str) -> str:
    """The 4-bit repository to type for a public target, by the names that mlx-community gives.

    >>> usual_quantisation("Qwen/Qwen3-8B")
    'mlx-community/Qwen3-8B-4bit'
    """
    return OTHER_QUANTISATIONS.get(target, f"mlx-community/{target.rsplit('/', maxsplit=1)[-1]}-4bit")


def find_target(drafter: str) -> str | None:
    """The public target that a public drafter's repository belongs to, or None."""
    wanted = drafter.rstrip("/").lower()
    pairs = ((target, known) for target, drafters in DRAFTERS.items() for known in drafters)
    return next((target for target, known in pairs if known.repository.lower() == wanted), None)


def find_pairs(words: Sequence[str]) -> list[tuple[str, KnownDrafter]]:
    """(target, drafter) of all pairs whose names hold every word, whatever their case; a target's best first."""
    return [
        (target, known)
        for target, drafters in DRAFTERS.items()
        for known in drafters
        if all(word.lower() in f"{target} {known.repository}".lower() for word in words)
    ]


def is_same_model(a: str, b: str) -> bool:
    """Whether two repositories or folders are one model by their names, however they are quantised."""
    return _plain_name(a) == _plain_name(b)


def resolve(name: str) -> str:
    """A target to download: a repository, or the public one that a short name means.

    >>> resolve("qwen3-8b")
    'Qwen/Qwen3-8B'
    """
    if "/" in name:
        return name
    found = [target for target in PAIRS if _plain_name(target) == name.lower()]
    if found:
        return found[0]
    close = ", ".join(dict.fromkeys(target for target, _ in find_pairs([name]))) or "mlx_ddtree.models lists them"
    raise ConfigError(f"no public pair is called {name!r} (close: {close}); or give a repository (owner/name)")


def _plain_name(repository: str) -> str:
    """The model's name without organisation, case, 'Meta-' and quantisation suffixes."""
    name = repository.rstrip("/").rsplit("/", maxsplit=1)[-1].lower().removeprefix("meta-")
    while _QUANTISATION.search(name):
        name = _QUANTISATION.sub("", name)
    return name
