"""One process at a time: a lock on an open file, which the system lets go when the process ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any

CANNOT_LOCK = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""What file systems without locks answer (some network shares): there, nothing is locked."""
_SECONDS_BETWEEN_TRIES = 0.1


def try_lock(file: IO[Any]) -> bool:
    """Take the lock of an open file; False if another process, or another opening of the file here, has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as problem:
        if problem.errno not in CANNOT_LOCK:
            raise
    return True


@contextmanager
def in_turn(path: Path, at_most: float, waiting: Callable[[], None]) -> Iterator[bool]:
    """Run the block while no other process runs one with the same file, which is made where it is missing.

    Gives whether that is so.

    at_most: seconds to wait; then the block runs all the same, because a process that was halted may never end.
    waiting: is called once, if another process has the lock.

    On a disk that takes no file the block runs at once.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError:
        yield True
        return
    with file:
        end = monotonic() + at_most
        mine = try_lock(file)
        if not mine:
            waiting()
            while monotonic() < end and not (mine := try_lock(file)):
                sleep(_SECONDS_BETWEEN_TRIES)
        yield mine
