"""Planted faults are reported with the kernel's file and line, and programs without faults are not."""

import mlx.core as mx
import numpy as np
import pytest

from . import HostLaunch, InlineKernel, KernelError, missing_compiler

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


def launch(body, mode="check", order="forward", x=X, threads=64, n=128, **more):
    kernel = InlineKernel("planted", ("x",), ("y",), body=body, **more)
    how = HostLaunch(mode, order)
    (y,) = how(
        kernel,
        [mx.array(x)],
        template=[],
        grid=(n, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[(n,)],
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
