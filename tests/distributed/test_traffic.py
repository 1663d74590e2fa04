"""What is reported as exchanged is what the sockets carried."""

import sys

import pytest

from .launch import Ranks

pytestmark = pytest.mark.ranks


@pytest.mark.skipif(sys.platform != "linux", reason="sockets are counted by Linux")
def test_counts_are_those_of_the_sockets(tmp_path):
    with Ranks(2, ["tests.distributed.programs", "traffic"], tmp_path) as ranks:
        plain, trees = ranks.results()
    for counted in (plain, trees):
        expected = counted["wire_bytes_per_rank"] + counted["order_bytes"]
        assert counted["sent"] == pytest.approx(expected, rel=0.02)
        # 10 layers with two exchanges each, of 256 channels in fp32; and the token ids of plain forwards
        assert counted["collectives"] in range(20 * counted["forwards"], 21 * counted["forwards"] + 1)
        assert counted["payload_bytes"] == pytest.approx(20 * counted["rows"] * 256 * 4, rel=0.01)
    assert trees["collectives"] < plain["collectives"] / 2  # a round waits for the others as often as a token
