"""What the Hub's cache on this machine already holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import CacheNotFound, scan_cache_dir

from mlx_ddtree.errors import ConfigError
from mlx_ddtree.hub.fetch import read_weight_map
from mlx_ddtree.untrusted import read_json

_SHARD = re.compile(r"-of-(\d+)\.safetensors$")


@dataclass(frozen=True)
class Snapshot:
    """A repository's files of one commit, all of its weights among them."""

    repository: str
    commit: str
    folder: Path

    @property
    def weight_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))

    @cached_property
    def config(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json", finite=False)

    @property
    def bits(self) -> int:
        """Bits of most weights: as its config says, else 16."""
        settings = self.config.get("quantization") or self.config.get("quantization_config")
        bits = settings.get("bits") if isinstance(settings, dict) else None
        return bits if isinstance(bits, int) else 16


def cached_models() -> list[Snapshot]:
    """Complete models in the cache (HF_HOME, HF_HUB_CACHE), the latest complete snapshot of each, by name."""
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    found = []
    for repository in sorted(repositories, key=lambda r: r.repo_id):
        for revision in sorted(repository.revisions, key=lambda r: -r.last_modified):
            if repository.repo_type == "model" and is_complete(revision.snapshot_path):
                found.append(Snapshot(repository.repo_id, revision.commit_hash, revision.snapshot_path))
                break
    return found


def is_complete(folder: Path) -> bool:
    """Whether config.json can be read and all weight files are here: the index's, or as many as their names say."""
    files = {file.name for file in folder.glob("*.safetensors")}
    try:
        read_json(folder / "config.json", finite=False)
        named = set(read_weight_map(folder).values())
    except ConfigError:
        return False
    counts = [int(found[1]) for found in map(_SHARD.search, files) if found]
    return bool(files) and named <= files and all(count <= len(files) for count in counts)
