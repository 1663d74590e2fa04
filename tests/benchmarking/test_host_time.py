"""The host's time, from outside: what the device does is none of it, and idle time is what it leaves."""

import threading
import time

import mlx.core as mx
import pytest
from mlx_lm.generate import generation_stream

from mlx_ddtree.benchmarking.host_time import HostClock, HostTime


@pytest.fixture(scope="module")
def clock():
    clock = HostClock([mx.default_stream(mx.default_device()), generation_stream])
    if clock.threads is None:
        pytest.skip("this system or device does not tell when the device works")
    return clock


def spent(clock, work):
    start = clock.now()
    work()
    return clock.now() - start


def test_streams_have_threads_of_their_own_and_python_has_others(clock):
    assert len(clock.threads) == 2
    assert not clock.threads & {thread.native_id for thread in threading.enumerate()}


def test_idle_time_is_exposed_and_takes_no_processor(clock):
    found = spent(clock, lambda: time.sleep(0.05))
    assert found.exposed == pytest.approx(found.wall, abs=0.005)
    assert found.main < found.wall / 2


def test_what_the_device_works_on_is_not_exposed(clock):
    """Shares, not seconds: other programs may slow all of it down, or stop it for a while."""
    numbers = mx.zeros((1 << 22,))
    mx.eval(numbers)

    def work():
        with mx.stream(generation_stream):
            mx.eval(*(mx.exp(numbers + i) for i in range(8)))

    shares = [(found.exposed / found.wall, found.main / found.wall) for found in (spent(clock, work) for _ in range(5))]
    assert min(exposed for exposed, _ in shares) < 0.5
    assert min(main for _, main in shares) < 0.5


def test_python_that_runs_counts_as_main(clock):
    def work():
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    found = spent(clock, work)
    assert found.main >= 0.02
    assert found.exposed >= 0.015


def test_time_that_is_not_known_stays_unknown():
    difference = HostTime(3.0, 2.0, None) - HostTime(1.0, 1.5, None)
    assert (difference.wall, difference.main, difference.exposed) == (2.0, 0.5, None)
    assert difference.as_dict() == {"main": 0.5}
