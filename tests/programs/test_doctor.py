"""What the doctor says of a machine, and of kernels that are right, wrong or broken."""

import json
import subprocess
import sys

import mlx.core as mx
import pytest

from mlx_ddtree.kernels.cases import product_case, typical_cases
from mlx_ddtree.kernels.registry import TOP_K, options
from mlx_ddtree.machine import machine
from mlx_ddtree.programs.doctor import main
from mlx_ddtree.programs.examining import Examination, examination, examinations, show_report

from ..metal_host import HostLaunch, missing_compiler

needs_compiler = pytest.mark.skipif(missing_compiler() is not None, reason=str(missing_compiler()))


@needs_compiler
def test_every_kernel_that_can_be_chosen_is_examined():
    """At the sizes of real models, a thirty-second as large."""
    found = list(examinations(typical_cases(HostLaunch("fast"), mx.float16, scale=32), timed=False))
    assert [x for x in found if x.result != "ok"] == []
    assert {x.kernel for x in found} == {*(o.name for o in options(HostLaunch("fast"))), TOP_K}


@needs_compiler
def test_what_is_wrong_and_what_does_not_run_is_told_apart():
    host = HostLaunch("fast")

    def wrong(kernel, inputs, **how):
        return [x * 1.1 for x in host(kernel, inputs, **how)]

    def broken(kernel, inputs, **how):
        raise RuntimeError("no such instruction")

    sizes = {"depth": 64, "columns": 32, "rows": 3}
    assert examination(product_case(wrong, mx.float32, **sizes), timed=False).result == "DISAGREES"
    assert "no such instruction" in examination(product_case(broken, mx.float32, **sizes), timed=False).result
    timed = examination(product_case(host, mx.float32, **sizes), timed=True)
    assert timed.result == "ok" and timed.error < 1e-5 and timed.mlx_ms > 0 and timed.kernel_ms > 0


def test_the_machine_is_described():
    facts = machine()
    assert facts["memory"] > 2**30 and facts["mlx"] and facts["mlx_ddtree"] and facts["chip"]


def test_the_report_as_text_and_as_json(capsys):
    code = main(["--pair", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0 and report["machine"]["device"] in ("cpu", "gpu")
    assert report["pair"]["cost"]["rows"][0] == 1 and report["pair"]["parity"]["rows"] > 0
    if not mx.metal.is_available():
        assert report["kernels"] is None and report["pair"]["kernels"] == {}
        show_report(report)
        assert "no Metal here" in capsys.readouterr().out
    kernels = [Examination("verify_qmm", "4096 x 4096", "ok", 1e-3, 2.0, 1.0), Examination("x", "y", "does not run: z")]
    show_report(report | {"kernels": [vars(k) for k in kernels]})
    shown = capsys.readouterr().out
    assert "2.00x" in shown and "does not run: z" in shown and "verify, ms" in shown


def test_it_is_a_program():
    done = subprocess.run([sys.executable, "-m", "mlx_ddtree.doctor"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "mlx-lm" in done.stdout


def test_a_folder_that_is_not_there_is_said_in_a_line(capsys):
    assert main(["--model", "/nowhere"]) == 2
    assert "no such folder" in capsys.readouterr().err
