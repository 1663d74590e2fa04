"""One process at a time: a lock on an open file, which the system lets go when the process ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
from typing import IO, Any

CANNOT_LOCK = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""What file systems without locks answer (some network shares): there, nothing is locked."""


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
