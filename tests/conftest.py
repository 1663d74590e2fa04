"""Shared by all tests: mlx_ddtree first, so that MLX finds the fast BLAS; hypothesis without deadlines."""

import mlx_ddtree  # noqa: F401  (before anything imports mlx.core)
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
