"""Without a home folder, or with one that cannot be written, programs work and say in one line where caches are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNKNOWN_USER = """
import pwd
def nobody(uid):
    raise KeyError(uid)
pwd.getpwuid = nobody
"""
READ_ONLY = """
import os
allowed = os.access
os.access = lambda path, mode, **how: not os.fspath(path).startswith({home!r}) and allowed(path, mode, **how)
"""
GENERATE = """
import os
from huggingface_hub import constants
from mlx_ddtree import generate, load
from mlx_ddtree._home import cache_folder
print(cache_folder())
print(constants.HF_HUB_CACHE)
print(generate(load(), "def add(a, b):", max_tokens=4, method="ar"))
"""


def run(program, tmp_path, **environment):
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "MKL_NUM_THREADS", "LANG")}
    own = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=kept | own | environment, cwd="/", capture_output=True, text=True, timeout=120)


def lines_about_home(done):
    return [line for line in done.stderr.splitlines() if "no home folder" in line]


def test_an_unknown_user_without_home(tmp_path):
    """As in a container that runs under any number: pwd knows nobody, and $HOME is not set."""
    program = UNKNOWN_USER + "import mlx_ddtree" + GENERATE
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr
    ours, models, text = done.stdout.split("\n", 2)
    assert ours.startswith(str(tmp_path)) and models.startswith(str(tmp_path)) and text.strip()
    assert len(lines_about_home(done)) == 1 and str(tmp_path) in lines_about_home(done)[0]
    [folder] = tmp_path.glob("mlx_ddtree-*")
    assert folder.stat().st_mode & 0o077 == 0  # nobody else reads or plants anything there


@pytest.mark.parametrize("program", ["models", "doctor"])
def test_programs_of_an_unknown_user(program, tmp_path):
    done = run(f"{UNKNOWN_USER}from mlx_ddtree.programs.{program} import main; main(['--json'])", tmp_path)
    assert "Traceback" not in done.stderr and done.stdout.startswith("{"), done.stderr
    assert len(lines_about_home(done)) == 1


def test_a_home_that_cannot_be_written(tmp_path):
    """Docker gives unknown users / as their home.  Models that lie there are read all the same."""
    home = tmp_path / "home"
    (home / ".cache" / "huggingface").mkdir(parents=True)
    done = run(READ_ONLY.format(home=str(home)) + "import mlx_ddtree" + GENERATE, tmp_path, HOME=str(home))
    assert done.returncode == 0, done.stderr
    ours, models, _ = done.stdout.split("\n", 2)
    assert not ours.startswith(str(home)) and ours.startswith(str(tmp_path))
    assert models.startswith(str(home / ".cache" / "huggingface"))
    assert len(lines_about_home(done)) == 1


def test_folders_that_the_user_names_are_used_in_silence(tmp_path):
    named = {"MLX_DDTREE_CACHE": str(tmp_path / "ours"), "HF_HOME": str(tmp_path / "theirs")}
    program = READ_ONLY.format(home="/no-home") + "import mlx_ddtree" + GENERATE
    done = run(program, tmp_path, HOME="/no-home", **named)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path}/ours\n{tmp_path}/theirs/hub\n")
    assert lines_about_home(done) == []


def test_a_usual_home_is_left_alone(tmp_path):
    done = run("import mlx_ddtree" + GENERATE, tmp_path, HOME=str(tmp_path))
    assert done.stdout.startswith(f"{tmp_path}/.cache/mlx_ddtree\n{tmp_path}/.cache/huggingface/hub\n"), done.stderr
    assert lines_about_home(done) == [] and not list(tmp_path.glob("mlx_ddtree-*"))
