"""Several ranks of one program on this machine, as mlx.launch starts them, with MLX's ring over loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

ROOT = Path(__file__).parents[2]


class Ranks:
    """Processes by rank; what they print goes to files in `folder`."""

    def __init__(self, size, command, folder, **environment):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.processes = folder, []
        (folder / "hosts.json").write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(size)]))
        shared = {"MLX_HOSTFILE": str(folder / "hosts.json"), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        for rank in range(size):
            with open(self.path(rank, "out"), "wb") as out, open(self.path(rank, "err"), "wb") as err:
                variables = os.environ | shared | {"MLX_RANK": str(rank), "PYTHONPATH": str(ROOT)} | environment
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-u", "-m", *map(str, command)],
                        stdin=subprocess.PIPE,
                        stdout=out,
                        stderr=err,
                        env=variables,
                        cwd=ROOT,
                        start_new_session=True,
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with ExitStack() as stack:
            for process in self.processes:
                stack.callback(process.wait, 10)
                if process.poll() is None:
                    os.kill(process.pid, signal.SIGCONT)
                    process.kill()
                process.stdin.close()

    def path(self, rank, stream):
        return self.folder / f"rank{rank}.{stream}"

    def out(self, rank=0):
        return self.path(rank, "out").read_text()

    def err(self, rank=0):
        return self.path(rank, "err").read_text()

    def wait(self, seconds=120):
        """Exit codes by rank."""
        deadline = monotonic() + seconds
        return [process.wait(max(deadline - monotonic(), 0.1)) for process in self.processes]

    def wait_for(self, text, rank=0, seconds=60):
        """Until rank `rank` has printed `text`."""
        deadline = monotonic() + seconds
        while text not in self.out(rank):
            assert self.processes[rank].poll() is None, self.err(rank)
            assert monotonic() < deadline, (self.out(rank), self.err(rank))
            sleep(0.02)

    def say(self, text):
        """To every rank, as mlx.launch passes on what is typed."""
        for process in self.processes:
            process.stdin.write(text.encode())
            process.stdin.flush()

    def signal(self, rank, number):
        self.processes[rank].send_signal(number)

    def results(self, seconds=120):
        """What rank 0 printed as JSON, a line each."""
        codes = self.wait(seconds)
        assert codes == [0] * len(codes), (codes, [self.err(r)[-2000:] for r in range(len(codes))])
        return [json.loads(line) for line in self.out().splitlines()]


def free_ports(count):
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]
