"""HostLaunch: launches kernels on the host, in place of mlx_ddtree.kernels.metal.launch_on_metal."""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.kernels.metal import TemplateValue, note_wait

from .arrays import Bytes, output_array, to_bytes, to_mlx
from .build import MODES, build, find_compiler, missing_sanitizers, symbolizer
from .lint import compile_errors
from .report import KernelError, LintError, of_sanitizer, with_places
from .text import InlineKernel, capture, signature, source

ORDERS = ("forward", "reverse", "shuffled")
THREADGROUP_LIMIT = 32768  # bytes, of all Apple GPUs
REPORT_SIZE = 4096


class Buffer(ctypes.Structure):
    """host::Buffer."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_uint64),
        ("written", ctypes.c_uint32),
        ("counted", ctypes.c_uint32),
        ("bytes_read", ctypes.c_uint64),
        ("bytes_written", ctypes.c_uint64),
    ]


class Options(ctypes.Structure):
    """host::Options."""

    _fields_ = [("order", ctypes.c_int32), ("seed", ctypes.c_uint32), ("threadgroup_limit", ctypes.c_uint32)]


class Statistics(ctypes.Structure):
    """host::Statistics."""

    _fields_ = [("threads", ctypes.c_uint64), ("switches", ctypes.c_uint64), ("threadgroup_bytes", ctypes.c_uint64)]


@dataclass
class Launched:
    """One launch.  Bytes are counted in mode check only: every access to device memory by every thread, also to
    what another thread read before; accesses to threadgroup memory are not among them."""

    kernel: str
    text: str
    template: tuple[tuple[str, TemplateValue], ...]
    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]
    bytes_read: dict[str, int] = field(default_factory=dict)
    bytes_written: dict[str, int] = field(default_factory=dict)
    threads: int = 0
    switches: int = 0
    threadgroup_bytes: int = 0
    seconds: float = 0.0


class HostLaunch:
    """mode: "check" reports out-of-bounds accesses, races, divergence and deadlocks by KernelError; "fast" only the
    latter two and most of the first; "asan" runs under AddressSanitizer and UndefinedBehaviorSanitizer.
        A test that asks for the sanitizers is skipped where the compiler comes without them.
    order: of threads, simdgroups and threadgroups between barriers; "shuffled" by `seed`.
    """

    def __init__(self, mode: str = "check", order: str = "forward", seed: int = 0):
        assert mode in MODES and order in ORDERS
        reason = missing_sanitizers() if mode == "asan" else None
        if reason is not None:
            pytest.skip(reason)
        self.mode, self.order, self.seed = mode, order, seed
        self.launches: list[Launched] = []

    @property
    def last(self) -> Launched:
        """The latest launch."""
        return self.launches[-1]

    def __call__(
        self,
        kernel: Any,
        inputs: Sequence[mx.array],
        *,
        template: Sequence[tuple[str, TemplateValue]],
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        output_shapes: Sequence[tuple[int, ...]],
        output_dtypes: Sequence[mx.Dtype],
        init_value: float | None = None,
    ) -> list[mx.array]:
        """As mlx_ddtree.kernels.metal.Launch says, but at once: inputs are evaluated."""
        note_wait()
        mx.eval(list(inputs))
        text = captured_text(kernel, inputs, tuple(template), output_shapes, tuple(output_dtypes))
        if not isinstance(kernel, InlineKernel) and (errors := _lint(text)):
            raise LintError(f"{kernel.name}: {errors}")
        given = {name: to_bytes(x, kernel.contiguous) for name, x in zip(kernel.inputs, inputs, strict=True)}
        arrays = [output_array(s, d, init_value) for s, d in zip(output_shapes, output_dtypes, strict=True)]
        outputs = dict(zip(kernel.outputs, arrays, strict=True))
        names = signature(text).buffers
        memory = [outputs[n] if n in outputs else input_data(n, given) for n in names]
        launched = Launched(kernel.name, text, tuple(template), grid, threadgroup)
        self.launches.append(launched)
        start = time.perf_counter()
        run = _run_program if self.mode == "asan" else _run_library
        run(self, build(_source(text), self.mode), launched, names, memory, set(outputs))
        launched.seconds = time.perf_counter() - start
        launched.bytes_read = {n: launched.bytes_read.get(n, 0) for n in kernel.inputs + kernel.outputs}
        launched.bytes_written = {n: launched.bytes_written.get(n, 0) for n in kernel.inputs + kernel.outputs}
        return [to_mlx(x, d) for x, d in zip(arrays, output_dtypes, strict=True)]


_texts: dict[Any, str] = {}
_source = functools.cache(source)
_lint = functools.cache(compile_errors)


def captured_text(
    kernel: Any,
    inputs: Sequence[mx.array],
    template: tuple[tuple[str, TemplateValue], ...],
    output_shapes: Sequence[tuple[int, ...]],
    output_dtypes: tuple[mx.Dtype, ...],
) -> str:
    """The captured text; again only where MLX would write another one.

    With MLX_DDTREE_TEST_TEXTS in the environment, texts are left in that folder.
    """
    kinds = tuple((x.dtype, x.ndim == 0, min(x.size, 8)) for x in inputs)
    key = (kernel.name, kernel.text, kernel.inputs, kernel.outputs, kinds, template, output_dtypes)
    if key not in _texts:
        _texts[key] = capture(
            kernel,
            inputs,
            template=list(template),
            grid=(1, 1, 1),
            threadgroup=(1, 1, 1),
            output_shapes=list(output_shapes),
            output_dtypes=list(output_dtypes),
        )
        if folder := os.environ.get("MLX_DDTREE_TEST_TEXTS"):
            (Path(folder) / f"{kernel.name}-{len(_texts)}.txt").write_text(_texts[key])
    return _texts[key]


def input_data(name: str, given: dict[str, Bytes]) -> np.ndarray:
    """The input `name`, or what MLX adds for one: <input>_shape, _strides, _ndim."""
    if name in given:
        return given[name].data
    of, _, what = name.rpartition("_")
    array = given[of]
    if what == "shape":
        return np.array(array.shape, np.int32)
    return np.array(array.strides, np.int64) if what == "strides" else np.array([len(array.shape)], np.int32)


@functools.cache
def _library(path: Path) -> Any:
    try:
        return ctypes.CDLL(str(path)).host_launch
    except OSError as error:
        raise KernelError(
            f"{find_compiler()} makes kernels that this machine cannot load ({error}); on Debian 12 clang-19 and "
            "libclang-rt-19-dev do, or name another clang in $MLX_DDTREE_CLANG"
        ) from None


def _run_library(
    how: HostLaunch, path: Path, launched: Launched, names: list[str], memory: list[np.ndarray], written: set[str]
) -> None:
    buffers = (Buffer * len(memory))()
    for i, (name, array) in enumerate(zip(names, memory, strict=True)):
        buffers[i] = Buffer(name.encode(), array.ctypes.data, array.nbytes, name in written, True)
    options, statistics = Options(ORDERS.index(how.order), how.seed, THREADGROUP_LIMIT), Statistics()
    report = ctypes.create_string_buffer(REPORT_SIZE)
    failed = _library(path)(
        buffers,
        len(memory),
        (ctypes.c_uint32 * 3)(*launched.grid),
        (ctypes.c_uint32 * 3)(*launched.threadgroup),
        ctypes.byref(options),
        ctypes.byref(statistics),
        report,
        REPORT_SIZE,
    )
    if failed:
        raise KernelError(f"{launched.kernel}: {with_places(report.value.decode(), path, symbolizer())}")
    launched.bytes_read = {b.name.decode(): b.bytes_read for b in buffers}
    launched.bytes_written = {b.name.decode(): b.bytes_written for b in buffers}
    launched.threads, launched.switches = statistics.threads, statistics.switches
    launched.threadgroup_bytes = statistics.threadgroup_bytes


def _run_program(
    how: HostLaunch, path: Path, launched: Launched, names: list[str], memory: list[np.ndarray], written: set[str]
) -> None:
    tool = shutil.which(symbolizer()[0]) or "addr2line"
    environment = {
        **os.environ,
        "ASAN_OPTIONS": f"detect_leaks=0:detect_stack_use_after_return=0:external_symbolizer_path={tool}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:external_symbolizer_path={tool}",
    }
    numbers = [*launched.grid, *launched.threadgroup, ORDERS.index(how.order), how.seed, THREADGROUP_LIMIT]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(i) for i in range(len(memory))]
        for file, array in zip(files, memory, strict=True):
            array.tofile(file)
        command = [str(path), folder, str(len(files)), *map(str, numbers)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise KernelError(f"{launched.kernel}: {of_sanitizer(done.stdout + done.stderr)}")
        for file, name, array in zip(files, names, memory, strict=True):
            if name in written:
                array.reshape(-1)[...] = np.fromfile(file, array.dtype)
    launched.threads, launched.switches, launched.threadgroup_bytes = map(int, done.stdout.split())
