"""Planted faults are reported with the kernel's file and line, and programs without faults are not."""

import mlx.core as mx
import numpy as np
import pytest

from . import CompileError, HostLaunch, InlineKernel, KernelError, missing_compiler

pytestmark = pytest.mark.skipif(missing_compiler() is not None, reason=missing_compiler() or "")

# Adds each lane's neighbours through threadgroup memory: correct as it stands.  64 threads, 2 threadgroups.
NEIGHBOURS = """\
threadgroup float shared[64];
uint i = thread_index_in_threadgroup, at = thread_position_in_grid.x;
shared[i] = x[at];
threadgroup_barrier(mem_flags::mem_threadgroup);
float sum = shared[i] + shared[(i + 1) % 64];
float total = simd_sum(sum);
y[at] = sum + 0.0f * total;
"""
X = np.arange(128, dtype=np.float32)


def launch(body, mode="check", order="forward", x=X, threads=64, n=128, size=None, **more):
    kernel = InlineKernel("planted", ("x",), ("y",), body=body, **more)
    how = HostLaunch(mode, order)
    (y,) = how(
        kernel,
        [mx.array(x)],
        template=[],
        grid=(n, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[(size or n,)],
        output_dtypes=[mx.float32],
    )
    return np.array(y), how.last


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled"])
@pytest.mark.parametrize("mode", ["fast", "check", "asan"])
def test_a_clean_program_runs_without_a_report(mode, order):
    y, last = launch(NEIGHBOURS, mode, order)
    np.testing.assert_array_equal(y, X + np.concatenate([np.roll(X[:64], -1), np.roll(X[64:], -1)]))
    assert last.threads == 128 and last.threadgroup_bytes == 256


def planted(old, new):
    assert NEIGHBOURS.count(old) == 1
    return NEIGHBOURS.replace(old, new)


BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
BETWEEN_3_AND_5 = r"data race: .* of shared, .*, planted.metal:([35])\n.*, planted.metal:(?!\1)[35]"
FAULTS = {
    "missing barrier": (BARRIER, "", BETWEEN_3_AND_5),
    "flag of no memory": ("mem_flags::mem_threadgroup", "mem_flags::mem_none", BETWEEN_3_AND_5),
    "flag of the other memory": ("mem_flags::mem_threadgroup", "mem_flags::mem_device", BETWEEN_3_AND_5),
    "barrier of a simdgroup": ("threadgroup_barrier", "simdgroup_barrier", BETWEEN_3_AND_5),
    "read beyond": ("x[at]", "x[at + 1]", r"out-of-bounds read of x, byte 512 of 512, planted.metal:3"),
    "read before": ("x[at]", "x[int(at) - 1]", r"out-of-bounds read of x, byte -\d of 512, planted.metal:3"),
    "write beyond": ("y[at] =", "y[at + 1] =", r"out-of-bounds write to y, byte 512 of 512, planted.metal:7"),
    "write to the input": ("y[at] =", "((device float*)x)[at] =", r"write to the input x.*planted.metal:7"),
    "array overrun": (
        "shared[i] =",
        "shared[i + 1] =",
        r"out-of-bounds write to shared, byte 256 of 256, planted.metal:3",
    ),
    "two writes in a group": ("y[at] =", "y[at / 2] =", r"data race: two writes to y.*planted.metal:7\n.*thread \d"),
    "two writes across groups": ("y[at] =", "y[i] =", r"data race: two writes to y.*:7\n.*of another threadgroup"),
    "exchange within a simdgroup": (
        BARRIER,
        BARRIER + " shared[i] = 1.0f; float other = shared[i ^ 1]; (void)other;",
        r"data race: .* shared.*planted.metal:4",
    ),
    "write after read": (
        "float total",
        "shared[(i + 2) % 64] = sum; float total",
        r"data race: .* shared.*planted.metal:[56]\n.*planted.metal:[65]",
    ),
    "shuffle from nowhere": ("simd_sum(sum)", "simd_shuffle(sum, 40)", r"a shuffle reads a lane .*planted.metal:6"),
}
# These end the launch before any memory is looked at.
SCHEDULING_FAULTS = {
    "simd operation in a branch": (
        "float total = simd_sum(sum)",
        "float total = 0.0f; if (i % 32 < 16) total = simd_sum(sum)",
        r"(?s)simdgroup divergence.*lanes 0-15: a simd reduction, planted.metal:6.*lanes 16-31: the end of the kernel",
    ),
    "barrier in a branch": (
        "threadgroup_barrier",
        "if (i < 32) threadgroup_barrier",
        r"(?s)threadgroup divergence.*simdgroup 0, lanes 0-31: threadgroup_barrier, planted.metal:4.*simdgroup 1",
    ),
    "return before a barrier": (
        "threadgroup_barrier",
        "if (i == 3) return; threadgroup_barrier",
        r"(?s)simdgroup divergence.*lanes 0-2,4-31: threadgroup_barrier, planted.metal:4.*lanes 3: the end",
    ),
    "too much threadgroup memory": (
        "shared[64]",
        "shared[64], more[8129]",
        r"threadgroup memory: 32772 bytes with more, the limit is 32768, planted.metal:1",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_reported_with_file_and_line(fault):
    old, new, message = FAULTS[fault]
    with pytest.raises(KernelError, match=message):
        launch(planted(old, new))


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled"])
@pytest.mark.parametrize("fault", SCHEDULING_FAULTS)
def test_divergence_and_too_much_memory_are_reported_in_every_order(fault, order):
    old, new, message = SCHEDULING_FAULTS[fault]
    with pytest.raises(KernelError, match=message):
        launch(planted(old, new), "fast", order)


def test_the_fast_mode_also_names_the_place_of_a_memory_fault():
    with pytest.raises(KernelError, match=r"out-of-bounds access to x, byte \d+ of 512, planted.metal:3\n  by thread"):
        launch(planted("x[at]", "x[at + 4096]"), "fast")


SHIFT = """\
uint i = thread_position_in_grid.x;
uint amount = uint(x[i]);
y[i] = float(1u << amount);
"""


def test_undefined_shifts_are_found_by_the_sanitizers():
    assert launch(SHIFT, "asan", x=X[:32], n=32, threads=32)[0][31] == 2.0**31
    with pytest.raises(KernelError, match=r"runtime error: shift exponent 32 is too large.*planted.metal:3"):
        launch(SHIFT, "asan", x=X[1:33], n=32, threads=32)


def test_the_sanitizers_find_an_overrun():
    with pytest.raises(KernelError, match=r"index 64 out of bounds for type .*, planted.metal:3"):
        launch(planted("shared[i] =", "shared[i + 1] ="), "asan")
    with pytest.raises(KernelError, match=r"AddressSanitizer: heap-buffer-overflow.*, planted.metal:3"):
        launch(planted("x[at]", "x[at + 1]"), "asan")


def test_what_is_not_set_is_nan():
    """Private and threadgroup variables, and outputs, in every mode: none of them starts as zero on a GPU."""
    body = """
    threadgroup float shared[32];
    float mine[4];
    uint i = thread_position_in_grid.x;
    if (i == 0) y[0] = shared[3];
    if (i == 1) y[1] = mine[uint(x[1])];
    if (i == 3) y[3] = x[3];
    """
    for mode in ("fast", "check", "asan"):
        y, _ = launch(body, mode, x=X[:32], n=32, threads=32)
        assert np.isnan(y[[0, 1, 2, 4, 31]]).all() and y[3] == 3.0, mode


def test_outputs_start_as_init_value():
    kernel = InlineKernel("counter", ("x",), ("n", "b"), body=COUNTER)
    n, b = HostLaunch()(
        kernel,
        [mx.array(X)],
        template=[],
        grid=(128, 1, 1),
        threadgroup=(64, 1, 1),
        output_shapes=[(2,), (3,)],
        output_dtypes=[mx.uint32, mx.bfloat16],
        init_value=5,
    )
    assert n.tolist() == [5 + 128, 5]
    assert b.dtype == mx.bfloat16 and b.tolist() == [5.0, 5.0, 5.0]


COUNTER = "atomic_fetch_add_explicit((device atomic_uint*)n, 1u, memory_order_relaxed);"


def test_atomics_are_within_bounds_and_do_not_race_with_each_other_only():
    assert (
        launch("atomic_fetch_add_explicit((device atomic_int*)y, 1, memory_order_relaxed);")[0].view(np.int32)[0] == 127
    )
    with pytest.raises(KernelError, match=r"out-of-bounds write to y.*planted.metal:1"):
        launch("atomic_fetch_add_explicit((device atomic_int*)y + 128, 1, memory_order_relaxed);")
    with pytest.raises(KernelError, match=r"data race.*planted.metal:1"):
        launch("y[0] = 1.0f; atomic_fetch_add_explicit((device atomic_int*)y, 1, memory_order_relaxed);")


def test_errors_of_the_compiler_name_file_and_line():
    with pytest.raises(CompileError, match=r"planted.metal:2:3: error: use of undeclared identifier 'z'"):
        launch("y[0] = x[0];\n  z = 1;")
    with pytest.raises(CompileError, match=r"planted.h:1.*increases floating-point precision: .*double"):
        launch("y[0] = f(x[0]);", header="inline float f(float x) { return x * 0.5; }")
    with pytest.raises(CompileError, match=r"planted.metal:1:.*ambiguous"):
        launch("y[0] = float(max(1, thread_position_in_grid.x));")


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16, mx.uint32, mx.int8])
def test_slices_of_a_cache_are_read_by_their_strides(dtype):
    """Without copies (contiguous=False): the base is the slice's, and what lies between its rows is not readable as data."""
    cache = mx.arange(2 * 5 * 16).reshape(1, 2, 5, 16).astype(dtype)
    part = cache[:, :, 1:4, 8:]
    body = """
    uint3 p = thread_position_in_grid;
    y[(p.z * 3 + p.y) * 8 + p.x] = x[p.z * x_strides[1] + p.y * x_strides[2] + p.x * x_strides[3] + beside[0]];
    if (p.x == 0 && p.y == 0) shape[p.z] = x_shape[p.z] * 100 + x_ndim;
    """

    def read(beside):
        kernel = InlineKernel("slice", ("x", "beside"), ("y", "shape"), contiguous=False, body=body)
        how = HostLaunch()
        y, shape = how(
            kernel,
            [part, mx.array([beside], mx.int32)],
            template=[],
            grid=(8, 3, 2),
            threadgroup=(8, 3, 1),
            output_shapes=[(2, 3, 8), (2,)],
            output_dtypes=[dtype, mx.int32],
        )
        return y, shape, how.last

    y, shape, last = read(0)
    assert y.dtype == dtype and mx.array_equal(y, part[0]) and shape.tolist() == [104, 204]
    assert last.bytes_read == {"x": 48 * part.itemsize, "beside": 4 * 48, "y": 0, "shape": 0}
    assert last.bytes_written == {"x": 0, "beside": 0, "y": 48 * part.itemsize, "shape": 8}
    for beside in (-1, 1):  # the first or the last element is outside
        with pytest.raises(KernelError, match=r"out-of-bounds read of x, byte .*, slice.metal:3"):
            read(beside)


def test_contiguous_inputs_are_copied_as_mlx_does():
    x = mx.arange(256, dtype=mx.float32).reshape(2, 128)[:, ::2].T
    kernel = InlineKernel("copy", ("x",), ("y",), body="y[thread_position_in_grid.x] = x[thread_position_in_grid.x];")
    (y,) = HostLaunch()(
        kernel,
        [x],
        template=[],
        grid=(128, 1, 1),
        threadgroup=(32, 1, 1),
        output_shapes=[(64, 2)],
        output_dtypes=[mx.float32],
    )
    assert mx.array_equal(x, y)


def test_grids_that_threadgroups_do_not_divide():
    """MLX launches by threads: the last threadgroup is smaller, its last simdgroup too."""
    body = """
    threadgroup float shared[64];
    uint i = thread_index_in_threadgroup, at = thread_position_in_grid.x;
    shared[i] = x[at];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    y[at] = simd_sum(1.0f) + 100.0f * threads_per_threadgroup.x + 0.0f * shared[threads_per_threadgroup.x - 1 - i];
    """
    y, last = launch(body, x=X[:101], n=101)
    np.testing.assert_array_equal(y, [6432.0] * 64 + [3732.0] * 32 + [3705.0] * 5)
    assert last.threads == 101


def test_threadgroup_arrays_of_any_shape_are_the_threadgroups():
    """Several to a declaration, sizes that are expressions, more dimensions, single values."""
    body = """
    constexpr int n = 8;
    threadgroup float a[4 * n][2], b[(n + 24) * 1], c;
    threadgroup float4 d[ n/2 + 1 ];
    threadgroup vec<float, 4> e[2]; threadgroup uint f;
    uint i = thread_position_in_grid.x;
    a[i][0] = x[i];
    b[i] = a[i][1] = 1.0f;
    if (i == 0) { c = 2.0f; d[4] = float4(3.0f); e[1] = float4(4.0f); f = 5u; }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    y[i] = a[31 - i][0] + 100.0f * (b[31 - i] + a[31 - i][1] + c + d[4].x + e[1].w + float(f));
    """
    y, last = launch(body, x=X[:32], n=32, threads=32)
    np.testing.assert_array_equal(y, X[31::-1] + 1600)
    assert last.threadgroup_bytes == 256 + 128 + 16 + 80 + 32 + 4


def test_every_access_of_every_thread_is_counted():
    body = "uint i = thread_position_in_grid.x; y[i] = x[0] + x[i]; y[i] += 1.0f;"
    _, last = launch(body, x=X)
    assert last.bytes_read["x"] == 2 * 4 * 128 and last.bytes_written["y"] in (4 * 128, 2 * 4 * 128)
    shared = launch(NEIGHBOURS)[1]  # threadgroup memory is not device memory
    assert shared.bytes_read == {"x": 512, "y": 0} and shared.bytes_written == {"x": 0, "y": 512}


VECTORS = """
uint i = thread_position_in_grid.x;
threadgroup float4 shared[32];
shared[i] = ((const device float4*)x)[i];
threadgroup_barrier(mem_flags::mem_threadgroup);
struct Pair { float4 a; packed_float3 b; };
Pair pair = {shared[31 - i], packed_float3(*(const device packed_float3*)(x + 3 * i))};
((device float4*)y)[31 - i] = pair.a + float4(float3(pair.b), 0.0f) * 0.0f;
"""


def test_vectors_are_counted_and_watched_as_a_whole():
    y, last = launch(VECTORS, threads=32, n=32, size=128)
    np.testing.assert_array_equal(y, X)
    assert last.bytes_read == {"x": 512 + 12 * 32, "y": 0} and last.bytes_written == {"x": 0, "y": 512}
    with pytest.raises(KernelError, match=r"out-of-bounds read of x, byte 51\d of 512, planted.metal:4"):
        launch(VECTORS.replace("x)[i]", "(x + 1))[i]"), threads=32, n=32, size=128)
    with pytest.raises(KernelError, match=r"data race: .*shared"):
        launch(VECTORS.replace("threadgroup_barrier(mem_flags::mem_threadgroup);", ""), threads=32, n=32, size=128)
