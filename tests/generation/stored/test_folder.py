"""A folder of files is bounded, belongs to one process, and survives a kill at any moment."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mlx_ddtree.errors import OptionError
from mlx_ddtree.files.tensors import Tensor, TensorFile
from mlx_ddtree.generation.stored.folder import StoredFolder

WRITER = """
import sys
from pathlib import Path
import numpy as np
from mlx_ddtree.files.tensors import Tensor, TensorFile
from mlx_ddtree.generation.stored.folder import StoredFolder

folder = StoredFolder(Path(sys.argv[1]), 2**30)
for number in range(10**6):
    values = np.full(2**20, number % 251, np.uint8)
    folder.write(f"{number:06}", TensorFile({"number": str(number)}, {"x": Tensor("U8", values)}))
"""


def file_of(size, number=0):
    return TensorFile({"number": str(number)}, {"x": Tensor("U8", np.full(size, number, np.uint8))})


@pytest.fixture
def folder(tmp_path):
    folder = StoredFolder(tmp_path / "deep" / "caches", 10_000)
    yield folder
    folder.close()


def test_a_kill_while_writing_costs_no_other_file(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
    try:
        end = time.monotonic() + 60
        while not list(tmp_path.glob("000002*")) and time.monotonic() < end:
            time.sleep(0.0005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    folder = StoredFolder(tmp_path, 2**30)
    names = sorted(folder.names)
    assert names[:2] == ["000000", "000001"]
    for name in names:
        held = folder.read(name)
        assert held is not None
        assert (held.tensors["x"].values == int(name) % 251).all()
    assert not list(tmp_path.glob("*.unfinished"))
    folder.close()


def test_what_was_used_longest_ago_goes(folder):
    for name in "abc":
        folder.write(name, file_of(3000))
    folder.used(["a"])
    folder.write("d", file_of(3000))
    assert sorted(folder.names) == ["a", "c", "d"]
    assert folder.nbytes <= 10_000
    assert sorted(path.stem for path in folder.path.glob("*.safetensors")) == ["a", "c", "d"]


def test_a_chain_goes_from_its_end(folder):
    for name in "abc":
        folder.write(name, file_of(3000))
    folder.used(["a", "b", "c"])
    folder.write("d", file_of(3000))
    assert sorted(folder.names) == ["a", "b", "d"]


def test_when_files_were_used_outlives_the_process(folder):
    for name in "abc":
        folder.write(name, file_of(3000))
    folder.used(["a"])
    folder.close()
    again = StoredFolder(folder.path, 7_000)
    assert sorted(again.names) == ["a", "c"]
    again.close()


def test_a_file_that_is_too_large_is_not_kept(folder):
    folder.write("a", file_of(20_000))
    assert "a" not in folder and folder.nbytes == 0


def test_a_damaged_file_is_found_and_goes(folder):
    folder.write("a", file_of(3000))
    path = folder.path / "a.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert folder.read("a") is None
    assert "a" not in folder and not path.exists()


def test_one_process_at_a_time(folder):
    with pytest.raises(OptionError, match="another process"):
        StoredFolder(folder.path, 10_000)
    folder.close()
    StoredFolder(folder.path, 10_000).close()


def test_others_cannot_read_it(folder):
    folder.write("a", file_of(10))
    assert os.stat(folder.path).st_mode & 0o077 == 0
    assert os.stat(folder.path / "a.safetensors").st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="cannot be kept in"):
        StoredFolder(tmp_path / "file" / "caches", 10_000)
