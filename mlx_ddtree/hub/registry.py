"""The public pairs: each target and the drafter that was trained for it."""

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

OTHER_QUANTISATIONS = {
    "meta-llama/Llama-3.1-8B-Instruct": "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit",
    "openai/gpt-oss-20b": "mlx-community/gpt-oss-20b-MXFP4-Q4",
    "openai/gpt-oss-120b": "mlx-community/gpt-oss-120b-MXFP4-Q4",
    "moonshotai/Kimi-K2.5": "mlx-community/Kimi-K2.5",
}
"""Public target -> its usual 4-bit repository, where the name is not the target's and -4bit."""

_QUANTISATION = re.compile(r"-(mlx|dwq|awq|gptq|[0-9]+(\.[0-9]+)?bit|bf16|fp16|mxfp[48]|nvfp4|q[2-8]|gs[0-9]+)$")


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
    name = repository.rstrip("/").rsplit("/", maxsplit=1)[-1].lower().removeprefix("meta-")
    while _QUANTISATION.search(name):
        name = _QUANTISATION.sub("", name)
    return name
