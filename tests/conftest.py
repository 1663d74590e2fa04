"""Shared by all tests: mlx_ddtree first, so that MLX finds the fast BLAS; hypothesis without deadlines."""

from hypothesis import settings

import mlx_ddtree  # noqa: F401  (before anything imports mlx.core)

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
