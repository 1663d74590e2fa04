"""What the shim says about Metal's functions, against numpy."""

import mlx.core as mx
import numpy as np
import pytest

from . import HostLaunch, InlineKernel, missing_compiler

pytestmark = pytest.mark.skipif(missing_compiler() is not None, reason=missing_compiler() or "")
RNG = np.random.default_rng(0)


def run(body, inputs, shapes, dtypes, threads=32, template=(), mode="check", order="forward"):
    kernel = InlineKernel("unit", tuple(inputs), tuple(f"o{i}" for i in range(len(shapes))), body=body)
    return HostLaunch(mode, order)(
        kernel,
        list(inputs.values()),
        template=list(template),
        grid=(threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=shapes,
        output_dtypes=dtypes,
    )


SIMD = """
uint i = thread_index_in_simdgroup;
float v = x[i];
float f[11] = {simd_sum(v), simd_max(v), simd_min(v), simd_product(v), simd_prefix_inclusive_sum(v),
               simd_prefix_exclusive_sum(v), simd_shuffle(v, ushort(31 - i)), simd_shuffle_xor(v, 5),
               simd_shuffle_down(v, 4), simd_shuffle_up(v, 3), simd_broadcast(v, 7)};
for (uint k = 0; k < 11; ++k) o0[k * 32 + i] = f[k];
uint b = uint(b_in[i]);
uint u[8] = {simd_or(b), simd_and(b), simd_xor(b), uint(ulong(simd_vote::vote_t(simd_ballot(v > 0.0f)))),
             uint(simd_any(b == 7u)), uint(simd_all(b != 0u)), simd_sum(b), simd_shuffle_rotate_down(b, 1)};
for (uint k = 0; k < 8; ++k) o1[k * 32 + i] = u[k];
float4 four = simd_sum(float4(v, 2.0f * v, float2(v, 1.0f)));
o2[i] = four.w + dot(four.xy, float2(1.0f, 1.0f));
"""


@pytest.mark.parametrize("order", ["forward", "shuffled"])
def test_simd_operations(order):
    x = RNG.normal(size=32).astype(np.float32)
    b = RNG.integers(0, 2**31, 32).astype(np.uint32)
    f, u, v = (
        np.array(o)
        for o in run(
            SIMD,
            {"x": mx.array(x), "b_in": mx.array(b)},
            [(11, 32), (8, 32), (32,)],
            [mx.float32, mx.uint32, mx.float32],
            order=order,
        )
    )
    lanes = np.arange(32)
    wide = x.astype(np.float64)
    expected = [
        np.full(32, wide.sum()),
        np.full(32, wide.max()),
        np.full(32, wide.min()),
        np.full(32, wide.prod()),
        wide.cumsum(),
        wide.cumsum() - wide,
        wide[::-1],
        wide[lanes ^ 5],
        np.where(lanes + 4 < 32, wide[(lanes + 4) % 32], wide),
        np.where(lanes >= 3, wide[(lanes - 3) % 32], wide),
        np.full(32, wide[7]),
    ]
    np.testing.assert_allclose(f, expected, rtol=2e-6, atol=2e-6)
    ballot = sum(1 << int(i) for i in lanes if x[i] > 0)
    of_all = [
        np.bitwise_or.reduce(b),
        np.bitwise_and.reduce(b),
        np.bitwise_xor.reduce(b),
        ballot,
        0,
        1,
        b.sum(dtype=np.uint32),
    ]
    for row, value in zip(u, of_all, strict=False):
        assert (row == value).all()
    np.testing.assert_array_equal(u[7], np.roll(b, -1))
    np.testing.assert_allclose(v, 32 + 3 * wide.sum(), rtol=1e-5)


MATRIX = """
threadgroup T tile[64 + 8];
uint i = thread_index_in_simdgroup;
simdgroup_matrix<T, 8, 8> A, B, At;
simdgroup_matrix<float, 8, 8> C, D = make_filled_simdgroup_matrix<float, 8, 8>(0.5f), E = simdgroup_matrix<float, 8, 8>(2.0f);
simdgroup_load(A, a + 3, 16);
simdgroup_load(B, b, 8, ulong2(0, 0), true);
simdgroup_multiply_accumulate(C, A, B, D);
simdgroup_store(C, o0, 8);
simdgroup_multiply(C, C, E);
simdgroup_store(C, o1, 8, ulong2(0, 0), true);
for (uint k = 0; k < 2; ++k) o2[i * 2 + k] = float(A.thread_elements()[k]);
simdgroup_store(A, tile, 9);
simdgroup_barrier(mem_flags::mem_threadgroup);
for (uint k = i; k < 64; k += 32) o3[k] = float(tile[k / 8 * 9 + k % 8]);
A.thread_elements() = vec<T, 2>(T(1.0f), T(0.0f));
simdgroup_store(A, o4, 8);
"""


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_simdgroup_matrices(dtype):
    """Loads by stride and transposed, products accumulated in float, and the lanes' elements as Apple lays them out:
    lane 0 holds (0, 0) and (0, 1), lane 1 (0, 2), lane 2 row 1, lane 8 column 4, lane 16 row 4."""
    a, b = (mx.array(RNG.normal(size=s).astype(np.float32)).astype(dtype) for s in ((8, 16), (8, 8)))
    outputs = run(
        MATRIX,
        {"a": a, "b": b},
        [(8, 8)] * 2 + [(32, 2), (8, 8), (8, 8)],
        [mx.float32] * 4 + [dtype],
        template=[("T", dtype)],
    )
    c, doubled, elements, tile, pattern = (np.array(o.astype(mx.float32)) for o in outputs)
    left, right = np.array(a.astype(mx.float32))[:, 3:11], np.array(b.astype(mx.float32))
    np.testing.assert_allclose(c, left @ right.T + 0.5, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(doubled.T, 2 * c, rtol=1e-6)
    np.testing.assert_array_equal(tile, left)
    rows = [(lane // 16 * 4 + lane % 8 // 2, lane // 8 % 2 * 4 + lane % 2 * 2) for lane in range(32)]
    np.testing.assert_array_equal(elements, [[left[r, c], left[r, c + 1]] for r, c in rows])
    assert rows[1] == (0, 2) and rows[2] == (1, 0) and rows[8] == (0, 4) and rows[16] == (4, 0)
    np.testing.assert_array_equal(pattern, np.tile([1.0, 0.0], (8, 4)))


TYPES = """
uint i = thread_position_in_grid.x;
bfloat p = x[i], q = y[i];
o0[i] = p * q + p;
o1[i] = as_type<ushort>(bfloat(float(p) / 3.0f));
half h = half(float(p)), g = half(float(q));
o2[i] = h * g + h;
float4 v = float4(*(device const packed_float4*)(z + 1)) * float4(1.0f, 2.0f, 3.0f, 4.0f);
o3[i] = i < 4 ? v[i] : select(fma(z[0], 2.0f, 1.0f), clamp(float(i), 5.0f, 9.0f), i < 16);
uint bits = as_type<uint>(z[2]);
o4[i] = popcount(bits) + 100 * ctz(bits) + 10000 * clz(bits) + 1000000 * extract_bits(bits, 20, 3);
o5[i] = precise::exp(z[3]) + metal::fast::log2(fabs(z[4])) + rsqrt(z[5] * z[5]) + metal::max(z[6], -z[6]) + half2(h, g).x * 0.0f;
"""


def test_types_round_as_they_should():
    """16-bit arithmetic rounds after every operation."""
    x, y = (mx.array(RNG.normal(size=32).astype(np.float32)).astype(mx.bfloat16) for _ in range(2))
    z = mx.array(RNG.normal(size=8).astype(np.float32))
    shapes, dtypes = [(32,)] * 6, [mx.bfloat16, mx.uint16, mx.float16, mx.float32, mx.uint32, mx.float32]
    bf, third, fp, vectors, bits, functions = run(TYPES, {"x": x, "y": y, "z": z}, shapes, dtypes)
    assert mx.array_equal(bf, x * y + x)
    assert mx.array_equal(third.view(mx.bfloat16), (x.astype(mx.float32) / 3).astype(mx.bfloat16))
    h, g = x.astype(mx.float16), y.astype(mx.float16)
    assert mx.array_equal(fp, h * g + h)
    n, found = np.array(z), np.array(vectors)
    np.testing.assert_array_equal(found[:4], n[1:5] * np.float32([1, 2, 3, 4]))
    np.testing.assert_array_equal(found[4:16], np.clip(np.arange(4, 16), 5, 9))
    np.testing.assert_allclose(found[16:], 2 * n[0] + 1, rtol=1e-6)
    b = int(n[2:3].view(np.uint32)[0])
    low, high = (b & -b).bit_length() - 1, 32 - b.bit_length()
    assert bits.tolist() == [b.bit_count() + 100 * low + 10000 * high + 1000000 * (b >> 20 & 7)] * 32
    expected = np.exp(n[3]) + np.log2(abs(n[4])) + 1 / abs(n[5]) + abs(n[6])
    np.testing.assert_allclose(np.array(functions), expected, rtol=1e-5)
