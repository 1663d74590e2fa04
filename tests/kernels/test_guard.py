"""A kernel that fails in the middle of a text gives way to MLX's operations: same tokens, one line of warning.

Every kernel's own text runs on the processor, through the launches that a Mac's GPU would get, until it is made to fail.
"""

import logging

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree import stream_generate
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.sampler import Sampler
from mlx_ddtree.decoding.verify import verify
from mlx_ddtree.kernels.choice import MLX
from mlx_ddtree.kernels.guard import Guard, first_line
from mlx_ddtree.kernels.metal import MetalKernel, launch_on_metal
from mlx_ddtree.kernels.quantized import SharedInput
from mlx_ddtree.kernels.registry import DRAFT, TOP_K, kernel_choice
from mlx_ddtree.tuning.measure import profile_of
from mlx_ddtree.tuning.rounds import filled
from mlx_ddtree.tuning.sample_trees import bushy_tree

from .. import families, helpers
from ..metal_host import HostLaunch, missing_compiler

needs_compiler = pytest.mark.skipif(missing_compiler() is not None, reason=str(missing_compiler()))
PROMPT = [3, 14, 15, 9, 26, 5, 35]
TEXTS = {
    "tree_attention": {"tree_attention", "few_rows_attention", "merge_attention"},
    "verify_qmm": {"verify_qmm"},
    "head_topk": {"head_topk", "head_topk_dense"},
    "tree_gated_delta": {"tree_gated_delta"},
    "tree_gated_delta's convolution": {"tree_conv"},
    "tree_gated_delta's commit": {"commit_delta"},
    "tree_gated_delta's window": {"commit_window"},
    TOP_K: {"topk_logprobs"},
}
"""Which files of metal/ fail, by what is planted."""


def failing(kernels, after):
    """A launch that runs so many of these kernels and then none; and what it has run and refused."""
    host = HostLaunch("fast")
    seen = []

    def launch(kernel, inputs, **how):
        if kernel.name in kernels:
            seen.append(kernel.name)
            if len(seen) > after:
                raise RuntimeError("no pipeline\nand a long report of a compiler")
        return host(kernel, inputs, **how)

    return launch, seen


def said(pair, **how):
    return [t for r in stream_generate(pair, PROMPT, 16, **how) for t in r.tokens]


@needs_compiler
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("planted", TEXTS)
def test_a_kernel_that_fails_in_a_text_changes_no_token(planted, after, caplog):
    name = planted.partition("'")[0]

    def make():
        return families.tiny_pair("qwen3_5") if name == "tree_gated_delta" else helpers.small_pair(bits=4)

    want = said(make(), method="ar")
    pair = make()
    profile_of(pair)
    launch, seen = failing(TEXTS[planted], after)
    pair.target.kernels = kernel_choice({8: [name] if name != TOP_K else [], DRAFT: [TOP_K]}, launch)
    with caplog.at_level(logging.WARNING):
        assert said(pair, tree_budget=6) == want
    assert len(seen) == after + 1  # and was not asked again
    warnings = [record.message for record in caplog.records if record.name.startswith("mlx_ddtree")]
    assert warnings == [f"kernel {name} cannot run here and is not used: no pipeline"]


@needs_compiler
@pytest.mark.parametrize("after", [0, 1])
def test_a_commit_whose_kernel_fails_keeps_the_same_rows(after, caplog):
    """Rows of paths with gaps are gathered, which a random drafter's texts do not have."""
    caches = []
    launch, seen = failing({"gather_rows"}, after)
    for choice in (kernel_choice({}), kernel_choice({16: ["gather_rows"]}, launch)):
        state = filled(helpers.small_pair(), 20)
        state.pair.target.kernels = choice
        tree = bushy_tree(13, 5)
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                path = tree.path_to(12)
                verify(state, tree, RoundPlan("ddtree", None, 12, Sampler())).pending.commit(path)
                state.length += len(path)
        caches.append([np.array(x) for layer in state.caches.target for x in layer.keys_and_values()])
    assert len(seen) == after + 1 and caplog.text.count("gather_rows cannot run here") == 1
    for want, got in zip(*caches, strict=True):
        np.testing.assert_array_equal(want, got)


def test_a_failed_kernel_is_not_asked_again():
    calls = []

    def kernel(x):
        calls.append(x)
        raise ValueError

    guarded = Guard().over("a kernel", kernel, lambda x: -x)
    assert [guarded(1), guarded(2)] == [-1, -2] and calls == [1]


def test_ctrl_c_in_a_kernel_is_no_failure():
    def kernel():
        raise KeyboardInterrupt

    guard = Guard()
    with pytest.raises(KeyboardInterrupt):
        guard.over("a kernel", kernel, list)()
    assert not guard.failed


@pytest.mark.parametrize(("text", "line"), [("", "RuntimeError"), ("\n\n  b \nc", "b"), ("a\nb", "a")])
def test_warnings_have_one_line(text, line):
    assert first_line(RuntimeError(text)) == line


def test_the_first_launch_of_a_variant_is_waited_for(monkeypatch):
    """So that what its pipeline raises is raised where the call can be done again."""
    waited = []
    monkeypatch.setattr(mx, "eval", waited.append)
    kernel = MetalKernel("verify_qmm", ("x",), ("y",))
    monkeypatch.setattr(MetalKernel, "variant", lambda self, template: lambda **how: [mx.zeros(1)])
    how = {"grid": (1, 1, 1), "output_shapes": [(1,)], "output_dtypes": [mx.float32]}
    for rows, threads, waits in ((8, 32, 1), (8, 32, 1), (16, 32, 2), (16, 64, 3), (8, 32, 3)):
        launch_on_metal(kernel, [mx.zeros(8)], template=[("A TEST'S", rows)], threadgroup=(threads, 1, 1), **how)
        assert len(waited) == waits


def test_names_say_for_which_calls_a_kernel_was_chosen():
    x = mx.zeros((2, 64))
    packed = {columns: mx.quantize(mx.zeros((columns, 64)), 32, 4) for columns in (32, 96)}
    shapes = (32,), (96,), (96, 32), (32, 96)
    weights = [SharedInput([packed[n] for n in columns], 32, 4) for columns in shapes]
    launched = []

    def launch(kernel, inputs, **how):
        launched.append([shape[-1] for shape in how["output_shapes"]])
        return [mx.zeros(shape, dtype) for shape, dtype in zip(how["output_shapes"], how["output_dtypes"], strict=True)]

    kernels = kernel_choice({4: ["verify_qmm@96x64", "verify_qmm@96+32x64", "tree_attention@4096"]}, launch).of(4)
    for shared in weights:
        assert [y.shape[-1] for y in kernels.product(x, shared)] == list(shared.columns)
    assert launched == [[96], [96, 32]]
    assert kernels.attention_behind(4095) is None and kernels.attention_behind(4096) is not None
    assert kernels.names == ("tree_attention@4096", "verify_qmm@96x64", "verify_qmm@96+32x64")
    for unknown in (
        "verify_qmm@all",
        "tree_attention@",
        "another@3",
        "verify_qmm@1x2x3",
        "verify_qmm@1+x2",
        "tree_attention@x",
    ):
        made = kernel_choice({4: [unknown]}, launch).of(4)
        assert (made.attention is None) == (unknown != "tree_attention@") and made.product is None


def test_more_rows_than_were_checked_take_mlx_operations():
    choice = kernel_choice({8: ["verify_qmm"]})
    assert choice.of(128).product is not None and choice.of(129) is MLX
