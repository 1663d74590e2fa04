"""The same captured text on NVIDIA's GPUs: clang makes PTX of it, ptxas or the driver machine code.

What the host's fibres cannot show, threads that really run at the same time, shows here where there is a GPU; elsewhere
the text is only compiled.  clang, not nvcc, because one shim then serves both, and because it can take every function
for a device function; of CUDA's toolkit it needs libdevice (its mathematics) and ptxas.
"""

import ctypes
import functools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_ddtree.kernels.metal import TemplateValue

from .arrays import output_array, to_bytes, to_mlx
from .build import cached, find_compiler, missing_compiler
from .launch import Launched, captured_text, input_data
from .report import CompileError, KernelError
from .text import Signature, signature, with_threadgroup_arrays, without_comments, without_instantiation

SHIM = Path(__file__).parent / "shim_cuda"
ARCHITECTURE = "sm_80"  # the oldest that converts bfloat; the driver goes on from there

_DIM = "uint3({0}x(), {0}y(), {0}z())"
_THREADS, _BLOCK, _INDEX = (_DIM.format(f"__nvvm_read_ptx_sreg_{n}_") for n in ("ntid", "ctaid", "tid"))
ATTRIBUTES = {
    "thread_position_in_grid": f"{_BLOCK} * {_THREADS} + {_INDEX}",
    "thread_position_in_threadgroup": _INDEX,
    "threadgroup_position_in_grid": _BLOCK,
    "threads_per_threadgroup": _THREADS,
    "dispatch_threads_per_threadgroup": _THREADS,
    "threadgroups_per_grid": _DIM.format("__nvvm_read_ptx_sreg_nctaid_"),
    "threads_per_grid": f"{_THREADS} * {_DIM.format('__nvvm_read_ptx_sreg_nctaid_')}",
    "thread_index_in_threadgroup": "host::self().index",
    "thread_index_in_simdgroup": "host::self().lane",
    "simdgroup_index_in_threadgroup": "host::self().index / 32",
    "simdgroups_per_threadgroup": "host::block_size() / 32",
    "threads_per_simdgroup": "32u",
    "thread_execution_width": "32u",
}


@functools.cache
def _toolkit() -> Path | None:
    """CUDA's folder, by its nvcc (which may be a script that calls it) or the usual place."""
    places = [Path(path).resolve().parents[1] for path in [shutil.which("nvcc")] if path]
    places += sorted(Path("/usr/local").glob("cuda*"), reverse=True)
    return next((p for p in places if (p / "nvvm" / "libdevice" / "libdevice.10.bc").exists()), None)


@functools.cache
def _driver() -> Any:
    """The driver's library with its first GPU's context, or None."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, context = ctypes.c_int(), ctypes.c_void_p()
    steps = (
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGet(ctypes.byref(device), 0),
        lambda: cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
        lambda: cuda.cuCtxSetCurrent(context),
    )
    return None if any(step() for step in steps) else cuda


def missing_cuda() -> str | None:
    """Why nothing can be compiled, for pytest's skip."""
    if missing_compiler():
        return missing_compiler()
    targets = subprocess.run([find_compiler() or "", "--print-targets"], capture_output=True, text=True).stdout
    if "nvptx64" not in targets:
        return "this clang has no NVPTX back end"
    return None if _toolkit() and shutil.which("ptxas") else "no CUDA toolkit (nvcc, ptxas, libdevice)"


def missing_gpu() -> str | None:
    """Why nothing can be run, for pytest's skip."""
    return missing_cuda() or (None if _driver() else "no NVIDIA GPU")


def cuda_source(text: str) -> str:
    """The translation unit: the text, all of it for the device, and the kernel that calls it."""
    found: Signature = signature(text)
    arguments = [
        ATTRIBUTES[p.name] if p.index < 0 else f"{'*' if p.reference else ''}({p.type}*)buffers[{p.index}]"
        for p in found.parameters
    ]
    body = with_threadgroup_arrays(without_comments(without_instantiation(text)))
    return f"""#include <metal_stdlib>
#pragma clang force_cuda_host_device begin
using namespace metal;
{body}
#line 1 "glue"
#pragma clang force_cuda_host_device end
extern "C" __attribute__((global)) void host_kernel(void** buffers) {{
  {found.instance}({", ".join(arguments)});
}}
"""


def to_ptx(text: str) -> Path:
    """The captured text as PTX, and that assembled by ptxas to see that it can be."""
    toolkit, compiler = _toolkit(), find_compiler()
    assert toolkit and compiler, missing_cuda()
    command = [
        *[compiler, "-x", "cuda", "--cuda-device-only", f"--cuda-gpu-arch={ARCHITECTURE}", "-nogpulib", "-nogpuinc"],
        *["-std=c++17", "-O2", "-ffp-contract=off", "-w", f"-I{SHIM}"],
        *["-Xclang", "-mlink-builtin-bitcode", "-Xclang", str(toolkit / "nvvm" / "libdevice" / "libdevice.10.bc")],
        *["-S", "@in", "-o", "@out"],
    ]
    key = [f.read_text() for f in sorted(SHIM.rglob("*")) if f.is_file()]
    ptx = cached(key, ".ptx", command, cuda_source(text))
    cached(ptx.name, ".cubin", ["ptxas", f"-arch={ARCHITECTURE}", str(ptx), "-o", "@out"])
    return ptx


class CudaLaunch:
    """mlx_ddtree.kernels.metal.Launch on the first NVIDIA GPU; with run=False it only compiles, and outputs are NaN.

    `launches` are as HostLaunch's, without counts.  Threadgroups must divide the grid.
    """

    def __init__(self, run: bool = True):
        self.run = run
        self.launches: list[Launched] = []

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
        """At once: inputs are evaluated."""
        mx.eval(list(inputs))
        text = captured_text(kernel, inputs, tuple(template), output_shapes, tuple(output_dtypes))
        self.launches.append(Launched(kernel.name, text, tuple(template), grid, threadgroup))
        ptx = to_ptx(text)
        given = {name: to_bytes(x, kernel.contiguous) for name, x in zip(kernel.inputs, inputs, strict=True)}
        arrays = [output_array(s, d, init_value) for s, d in zip(output_shapes, output_dtypes, strict=True)]
        outputs = dict(zip(kernel.outputs, arrays, strict=True))
        memory = [outputs[n] if n in outputs else input_data(n, given) for n in signature(text).buffers]
        if self.run:
            blocks = tuple(n // t for n, t in zip(grid, threadgroup, strict=True))
            assert all(n % t == 0 for n, t in zip(grid, threadgroup, strict=True)), (
                "threadgroups do not divide the grid"
            )
            _run(ptx, memory, blocks, threadgroup)
        return [to_mlx(x, d) for x, d in zip(arrays, output_dtypes, strict=True)]


def _check(error: int) -> None:
    if error:
        raise KernelError(f"CUDA's driver reports error {error}")


def _run(ptx: Path, memory: list[np.ndarray], blocks: tuple[int, ...], threads: tuple[int, ...]) -> None:
    """Copies every buffer to the GPU, runs the kernel, and copies them back."""
    cuda = _driver()
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    _check(cuda.cuModuleLoadData(ctypes.byref(module), ptx.read_bytes() + b"\0"))
    _check(cuda.cuModuleGetFunction(ctypes.byref(function), module, b"host_kernel"))
    pointers = np.zeros(len(memory), np.uint64)
    table = ctypes.c_uint64()
    try:
        for i, array in enumerate(memory):
            pointers[i] = _upload(cuda, array)
        table.value = _upload(cuda, pointers)
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(table))
        _check(cuda.cuLaunchKernel(function, *blocks, *threads, 0, None, arguments, None))
        _check(cuda.cuCtxSynchronize())
        for pointer, array in zip(pointers, memory, strict=True):
            _check(
                cuda.cuMemcpyDtoH_v2(ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(int(pointer)), array.nbytes)
            )
    finally:
        for pointer in (*pointers.tolist(), table.value):
            cuda.cuMemFree_v2(ctypes.c_uint64(pointer))
        cuda.cuModuleUnload(module)


def _upload(cuda: Any, array: np.ndarray) -> int:
    pointer = ctypes.c_uint64()
    _check(cuda.cuMemAlloc_v2(ctypes.byref(pointer), max(array.nbytes, 16)))
    _check(cuda.cuMemcpyHtoD_v2(pointer, ctypes.c_void_p(array.ctypes.data), array.nbytes))
    return pointer.value


__all__ = ["CompileError", "CudaLaunch", "missing_cuda", "missing_gpu"]
