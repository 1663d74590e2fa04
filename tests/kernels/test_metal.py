"""The text of kernels."""

import re

from mlx_ddtree.kernels.metal import MetalKernel, metal_folder


def test_a_repeated_line_is_written_for_every_array_and_moves_no_other():
    kernel = MetalKernel("gather_rows", (), (), repeat=12)
    body = kernel.text[1].split("\n")[1:]
    file = (metal_folder() / "gather_rows.metal").read_text().split("\n")
    repeated = [i for i, line in enumerate(file) if "$i" in line and not line.startswith("//")]
    assert repeated and len(body) == len(file)
    for i in repeated:
        assert re.findall(r"case (\d+): source = source_(\d+);", body[i]) == [(str(n), str(n)) for n in range(12)]
    assert [body[i] for i in range(1, len(file)) if i not in repeated] == [
        line for i, line in enumerate(file) if i and i not in repeated
    ]
