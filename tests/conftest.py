"""Shared by all tests: mlx_ddtree first, so that MLX finds the fast BLAS; hypothesis without deadlines; a
cache folder of the tests' own."""

import pytest
from hypothesis import settings

import mlx_ddtree  # noqa: F401  (before anything imports mlx.core)

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="session", autouse=True)
def cache_of_profiles(tmp_path_factory):
    """What tests measure stays with them; programs that they start inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLX_DDTREE_CACHE", str(tmp_path_factory.mktemp("profiles")))
        yield
