"""Fast BLAS for MLX's CPU backend on Linux x86; nothing on any other platform.

MLX's Linux CPU wheel links the reference BLAS, which runs fp32 matrix products at about
3 GFLOP/s.  Loading Intel MKL with RTLD_GLOBAL *before* the first import of mlx.core makes the
dynamic linker resolve MLX's cblas_* symbols to MKL's: about 50 times faster, with no change to
MLX itself.  On a Mac MLX uses Metal and Accelerate, and this module does nothing.

MLX_DDTREE_BLAS=off switches it off.

MKL's threads spin for 200 ms after every product by default, in the hope of another one.  On a machine with other work
they take its cores, and products wait for threads that are not running.  Unless the user has said otherwise they sleep
at once (KMP_BLOCKTIME=0), and there are half as many as this process may use cores: Python and MLX's own thread need
one too, and a product is as slow as its last thread (docs/linux.md has a table of an idle and a busy machine).
"""

import ctypes
import importlib.metadata
import os
import platform
import sys
from pathlib import Path


def use_fast_blas() -> str:
    """Interpose MKL where that is possible; return one sentence that says what was done."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "not needed on this platform"
    if os.environ.get("MLX_DDTREE_BLAS", "").lower() in ("off", "0", "false"):
        return "MLX's own (MLX_DDTREE_BLAS=off)"
    if "mlx.core" in sys.modules and "mkl" not in _loaded:
        return "MLX's own (mlx was imported before mlx_ddtree; import mlx_ddtree first for MKL)"
    library = find_mkl()
    if library is None:
        return "MLX's own (slow: the package mkl is not installed)"
    set_thread_defaults()
    try:
        _loaded["mkl"] = _loaded.get("mkl") or ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return f"MLX's own (slow: MKL does not load: {error})"
    return "Intel MKL"


def set_thread_defaults() -> None:
    """Tell MKL, which reads the environment as it is loaded, how its threads behave; what the user has set stays."""
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    if not {"MKL_NUM_THREADS", "OMP_NUM_THREADS"} & set(os.environ):
        os.environ["MKL_NUM_THREADS"] = str(max(usable_cores() // 2, 1))


def usable_cores() -> int:
    """Cores that this process may run on: by its affinity, and by the quota of its control group (containers)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, int(quota) // int(period))
    except (OSError, ValueError):
        pass  # no control group, or one without a quota ("max")
    return max(cores, 1)


_loaded: dict[str, ctypes.CDLL] = {}


def find_mkl() -> str | None:
    """MKL's library file; None where the package mkl is not installed."""
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((str(f.locate()) for f in files if f.name.startswith("libmkl_rt.so")), None)
