"""Who enters: stock first, ours, the known programs, and what --peer adds."""

import ast
import sys

import pytest

from mlx_ddtree.benchmarking.race.entrants import ADAPTERS, PEERS, make_entrants
from mlx_ddtree.benchmarking.race.programs.serve import load_adapter
from mlx_ddtree.errors import OptionError

OTHERS = sorted(file for file in ADAPTERS.glob("*.py") if file.name not in ("__init__.py", "serve.py"))


def names(*arguments, **options):
    return [entrant.name for entrant in make_entrants(*arguments, **options)]


def test_stock_and_ours_come_first_and_every_known_program_has_a_row():
    found = names(16)
    assert found[:4] == ["mlx_lm", "ours auto", "ours dflash 8", "ours ddtree 8"]
    assert {name.split()[0] for name in found[4:]} == set(PEERS)
    assert "z-lab block 16" in found and "mlx-dspark block 8" in found


def test_blocks_are_no_longer_than_the_drafters():
    assert "ours dflash 5" in names(5)
    assert [name for name in names(5) if name.startswith("z-lab")] == ["z-lab block 5"]


def test_a_peer_may_live_elsewhere_or_be_any_program(tmp_path):
    adapter = tmp_path / "mine.py"
    adapter.write_text("")
    found = make_entrants(8, [f"z-lab={sys.executable}", f"mine={sys.executable},{adapter}"])
    [mine] = [entrant for entrant in found if entrant.name == "mine"]
    assert (mine.program.adapter, mine.options) == (adapter, {})
    assert {entrant.program.python for entrant in found} == {sys.executable}


def test_only_some_race_and_stock_always_does():
    assert names(16, only=["ours auto", "mlx-vlm"]) == ["mlx_lm", "ours auto", "mlx-vlm cap 8"]
    with pytest.raises(OptionError, match="nobody is called 'vlm'"):
        names(16, only=["vlm"])


@pytest.mark.parametrize("peer", ["z-lab", "=x", "z-lab=", "z-lab=/no/such/python", "nobody={}", "mlx_lm={},{}"])
def test_what_is_no_peer_is_refused(peer, tmp_path):
    with pytest.raises(OptionError, match="--peer"):
        make_entrants(16, [peer.format(sys.executable, sys.executable)])


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: file.name)
def test_adapters_load_in_any_python_and_have_what_the_server_asks_for(file):
    """What they adapt is imported when it is needed: versions are reported, and the BLAS is loaded, before."""
    adapter = load_adapter(file)
    assert adapter.PACKAGES and callable(adapter.load) and callable(adapter.answer)
    first = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {name.name for node in first if isinstance(node, ast.Import) for name in node.names}
    modules |= {node.module for node in first if isinstance(node, ast.ImportFrom)}
    assert {module.split(".")[0] for module in modules} <= sys.stdlib_module_names
