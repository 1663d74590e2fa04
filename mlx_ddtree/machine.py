"""What this machine is: the facts that decide speed, and that a report of a problem needs."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_ddtree._blas import use_fast_blas
from mlx_ddtree._version import __version__

PACKAGES = ("mlx", "mlx-lm", "numpy", "huggingface-hub")


def machine() -> dict[str, Any]:
    """Chip, memory in bytes, systems and versions; None where the machine does not tell.

    No paths: runs and reports that are passed on have these.
    """
    info = mx.device_info()
    return {
        "cores": os.cpu_count(),
        "chip": _sysctl("machdep.cpu.brand_string") or _processor() or platform.machine(),
        "gpu": info.get("architecture") if mx.metal.is_available() else None,
        "memory": memory(),
        "wired_limit": wired_limit(),
        "system": _system(),
        "python": platform.python_version(),
        "mlx_ddtree": __version__,
        **{name: package_version(name) for name in PACKAGES},
        "device": mx.default_device().type.name,
        "blas": use_fast_blas(),
    }


def describe(facts: Mapping[str, Any]) -> str:
    """One line about a machine for reports; facts: what `machine` returned."""
    known = [name for name in ("mlx_ddtree", "mlx", "mlx-lm") if facts.get(name)]
    packages = ", ".join(f"{name} {facts[name]}" for name in known)
    gpu = f" ({facts['gpu']})" if facts.get("gpu") else ""
    return (
        f"{facts['chip']}{gpu}, {facts['cores']} cores, {facts['memory'] / 2**30:.0f} GiB, {facts['system']}; "
        f"Python {facts['python']}, {packages}, BLAS: {facts['blas']}"
    )


def memory() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def wired_limit() -> int | None:
    """Bytes that the GPU may keep resident: the user's setting, else what Metal recommends; None without Metal."""
    if not mx.metal.is_available():
        return None
    megabytes = int(_sysctl("iogpu.wired_limit_mb") or 0)
    return megabytes * 2**20 or int(mx.device_info().get("max_recommended_working_set_size", 0)) or None


def _processor() -> str | None:
    """The processor's name as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _system() -> str:
    mac = platform.mac_ver()[0]
    if mac:
        return f"macOS {mac}"
    return platform.platform()


def _sysctl(name: str) -> str | None:
    if platform.system() != "Darwin":
        return None
    done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def package_version(package: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def keep_freed_memory() -> bool:
    """Let glibc's malloc keep large blocks that were freed and hand them out again; False where malloc is another one.

    MLX's CPU backend takes a new block for every array.  By default blocks above 128 kB to 32 MB are mapped and
    unmapped each time, and the kernel clears their pages one by one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    one_arena, no_mapping, no_trimming = (-8, 1), (-4, 0), (-1, 2**31 - 1)
    return all(mallopt(what, value) == 1 for what, value in (one_arena, no_mapping, no_trimming))
