"""Repositories from a server that speaks the Hub's protocol: what is asked for, what is kept, what is said."""

import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlx_ddtree.hub.fetch import explain

from ..helpers import save_drafter, save_target, small_drafter, small_target
from .loopback import TOKEN, running_hub
from .programs import environment, run

NOBODY = "http://127.0.0.1:9"
TARGET, DRAFTER = "mlx-community/Qwen3-8B-4bit", "z-lab/Qwen3-8B-DFlash-b16"
LOAD = f"""
from mlx_ddtree import load
notes = load("{TARGET}").notes
print(notes["drafter"], notes["target_folder"], notes["target_revision"], notes["drafter_revision"])
"""
FETCH = """
import importlib.util, json, sys, types
places = importlib.util.find_spec("mlx_ddtree").submodule_search_locations
package = sys.modules["mlx_ddtree"] = types.ModuleType("mlx_ddtree")  # its modules without MLX, for a second less
package.__path__ = places
from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.hub.fetch import DRAFTER_FILES, fetch
for name, revision in json.loads(sys.argv[1]):
    try:
        print(fetch(name, revision, DRAFTER_FILES))
    except MlxDdtreeError as error:
        print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    target = small_target()
    save_target(root / "target", target)
    save_drafter(root / "drafter", small_drafter(target), shards=2)
    save_drafter(root / "other", small_drafter(target, seed=7), shards=2)
    return root


@pytest.fixture
def hub(folders):
    with running_hub() as state:
        state.add(TARGET, folders / "target")
        state.add(DRAFTER, folders / "other", "v1")
        state.add(DRAFTER, folders / "drafter", "main")
        yield state


def fetched(*asked, home, **values):
    """Lines that fetching (name, revision) printed."""
    done = run("-c", FETCH, json.dumps(asked), home=home, **values)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def same_files(folder, files):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == files


def test_load_by_name_then_offline(hub, tmp_path):
    """A quantisation's name finds its drafter; afterwards the cache serves both without a request."""
    first = run("-c", LOAD, home=tmp_path, HF_ENDPOINT=hub.url)
    assert DRAFTER in first.stdout, first.stderr
    assert hub.repositories[TARGET].refs["main"] in first.stdout
    assert hub.repositories[DRAFTER].refs["main"] in first.stdout
    offline = run("-c", LOAD, home=tmp_path, HF_ENDPOINT=NOBODY, HF_HUB_OFFLINE="1")
    assert offline.stdout == first.stdout, offline.stderr
    hub.requests.clear()
    again = run("-c", LOAD, home=tmp_path, HF_ENDPOINT=hub.url)
    assert again.stdout == first.stdout
    assert hub.downloads() == []


def test_revisions(hub, folders, tmp_path):
    """A branch, a tag and a commit are what they name; online a branch is asked for anew, a known commit never."""
    pinned, old = (hub.repositories[DRAFTER].refs[ref] for ref in ("main", "v1"))
    main, tag, commit = fetched((DRAFTER, None), (DRAFTER, "v1"), (DRAFTER, old), home=tmp_path, HF_ENDPOINT=hub.url)
    assert tag == commit != main
    assert tag.endswith(old)
    assert same_files(Path(tag), hub.files(DRAFTER, "v1")) and same_files(Path(main), hub.files(DRAFTER))
    hub.requests.clear()
    hub.add(DRAFTER, folders / "target", "main")
    again, still, moved = fetched(
        (DRAFTER, old), (DRAFTER, pinned), (DRAFTER, None), home=tmp_path, HF_ENDPOINT=hub.url
    )
    assert (again, still) == (commit, main) and moved not in (main, tag)
    assert not [path for _, path, _ in hub.requests if old in path or pinned in path]
    hub.statuses[DRAFTER] = 500  # a server in trouble is not needed for what is here
    assert fetched((DRAFTER, None), home=tmp_path, HF_ENDPOINT=hub.url) == [moved]
    assert fetched((DRAFTER, "v1"), home=tmp_path, HF_HUB_OFFLINE="1") == [tag]


def test_a_drafter_that_is_not_there_costs_no_weights(hub, tmp_path):
    """The target is looked at first, but its weights, thousands of times as large, are asked for after its drafter."""
    done = run("-c", f'from mlx_ddtree import load; load("{TARGET}", "no/drafter")', home=tmp_path, HF_ENDPOINT=hub.url)
    assert "ConfigError: no/drafter: no such folder here" in done.stderr
    assert not [name for name in hub.downloads() if name.endswith(".safetensors")]


def test_a_target_that_is_not_there_is_not_called_a_missing_drafter(hub, tmp_path):
    done = run("-c", 'from mlx_ddtree import load; load("no/target")', home=tmp_path, HF_ENDPOINT=hub.url)
    assert "ConfigError: no/target: no such folder here" in done.stderr


def test_connections_that_break_off_go_on(hub, tmp_path):
    """The rest of a file is asked for by range, from the last whole piece of 10 MiB on, and what arrives is whole."""
    (tmp_path / "large").mkdir()
    content = bytes(range(256)) * (3 << 15)  # 24 MiB
    (tmp_path / "large" / "model.safetensors").write_bytes(content)
    hub.add("me/large", tmp_path / "large")
    hub.drops["model.safetensors"] = [15 << 20]
    [folder] = fetched(("me/large", None), home=tmp_path, HF_ENDPOINT=hub.url)
    assert (Path(folder) / "model.safetensors").read_bytes() == content
    assert hub.downloads() == ["model.safetensors"] * 2
    assert hub.requests[-1][2] == f"bytes={10 << 20}-"


def test_a_killed_download_goes_on(hub, tmp_path):
    """Files that had arrived when the process died are not asked for again."""
    name = "model-00002-of-00002.safetensors"
    hub.drops[name] = [10] * 100
    asked = [sys.executable, "-c", FETCH, json.dumps([(DRAFTER, None)])]
    with subprocess.Popen(asked, env=environment(tmp_path, HF_ENDPOINT=hub.url), stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while len(list(tmp_path.glob("hub/*/snapshots/*/*"))) < 2 or len(hub.drops[name]) == 100:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        process.kill()
    hub.drops.clear()
    hub.requests.clear()
    [offline] = fetched((DRAFTER, None), home=tmp_path, HF_HUB_OFFLINE="1")
    assert "does not hold all of it" in offline  # half a repository is not taken for a whole one
    [folder] = fetched((DRAFTER, None), home=tmp_path, HF_ENDPOINT=hub.url)
    assert hub.downloads() == [name]
    assert same_files(Path(folder), hub.files(DRAFTER))


def test_ctrl_c_does_not_wait_for_the_file(hub, tmp_path):
    """The connection ends in the middle of it, and nothing unfinished stays in the cache."""
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "model.safetensors").write_bytes(bytes(200 << 20))
    hub.add("me/large", tmp_path / "large")
    hub.slow["model.safetensors"] = 0.05
    command = [sys.executable, "-m", "mlx_ddtree.models", "--download", TARGET, "--draft-model", "me/large"]
    values = environment(tmp_path, HF_ENDPOINT=hub.url)
    with subprocess.Popen(command, env=values, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not hub.downloads():
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted" and "Traceback" not in err
    assert hub.hung_up == ["model.safetensors"]
    assert list(tmp_path.glob("hub/**/*.incomplete")) == []


def test_what_is_said(hub, tmp_path):
    """Every way a repository can be refused has one line that names it and the remedy."""
    hub.repositories |= dict.fromkeys(["me/private", "me/gated", "me/down", "me/busy"], hub.repositories[DRAFTER])
    hub.private.add("me/private")
    hub.gated.add("me/gated")
    hub.statuses |= {"me/down": 500, "me/busy": 429}
    asked = [("no/where", None), (DRAFTER, "v9"), ("me/private", None), ("me/gated", None), ("me/down", None)]
    asked += [("me/busy", None), ("me/--bad..name", None), (str(tmp_path), "main")]
    lines = fetched(*asked, home=tmp_path, HF_ENDPOINT=hub.url)
    parts = [
        "ConfigError no/where: no such folder here, and no such repository",
        f"ConfigError {DRAFTER} has no revision 'v9'",
        "ConfigError me/private: no such folder here, and no such repository on the Hub that you may read",
        f"ConfigError me/gated is gated: accept its terms at {hub.url}/me/gated, and log in",
        f"MlxDdtreeError me/down could not be downloaded: {hub.url} answers 500",
        "MlxDdtreeError me/busy: the Hub takes no more requests",
        "ConfigError me/--bad..name is not a valid repository name",
        "OptionError",
    ]
    assert len(lines) == len(parts), lines
    for line, part in zip(lines, parts, strict=True):
        assert line.startswith(part), line
    allowed = fetched(("me/private", None), ("me/gated", None), home=tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
    assert all("/snapshots/" in line for line in allowed), allowed
    [refused] = fetched(("me/new", None), home=tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="hf_wrong")
    assert refused.startswith("ConfigError me/new: the Hub refuses the access token (401)"), refused


def test_nobody_answers(tmp_path):
    """Without a connection, and offline on purpose: the two have different remedies."""
    [line] = fetched((DRAFTER, None), home=tmp_path, HF_ENDPOINT=NOBODY)
    assert line.startswith(f"MlxDdtreeError {DRAFTER} could not be downloaded (")
    assert "check the connection and HF_ENDPOINT" in line
    [line] = fetched((DRAFTER, "v1"), home=tmp_path, HF_ENDPOINT=NOBODY, HF_HUB_OFFLINE="1")
    assert line.startswith(f"MlxDdtreeError {DRAFTER} at v1 could not be downloaded: HF_HUB_OFFLINE is set")


def test_disks_that_are_full_or_closed(hub, tmp_path):
    """The cache cannot be made where a file stands; a full disk names the folder to move."""
    cause = OSError(errno.ENOSPC, "No space left on device")
    try:
        raise RuntimeError("download failed") from cause
    except RuntimeError as error:
        assert "is full; free some space, or set HF_HOME" in str(explain(error, DRAFTER))
    (tmp_path / "file").write_text("")
    [line] = fetched((DRAFTER, None), home=tmp_path / "file", HF_ENDPOINT=hub.url)
    assert line.startswith(f"MlxDdtreeError {DRAFTER} could not be downloaded (NotADirectoryError")
