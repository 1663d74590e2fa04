"""A rank that dies, hangs or fails ends the run on every other one: with its name, an exit code, and at once."""

import signal
from time import monotonic

import pytest

from mlx_ddtree.distributed.watch import EXIT_CODE

from .folders import save_pair
from .launch import Ranks

pytestmark = pytest.mark.ranks
FOREVER = ["tests.distributed.programs", "forever"]


@pytest.mark.parametrize(
    ("victim", "number", "reason"),
    [
        (1, signal.SIGKILL, "rank 1 on {} is gone"),
        (0, signal.SIGKILL, "rank 0 on {} is gone"),
        (1, signal.SIGSTOP, "rank 1 on {} has said nothing for 3 s"),
    ],
)
def test_a_rank_is_lost_while_text_is_made(victim, number, reason, tmp_path):
    with Ranks(2, FOREVER, tmp_path, MLX_DDTREE_RANK_TIMEOUT="3") as ranks:
        ranks.wait_for("token 20\n")
        ranks.signal(victim, number)
        lost = monotonic()
        other = 1 - victim
        assert ranks.processes[other].wait(30) == EXIT_CODE
        assert monotonic() - lost < 20
        assert "error: " + reason.split("{}")[0] in ranks.err(other)
        assert reason.split("{}")[1] in ranks.err(other)


def test_every_rank_learns_why(tmp_path):
    """Also one that is not connected to the lost one."""
    with Ranks(4, ["tests.distributed.programs", "idle"], tmp_path) as ranks:
        ranks.wait_for("idle\n")
        ranks.signal(2, signal.SIGKILL)
        for rank in (0, 1, 3):
            assert ranks.processes[rank].wait(30) == EXIT_CODE
            assert "error: rank 2 on " in ranks.err(rank)


def test_a_rank_that_fails_says_what(tmp_path):
    with Ranks(2, ["tests.distributed.programs", "fail"], tmp_path) as ranks:
        assert ranks.wait(60) == [EXIT_CODE, 1]
        assert "error: rank 1 failed: KeyError" in ranks.err(0)


def test_ctrl_c_ends_all_and_leaves_nothing_behind(tmp_path):
    with Ranks(2, FOREVER, tmp_path) as ranks:
        ranks.wait_for("token 20\n")
        for rank in (0, 1):  # as a terminal does
            ranks.signal(rank, signal.SIGINT)
        assert ranks.wait(30) == [130, 0]
        assert ranks.err(1) == ""


def test_a_run_goes_on_after_ctrl_c(tmp_path):
    """The caches of both ranks stand where they stood: what follows is what would have followed."""
    with Ranks(2, ["tests.distributed.programs", "interrupted"], tmp_path) as ranks:
        assert ranks.results() == [True, True, True]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["mlx_ddtree.generate", "--prompt", " "], "error: the prompt is empty"),
        (["mlx_ddtree.generate", "--model", "./none"], "error: ./none: no such folder"),
        (["mlx_ddtree.generate", "--adapter-path", "."], "error: adapters cannot be split over several machines"),
        (["mlx_ddtree.generate", "--pipeline"], "error: mlx-lm has no pipeline for model type 'qwen3'"),
        (
            ["mlx_ddtree.generate", "--n", "2", "--temp", "1"],
            "works with a target on one machine, and this one stands on 2",
        ),
        (["mlx_ddtree.generate", "--kv-budget", "64"], "error: a budget for keys and values"),
        (["mlx_ddtree.doctor"], "error: this program works on one machine"),
    ],
)
def test_what_is_wrong_is_said_once_and_ends_all(command, message, tmp_path):
    with Ranks(2, command, tmp_path) as ranks:
        assert ranks.wait(60)[0] == 2
        assert message in ranks.err(0)
        assert ranks.out(0) == ranks.out(1) == ""


def test_a_model_that_one_machine_lacks(tmp_path):
    folder = save_pair(tmp_path / "pair", "qwen3")
    with Ranks(2, ["tests.distributed.programs", "missing", folder], tmp_path / "ranks") as ranks:
        (said,) = ranks.results()
    assert said.startswith("rank 1 on ") and "no such folder" in said


def test_groups_of_quantised_weights_are_not_torn(tmp_path):
    folder = save_pair(tmp_path / "pair", "qwen3", 4) / "target"
    with Ranks(4, ["mlx_ddtree.generate", "--model", folder, "--method", "ar"], tmp_path / "ranks") as ranks:
        assert ranks.wait(60) == [2, 0, 0, 0]
        assert "4 ranks cannot share this model's layers evenly: use another number" in ranks.err(0)


def test_ranks_that_nobody_can_share(tmp_path):
    with Ranks(3, ["mlx_ddtree.generate"], tmp_path) as ranks:
        assert ranks.wait(60) == [2, 0, 0]
        assert "3 ranks cannot share 4 attention heads" in ranks.err(0)
