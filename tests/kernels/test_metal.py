"""The text of kernels."""

import re
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import pytest

from mlx_ddtree.kernels import metal
from mlx_ddtree.kernels.metal import MetalKernel, launch_on_metal, metal_folder, settled
from mlx_ddtree.kernels.quantized import SharedInput, shared_qmm
from mlx_ddtree.kernels.tree_attention import TreeMask, tree_attention


def test_a_repeated_line_is_written_for_every_array_and_moves_no_other():
    kernel = MetalKernel("gather_rows", (), (), repeat=12)
    body = kernel.text[1].split("\n")[1:]
    file = (metal_folder() / "gather_rows.metal").read_text().split("\n")
    repeated = [i for i, line in enumerate(file) if "$i" in line and not line.startswith("//")]
    assert repeated and len(body) == len(file)
    for i in repeated:
        assert re.findall(r"case (\d+): source = source_(\d+);", body[i]) == [(str(n), str(n)) for n in range(12)]
    assert [body[i] for i in range(1, len(file)) if i not in repeated] == [
        line.partition("//")[0].strip() for i, line in enumerate(file) if i and i not in repeated
    ]


def test_lines_keep_their_numbers_without_comments_and_indentation():
    """What the compiler says of a line must be found in the file; MLX copies the text at every call."""
    header, _ = MetalKernel("verify_qmm", (), ()).text
    lines = header.split("\n")
    assert "//" not in header and lines[0] == '#line 1 "verify_tile.h"'
    file = (metal_folder() / "verify_tile.h").read_text().split("\n")
    number = next(i for i, line in enumerate(file) if "simdgroup_multiply_accumulate" in line)
    assert lines[1 + number] == file[number].strip()


@pytest.fixture
def made(monkeypatch):
    """What MLX was asked to make kernels of, and what these were called with, in the place of MLX's."""
    texts, calls = [], []

    def metal_kernel(**text):
        texts.append(text)

        def call(**how):
            calls.append((text["name"], how))
            return [mx.zeros(shape) for shape in how["output_shapes"]]

        return call

    monkeypatch.setattr(mx.fast, "metal_kernel", metal_kernel)
    monkeypatch.setattr(metal, "_awaited", set())
    return texts, calls


HOW = {"grid": (1, 1, 1), "threadgroup": (32, 1, 1), "output_shapes": [(8,)], "output_dtypes": [mx.float32]}


def test_template_values_are_names_in_the_body_and_part_of_the_kernels_name(made):
    """MLX keeps one text for a name, and would compile two of one name again and again."""
    kernel = MetalKernel("verify_qmm", ("x",), ("y",), repeat=2)
    for template in ([("T", mx.bfloat16), ("ROWS", 8)], [("T", mx.float16), ("ROWS", 8)], [("T", mx.float16)]) * 2:
        kernel.variant(template)
    texts, _ = made
    assert [text["name"] for text in texts] == [
        f"mlx_ddtree_verify_qmm_2_{ending}" for ending in ("bfloat16_t_8", "half_8", "half")
    ]
    assert texts[0]["source"].startswith("typedef bfloat16_t T;\nconstexpr int ROWS = 8;\n#line 1")


def one_launch(template):
    kernel = MetalKernel("verify_qmm", ("x",), ("y",))
    return lambda launch, *inputs: launch(kernel, inputs, template=template, **HOW)


def test_a_settled_launch_waits_once_and_is_then_recorded(made, monkeypatch):
    waited = []
    monkeypatch.setattr(mx, "eval", waited.append)
    _, calls = made
    both = [settled(launch_on_metal, one_launch([("WIDE", True)])) for _ in range(2)]
    for _ in range(5):
        for run in both:
            run(mx.zeros(8))
    assert len(waited) == 1  # of one variant
    assert len(calls) == 4 and {name for name, _ in calls} == {"mlx_ddtree_verify_qmm_true"}  # as it is, then recorded


def test_a_settled_launch_that_fails_is_tried_as_a_first_one_again(made, monkeypatch):
    def no_pipeline(outputs):
        raise RuntimeError("no pipeline")

    run = settled(launch_on_metal, one_launch(()))
    with monkeypatch.context() as broken:
        broken.setattr(mx, "eval", no_pipeline)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no pipeline"):
                run(mx.zeros(8))
    run(mx.zeros(8))


def test_threads_have_records_of_their_own(made, monkeypatch):
    """MLX forgets a function's record in the thread that called it last, and takes it for another function's in others."""
    _, calls = made
    run = settled(launch_on_metal, one_launch(()))
    for _ in range(2):
        for _ in range(3):
            run(mx.zeros(8))
        with ThreadPoolExecutor(1) as pool:
            for _ in range(3):
                pool.submit(run, mx.zeros(8)).result()
    assert len(calls) in (4, 6)  # the system may give a number again to a thread


def graph_of(build):
    """What MLX would hand to the GPU for the arrays of `build()`: primitives with their arguments, in order."""
    events = []

    def take(event):
        if event["type"] == "primitive":
            events.append([event[part] for part in ("name", "arguments", "inputs", "outputs")])

    mx.export_function(take, lambda x: [*build(), x + 1], mx.zeros(1))
    return str(events)


def test_what_is_made_from_a_record_is_what_is_launched_without_one(monkeypatch):
    """Text, grid and shapes of every kernel, by MLX's own record of its graph."""
    monkeypatch.setattr(mx, "eval", lambda outputs: None)
    monkeypatch.setattr(metal, "_awaited", set())
    x = mx.zeros((1, 6, 128), mx.float16)
    weights = SharedInput([mx.quantize(mx.zeros((n, 128), mx.float16), 64, 4) for n in (96, 32)], 64, 4)
    queries, keys = mx.zeros((1, 4, 6, 64), mx.float16), mx.zeros((1, 2, 30, 64), mx.float16)
    tree = TreeMask(mx.zeros((8, 1), mx.uint32), mx.zeros(8, mx.int32))

    def build():
        return [*shared_qmm(x, weights), tree_attention(queries, keys, keys, tree, context=24, scale=0.125)]

    graphs = [graph_of(build) for _ in range(3)]
    assert graphs[0] == graphs[1] == graphs[2]
    assert graphs[0].count("CustomKernel") == 3
