"""A Mac for tests: what MLX and the system say of it, and kernels that run through the harness as Metal would run them.

Arrays are computed by this machine's processor.  What is simulated is all that the package asks: whether there is Metal,
the GPU's name and memory, sysctl, the version of macOS, the wired limit, and `mx.fast.metal_kernel`.
"""

from __future__ import annotations

import gc
import platform
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import pytest

from mlx_ddtree import machine
from mlx_ddtree.kernels import metal, quantized, tree_attention
from mlx_ddtree.kernels.metal import MetalKernel
from mlx_ddtree.tuning import stopwatch

from .metal_host import HostLaunch, InlineKernel

GIGABYTE = 2**30
INFO = {
    "device_name": "Apple M3 Max",
    "architecture": "applegpu_g15s",
    "memory_size": 64 * GIGABYTE,
    "max_recommended_working_set_size": 48 * GIGABYTE,
}
FILES = [file.stem for file in metal.metal_folder().glob("*.metal")]
SYSCTL = {"machdep.cpu.brand_string": "Apple M3 Max", "iogpu.wired_limit_mb": "0"}


@dataclass
class SimulatedMac:
    """What happened on it.

    launched: names of kernels, in their order.  wired: what the wired limit was set to, in bytes.
    broken: files of metal/ whose kernels do not launch from now on.
    """

    launched: list[str] = field(default_factory=list)
    wired: list[int] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    @property
    def limit(self) -> int:
        """Bytes that may be wired at present."""
        return self.wired[-1] if self.wired else 0

    def set_wired_limit(self, limit: int) -> int:
        """As MLX's: the limit before."""
        before = self.limit
        self.wired.append(limit)
        return before

    def metal_kernel(self, own: Any, **text: Any) -> Any:
        """What stands for `mx.fast.metal_kernel`; own: MLX's, which writes the text that Metal would compile."""
        host = HostLaunch("fast")
        body = InlineKernel(
            text["name"],
            tuple(text["input_names"]),
            tuple(text["output_names"]),
            contiguous=text["ensure_row_contiguous"],
            body=text["source"],
            header=text["header"],
        )
        body.variants[()] = own(**text)
        name = max((f for f in FILES if text["name"].startswith(f"mlx_ddtree_{f}")), key=len)

        def launch(*, inputs: Any, **how: Any) -> list[mx.array]:
            if name in self.broken:
                raise RuntimeError(f"[metal::Device] Unable to build the pipeline of {name}\nand a long report")
            self.launched.append(name)
            metal.note_wait()  # the harness runs a kernel at once
            return host(body, inputs, template=(), **how)

        return launch


@pytest.fixture
def mac(monkeypatch):
    """The simulated Mac, for one test."""
    simulated = SimulatedMac()
    own = mx.fast.metal_kernel
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda *device: dict(INFO))
    monkeypatch.setattr(mx, "set_wired_limit", simulated.set_wired_limit)
    monkeypatch.setattr(mx.fast, "metal_kernel", lambda **text: simulated.metal_kernel(own, **text))
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    monkeypatch.setattr(machine, "_sysctl", SYSCTL.get)
    monkeypatch.setattr(metal, "_awaited", set())
    forget_compiled()
    mx.disable_compile()  # the harness takes arrays, not the placeholders of a record
    yield simulated
    mx.enable_compile()
    monkeypatch.undo()
    forget_compiled()


def forget_compiled() -> None:
    """Let every kernel be compiled anew, and ask the GPU's name anew."""
    tree_attention._wanted.cache_clear()
    tree_attention._settled.cache_clear()
    quantized._launch_of.cache_clear()
    for kernel in gc.get_objects():
        if isinstance(kernel, MetalKernel) and not isinstance(kernel, InlineKernel):
            vars(kernel).pop("variants", None)


class SlowModel:
    """A target whose forwards take seconds of a clock that nothing else moves.

    forwards: that it has made.
    """

    def __init__(self, pair: Any, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.forwards = 0
        run = pair.target.run

        def slow(token_ids: mx.array, *args: Any, **how: Any) -> Any:
            self.forwards += 1
            self.now += seconds * (1 + 0.05 * token_ids.size)
            return run(token_ids, *args, **how)

        pair.target.run = slow
        monkeypatch.setattr(stopwatch, "now", lambda: self.now)
