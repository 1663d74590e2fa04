"""A program of this package at a pseudo-terminal, and what a person would see there."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress

import pyte

AT_A_TERMINAL = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C comes through a controlling terminal only
signal.signal(signal.SIGINT, signal.default_int_handler)
from mlx_ddtree.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
PASTE = "\x1b[200~{}\x1b[201~"
"""What a terminal makes of a pasted text where the program asked to be told (bracketed paste)."""


class Terminal:
    """`mlx_ddtree` with these arguments at a terminal.

    screen: what it shows; tall enough, it holds a whole session.
    unread: raw output since the last wait.
    """

    def __init__(self, *arguments, rows=40, columns=100, **environment):
        self.screen = pyte.Screen(columns, rows)
        self.screen.write_process_input = lambda text: os.write(self.master, text.encode())
        self._stream = pyte.ByteStream(self.screen)
        self.unread = ""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        unset = ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "LINES")
        kept = {name: value for name, value in os.environ.items() if name not in unset}
        command = [sys.executable, "-c", AT_A_TERMINAL, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=kept | {"TERM": "xterm-256color"} | environment
        )
        os.close(slave)

    def type(self, text):
        os.write(self.master, text.encode())

    def wait_for(self, text, seconds=60, key=""):
        """Until `text` comes, pressing `key` every second; what came since the last wait."""
        start, presses = time.monotonic(), 0
        while text not in self.unread:
            waited = time.monotonic() - start
            assert waited < seconds, f"no {text!r} in {self.unread!r}"
            if key and waited >= presses:
                self.type(key)
                presses += 1
            self._read(0.1)
        new, found, self.unread = self.unread.partition(text)
        return new + found

    def wait_for_end(self, seconds=60):
        """The exit status, once the program has ended."""
        start = time.monotonic()
        while time.monotonic() - start < seconds and self._read(0.1):
            pass
        return self.process.wait(timeout=seconds)

    def _read(self, seconds):
        """Take what comes within so many seconds; False at the end."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # Linux says so when the other side is closed
            return False
        self._stream.feed(data)
        self.unread += data.decode(errors="replace")
        return bool(data)

    @property
    def text(self):
        """What stands on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def close(self):
        self.process.kill()
        self.process.wait()
        with suppress(OSError):
            os.close(self.master)
