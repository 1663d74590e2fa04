"""The captured text as NVIDIA's GPUs would run it: it compiles everywhere, and where there is a GPU it computes the same."""

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.kernels.metal import metal_folder

from . import CompileError, HostLaunch, InlineKernel
from .cuda import CudaLaunch, missing_cuda, missing_gpu, to_ptx

needs_cuda = pytest.mark.skipif(missing_cuda() is not None, reason=missing_cuda() or "")
needs_gpu = pytest.mark.skipif(missing_gpu() is not None, reason=missing_gpu() or "")

# A bit of everything; what a thread computes does not depend on the order of additions.
BODY = """
threadgroup T tile[N * 2];
threadgroup vec<T, 4> fours[4];
uint i = thread_index_in_threadgroup, lane = thread_index_in_simdgroup, at = thread_position_in_grid.x;
tile[i] = x[at];
if (i < 4) fours[i] = vec<T, 4>(x[i], x[i + 1], x[i + 2], x[i + 3]);
threadgroup_barrier(mem_flags::mem_threadgroup);
simdgroup_matrix<T, 8, 8> a, b;
simdgroup_matrix<float, 8, 8> m = make_filled_simdgroup_matrix<float, 8, 8>(0.5f);
simdgroup_load(a, tile, 8);
simdgroup_load(b, tile, 8, ulong2(0, 0), true);
simdgroup_multiply_accumulate(m, a, b, m);
float4 four = float4(fours[i % 4]) * float4(1.0f, 2.0f, float2(3.0f));
float sums = four.w + dot(four.xy, four.zw) + m.thread_elements()[0] + m.thread_elements()[1];
uint bits = uint(simd_vote::vote_t(simd_ballot(float(x[at]) > 3.0f)));
sums += float(simd_sum(lane) + simd_prefix_exclusive_sum(lane) + popcount(bits)) + simd_max(float(x[at]));
sums += simd_shuffle_xor(sums, 3) + simd_shuffle_down(sums, 2) + simd_broadcast(sums, 5);
atomic_fetch_add_explicit((device atomic_uint*)count, uint(n[0]), memory_order_relaxed);
y[at] = T(sums) + T(metal::precise::exp(float(x[at]) * -0.125f));
"""
KERNEL = InlineKernel("all_sorts", ("x", "n"), ("y", "count"), body=BODY)


def launch(how, dtype, kernel=KERNEL):
    x = mx.array(np.random.default_rng(0).integers(0, 9, 128).astype(np.float32)).astype(dtype)
    return how(
        kernel,
        [x, mx.array([3], mx.int32)],
        template=[("T", dtype), ("N", 32)],
        grid=(128, 1, 1),
        threadgroup=(64, 1, 1),
        output_shapes=[(128,), (1,)],
        output_dtypes=[dtype, mx.uint32],
        init_value=0,
    )


@needs_cuda
def test_the_text_compiles_for_nvidia():
    launch(CudaLaunch(run=False), mx.bfloat16)
    with pytest.raises(CompileError, match=r"all_sorts.metal:1:.*undeclared identifier 'unknown'"):
        launch(
            CudaLaunch(run=False),
            mx.bfloat16,
            InlineKernel("all_sorts", KERNEL.inputs, KERNEL.outputs, body="unknown();"),
        )


@needs_gpu
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_a_gpu_computes_what_the_host_computes(dtype):
    (y, count), (expected, expected_count) = launch(CudaLaunch(), dtype), launch(HostLaunch(), dtype)
    assert count.item() == expected_count.item() == 3 * 128
    tolerance = {mx.float32: 1e-6, mx.float16: 2e-3, mx.bfloat16: 2e-2}[dtype]
    np.testing.assert_allclose(np.array(y.astype(mx.float32)), np.array(expected.astype(mx.float32)), rtol=tolerance)


@needs_cuda
@pytest.mark.slow
def test_every_kernel_compiles_for_nvidia(tmp_path, monkeypatch):
    """With all sets of template values that the kernels' own tests launch; every kernel is launched there."""
    monkeypatch.setenv("MLX_DDTREE_TEST_TEXTS", str(tmp_path))
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/kernels"], cwd=root, check=True)
    texts = sorted(tmp_path.iterdir())
    for text in texts:
        to_ptx(text.read_text())
    launched = {text.name.split("-")[0] for text in texts}
    assert launched >= {file.stem for file in metal_folder().glob("*.metal")}
