"""What a run was measured on and with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx

import mlx_ddtree


def machine() -> dict[str, Any]:
    """The device, and what the ratio of two timings may depend on."""
    info = mx.device_info()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "device": str(info.get("device_name") or mx.default_device()),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30),
        "system": f"macOS {platform.mac_ver()[0]}" if platform.mac_ver()[0] else platform.system(),
        "blas": mlx_ddtree.blas,
    }


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("mlx", "mlx-lm", "mlx-ddtree") if _installed(name)
    }


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except ModuleNotFoundError:
        return False


def _processor() -> str:
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe(header: dict[str, Any]) -> str:
    """A line about the machine and the versions of a run's header."""
    facts, made_with = header["machine"], header["versions"]
    names = ", ".join(f"{name} {number}" for name, number in made_with.items())
    device = "" if facts["device"] in facts["processor"] else f"{facts['device']}, "
    return (
        f"{device}{facts['processor']}, {facts['cores']} cores, {facts['memory_gb']} GB, {facts['system']}; "
        f"{names}{', BLAS ' + str(facts['blas']) if facts['blas'] else ''}"
    )
