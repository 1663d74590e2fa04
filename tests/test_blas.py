"""MKL's threads do not hold the cores of a busy machine, and what the user has set stays."""

import json
import os
import subprocess
import sys

import pytest

from mlx_ddtree._blas import usable_cores

NAMES = ("KMP_BLOCKTIME", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def settings_of(**given):
    """Of a new process that imports the package."""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | given
    script = f"import json, os, mlx_ddtree; print(json.dumps([mlx_ddtree.blas, *map(os.environ.get, {NAMES})]))"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    blas, *values = json.loads(done.stdout)
    if blas != "Intel MKL":
        pytest.skip(f"BLAS is {blas}")
    return dict(zip(NAMES, values, strict=True))


def test_threads_sleep_at_once_and_leave_cores_to_others():
    assert settings_of() == {
        "KMP_BLOCKTIME": "0",
        "MKL_NUM_THREADS": str(max(usable_cores() // 2, 1)),
        "OMP_NUM_THREADS": None,
    }
    assert 1 <= usable_cores() <= os.cpu_count()


def test_what_the_user_has_set_stays():
    assert settings_of(KMP_BLOCKTIME="7", MKL_NUM_THREADS="3")["KMP_BLOCKTIME"] == "7"
    assert settings_of(MKL_NUM_THREADS="3")["MKL_NUM_THREADS"] == "3"
    assert settings_of(OMP_NUM_THREADS="2")["MKL_NUM_THREADS"] is None
