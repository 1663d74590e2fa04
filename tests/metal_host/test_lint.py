"""The text in metal/ keeps Metal's rules, and the lint notices where planted text does not."""

import ast
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_ddtree import kernels
from mlx_ddtree.kernels.metal import MetalKernel, metal_folder

from . import HostLaunch, InlineKernel, LintError, missing_compiler
from .lint import compile_errors
from .rules import text_errors
from .text import capture

FILES = sorted(f for f in metal_folder().iterdir() if f.suffix in (".h", ".metal"))
needs_clang = pytest.mark.skipif(missing_compiler() is not None, reason=missing_compiler() or "")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_kernels_keep_the_rules(file):
    assert not [str(found) for found in text_errors(file.name, file.read_text())]


def test_every_kernel_has_a_launcher():
    """Its name stands in a module that makes kernels; and those are made of files that exist."""
    named, made = set(), set()
    for module in Path(kernels.__file__).parent.glob("*.py"):
        nodes = list(ast.walk(ast.parse(module.read_text())))
        calls = [n for n in nodes if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "MetalKernel"]
        made |= {c.args[0].value for c in calls if c.args and isinstance(c.args[0], ast.Constant)}
        named |= {n.value for n in nodes if calls and isinstance(n, ast.Constant) and isinstance(n.value, str)}
    files = {f.stem for f in FILES if f.suffix == ".metal"}
    assert made <= files <= named


VIOLATIONS = {
    "device float* p = at;\nfloat kernel = p[0];": "2: 'kernel' is a word of Metal",
    "int half = 3;": "1: 'half' is a word of Metal",
    "inline int ceildiv(int a, int b) { return (a + b - 1) / b; }": "1: 'ceildiv' is defined by MLX's header",
    "inline float f(const float* p) { return p[0]; }": "1: a pointer or reference without its address space: const float* p",
    "inline void f(thread float& x,\n float& y) { x = y; }": "1: a pointer or reference without its address space: float& y",
    "device float* p = x;\nfloat* q = p;": "2: a pointer or reference without its address space: float* q =",
    "float s = *(const float*)x;": "1: a pointer or reference without its address space: (const float*)",
    "inline int f(int n) { return n > 1 ? f(n - 1) : 0; }": "1: 'f' calls itself",
    "inline int g(int n);\ninline int f(int n) { return g(n); }\ninline int g(int n) { return f(n); }": "2: 'f' calls itself",
    "if (x[0] > 0.0f) {\n  threadgroup float t[3];\n}": "2: a threadgroup declaration that is not at the top",
    "{ threadgroup float t[3 * (N + 1)], u; }": "1: a threadgroup declaration that is not at the top",
    "inline void f() { threadgroup float t; t = 0.0f; }": "1: a threadgroup declaration that is not at the top",
    "threadgroup float t = 0.0f;": "1: threadgroup memory cannot be initialised",
    "float m = std::max(1.0f, 2.0f);": "1: 'std::max'",
    "// a comment\nfloat m = -INFINITY;": "2: 'INFINITY'",
    "float m = metal::numeric_limits<float>::infinity();": "1: 'infinity()'",
    "bool b = isnan(x[0]);": "1: 'isnan('",
    "float m = 0.5 * x[0];": "1: '0.5': a literal without f or h",
    "float m = 1e-5;": "1: '1e-5': a literal without f or h",
    "goto end;": "1: 'goto' is not in Metal",
    "double d;": "1: 'double' is not in Metal",
    "auto f = [&](float y) { return y; };": "1: a lambda",
    "#include <cmath>": "1: '#include <': only",
}


@pytest.mark.parametrize("text", VIOLATIONS)
def test_planted_violations_are_found(text):
    found = [str(f) for f in text_errors("planted.h", text)]
    assert any(f.startswith(f"planted.h:{VIOLATIONS[text]}") for f in found), found


CLEAN = """
#include <metal_simdgroup>
constant constexpr float LOWEST = -1.0e30f;  // instead of -INFINITY
template <typename T, int N>
struct Row {
  const device T* values;
  int count;
  METAL_FUNC float at(int i) const { return i < count ? float(values[i]) : 0.0f; }
};
template <typename Pointer>
inline float first(Pointer p) { return float(p[0]); }
inline float first_of(const threadgroup float* p, thread float& sum) {
  sum += p[0] * float(uint(3) > uint(2));
  return select(first(p), sum, p[0] > 0.5f);
}
"""
BODY = """
threadgroup float tile[N * 2];
threadgroup vec<T, 4> fours[4];
uint i = thread_index_in_threadgroup;
tile[i] = 0.0f;
fours[i % 4] = vec<T, 4>(T(0));
threadgroup_barrier(mem_flags::mem_threadgroup);
float sum = 0.0f;
const Row<T, N> row = {x, int(n[0])};
simdgroup_matrix<float, 8, 8> m = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
simdgroup_multiply_accumulate(m, m, m, m);
float4 four = float4(1.0f, sum, float2(3.0f)) * 2.0f;
y[i] = first_of(tile, sum) + row.at(int(i)) + m.thread_elements()[0] + four.x + float(fours[1].y) + simd_sum(sum);
"""


def written(body, header=CLEAN):
    kernel = InlineKernel("planted", ("x", "n"), ("y",), body=body, header=header)
    return capture(
        kernel,
        [mx.zeros((64,), mx.bfloat16), mx.array([3], mx.int32)],
        template=[("T", mx.bfloat16), ("N", 64)],
        grid=(64, 1, 1),
        threadgroup=(64, 1, 1),
        output_shapes=[(64,)],
        output_dtypes=[mx.float32],
    )


@needs_clang
def test_clean_text_passes():
    assert not text_errors("planted.h", CLEAN) and not text_errors("planted.metal", BODY)
    assert compile_errors(written(BODY)) == ""


BROKEN = {
    "threadgroup float* q = x;": "cannot initialize.*__local.*__global",
    "thread float* q = tile;": "cannot initialize.*__private.*__local",
    "first_of((device float*)y, sum);": "no matching function",
    "device float* z = n;": "cannot initialize",
    "Row<T, N> r = {tile, 3};": "cannot initialize",
    "double d = 1.0f; sum += d;": "double",
    "float (*f)(float) = nullptr;": "pointers to functions are not allowed",
    "if (i > 3) { threadgroup float late[3]; late[0] = sum; }": "variables in the local address space",
    "sum = max(1, i);": "ambiguous",
    "((const device T*)x)[0] = T(1);": "not assignable",
    "thread int* p = new int[3];": "new",
    "sum = unknown(3);": "undeclared identifier 'unknown'",
}


@needs_clang
@pytest.mark.parametrize("line", BROKEN)
def test_broken_address_spaces_and_types_are_found(line):
    body = BODY.replace("const Row", line + " const Row")
    with pytest.raises(AssertionError, match=rf"planted.metal:9:\d+: error: .*{BROKEN[line]}"):
        raise AssertionError(compile_errors(written(body)))


@needs_clang
def test_unused_parameters_are_found():
    header = CLEAN + "inline float lazy(float used, float not_used) { return used; }\n"
    assert "unused parameter 'not_used'" in compile_errors(written(BODY, header))
    assert "unused parameter 'n'" in compile_errors(written("y[0] = float(x[0]);"))


@needs_clang
def test_launches_of_kernels_in_files_are_linted():
    """With the template values of that launch; a kernel written in a test is its own business."""

    class InFiles(MetalKernel):
        text = ("", '#line 1 "in_files.metal"\ndevice float* q = y; thread float* p = q; p[0] = x[0];\n')

    launch = {"template": [], "grid": (1, 1, 1), "threadgroup": (1, 1, 1), "output_shapes": [(8,)]}
    with pytest.raises(LintError, match=r"in_files.metal:1:.*cannot initialize"):
        HostLaunch()(InFiles("in_files", ("x",), ("y",)), [mx.zeros(8)], output_dtypes=[mx.float32], **launch)
