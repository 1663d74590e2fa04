"""Which public drafter belongs to which public target."""

import re
from collections.abc import Sequence

from mlx_ddtree.errors import ConfigError

PAIRS: dict[str, str] = {
    "Qwen/Qwen3-4B": "z-lab/Qwen3-4B-DFlash-b16",
    "Qwen/Qwen3-8B": "z-lab/Qwen3-8B-DFlash-b16",
    "Qwen/Qwen3-Coder-30B-A3B-Instruct": "z-lab/Qwen3-Coder-30B-A3B-DFlash",
    "Qwen/Qwen3-Coder-Next": "z-lab/Qwen3-Coder-Next-DFlash",
    "Qwen/Qwen3.5-4B": "z-lab/Qwen3.5-4B-DFlash",
    "Qwen/Qwen3.5-9B": "z-lab/Qwen3.5-9B-DFlash",
    "Qwen/Qwen3.5-27B": "z-lab/Qwen3.5-27B-DFlash",
    "Qwen/Qwen3.5-35B-A3B": "z-lab/Qwen3.5-35B-A3B-DFlash",
    "Qwen/Qwen3.5-122B-A10B": "z-lab/Qwen3.5-122B-A10B-DFlash",
    "Qwen/Qwen3.6-27B": "z-lab/Qwen3.6-27B-DFlash",
    "Qwen/Qwen3.6-35B-A3B": "z-lab/Qwen3.6-35B-A3B-DFlash",
    "meta-llama/Llama-3.1-8B-Instruct": "z-lab/LLaMA3.1-8B-Instruct-DFlash-UltraChat",
    "openai/gpt-oss-20b": "z-lab/gpt-oss-20b-DFlash",
    "openai/gpt-oss-120b": "z-lab/gpt-oss-120b-DFlash",
    "moonshotai/Kimi-K2.5": "z-lab/Kimi-K2.5-DFlash",
}
"""Target repository -> drafter repository, as their authors list them.  A pair stands here as soon as
its drafter is public; whether its architecture can verify trees yet, `target.TREE_FAMILIES` says."""

_QUANTISATION = re.compile(r"-(mlx|dwq|awq|gptq|[0-9]+(\.[0-9]+)?bit|bf16|fp16|mxfp[48]|nvfp4|q[2-8]|gs[0-9]+)$")


def find_drafter(target: str) -> str | None:
    """The drafter of a public target or of anybody's quantisation of it, or None.

    >>> find_drafter("mlx-community/Qwen3-8B-4bit")
    'z-lab/Qwen3-8B-DFlash-b16'
    """
    return {_plain_name(known): drafter for known, drafter in PAIRS.items()}.get(_plain_name(target))


def find_target(drafter: str) -> str | None:
    """The public target that a public drafter's repository belongs to, or None."""
    return next((target for target, known in PAIRS.items() if known.lower() == drafter.rstrip("/").lower()), None)


def find_pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """(target, drafter) of all pairs whose names hold every word, whatever their case."""
    return [
        (target, drafter)
        for target, drafter in PAIRS.items()
        if all(word.lower() in f"{target} {drafter}".lower() for word in words)
    ]


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
    close = ", ".join(target for target, _ in find_pairs([name])) or "mlx_ddtree.models lists them"
    raise ConfigError(f"no public pair is called {name!r} (close: {close}); or give a repository (owner/name)")


def _plain_name(repository: str) -> str:
    """The model's name without organisation, case, 'Meta-' and quantisation suffixes."""
    name = repository.rstrip("/").split("/")[-1].lower().removeprefix("meta-")
    while (shorter := _QUANTISATION.sub("", name)) != name:
        name = shorter
    return name
