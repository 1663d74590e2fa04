"""The text of kernels."""

import re

import mlx.core as mx
import pytest

from mlx_ddtree.kernels import metal
from mlx_ddtree.kernels.metal import MetalKernel, launch_on_metal, metal_folder, settled


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


def test_a_settled_launch_waits_once_and_then_calls_the_kernel_itself(made, monkeypatch):
    waited = []
    monkeypatch.setattr(mx, "eval", waited.append)
    _, calls = made
    kernel = MetalKernel("verify_qmm", ("x",), ("y",))
    both = [settled(launch_on_metal, kernel, template=[("WIDE", True)], **HOW) for _ in range(2)]
    for _ in range(3):
        for run in both:
            run([mx.zeros(8)])
    assert len(waited) == 1  # of one variant
    assert len(calls) == 6 and {name for name, _ in calls} == {"mlx_ddtree_verify_qmm_true"}


def test_a_settled_launch_that_fails_is_tried_as_a_first_one_again(made, monkeypatch):
    def no_pipeline(outputs):
        raise RuntimeError("no pipeline")

    run = settled(launch_on_metal, MetalKernel("verify_qmm", ("x",), ("y",)), template=(), **HOW)
    with monkeypatch.context() as broken:
        broken.setattr(mx, "eval", no_pipeline)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no pipeline"):
                run([mx.zeros(8)])
    run([mx.zeros(8)])
