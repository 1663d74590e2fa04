"""load() from folders in the public layout and from a server that speaks the Hub's protocol."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_ddtree import MlxDdtreeError, load, stream_generate
from mlx_ddtree.errors import ConfigError, PairError, WeightsError
from mlx_ddtree.target import TreeTarget

from ..families import FAMILIES, tiny_target
from ..helpers import save_drafter, save_target, small_drafter, small_target


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    target = small_target()
    save_target(root / "Qwen3-8B-4bit", target)
    save_drafter(root / "drafter", small_drafter(target))
    return root


def answer(pair):
    return [t for r in stream_generate(pair, [5, 9, 23], 12) for t in r.tokens]


def test_folders(folders):
    pair = load(str(folders / "Qwen3-8B-4bit"), str(folders / "drafter"))
    assert pair.target.taps == (0, 1, 2)
    assert len(answer(pair)) > 0
    if mx.default_device() == mx.cpu:  # 16-bit products are slow there
        assert pair.target.embed(mx.array([[0]])).dtype == mx.float32
    assert pair.drafter.fc.weight.dtype == pair.target.embed(mx.array([[0]])).dtype


@pytest.mark.skipif(mx.default_device() != mx.cpu, reason="the rule is the CPU backend's")
def test_types_on_the_cpu(tmp_path):
    """16-bit weights compute in fp32 with the values they were stored with; quantised ones stay as they are."""
    target = small_target()
    save_target(tmp_path / "bf16", target)
    stored = mx.load(str(tmp_path / "bf16" / "model.safetensors"))["model.layers.0.mlp.up_proj.weight"]
    loaded = load(str(tmp_path / "bf16"), draft=False).target.model.layers[0].mlp.up_proj.weight
    assert (stored.dtype, loaded.dtype) == (mx.bfloat16, mx.float32)
    assert mx.array_equal(stored.astype(mx.float32), loaded)

    quantised = small_target(bits=4)
    save_target(tmp_path / "4bit", quantised, quantization={"group_size": 32, "bits": 4})
    save_drafter(tmp_path / "drafter", small_drafter(quantised))
    pair = load(str(tmp_path / "4bit"), str(tmp_path / "drafter"))
    layer = pair.target.model.layers[0].mlp.up_proj
    assert (layer.weight.dtype, layer.scales.dtype) == (mx.uint32, mx.bfloat16)
    assert pair.drafter.fc.weight.dtype == mx.bfloat16  # the drafter follows the target's activations
    assert len(answer(pair)) > 0


@pytest.mark.parametrize("name", ["qwen3_5", "gpt_oss", "gemma4, shared keys"])
def test_folders_of_other_families(name, tmp_path):
    """Nested text configs, states, rings and shared keys, from disk to tokens."""
    target = tiny_target(name)
    save_target(tmp_path / "target", target, **FAMILIES[name])
    save_drafter(tmp_path / "drafter", small_drafter(target))
    pair = load(str(tmp_path / "target"), str(tmp_path / "drafter"))
    assert isinstance(pair.target, TreeTarget)
    assert answer(pair) == [t for r in stream_generate(pair, [5, 9, 23], 12, method="ar") for t in r.tokens]


def test_a_quantised_drafter_beside_any_target(folders, tmp_path):
    drafter = small_drafter(small_target())
    nn.quantize(drafter, group_size=32, bits=4)
    save_drafter(tmp_path / "4bit", drafter, quantization={"group_size": 32, "bits": 4})
    pair = load(str(folders / "Qwen3-8B-4bit"), str(tmp_path / "4bit"))
    assert pair.drafter.fc.weight.dtype == mx.uint32
    assert answer(pair) == answer(load(str(folders / "Qwen3-8B-4bit"), str(folders / "drafter")))


def test_a_drafter_of_another_target(folders, tmp_path):
    save_drafter(tmp_path / "other", small_drafter(small_target(vocab=70)))
    with pytest.raises(PairError, match="vocabulary of 70 tokens"):
        load(str(folders / "Qwen3-8B-4bit"), str(tmp_path / "other"))


def test_without_drafter(folders):
    assert load(str(folders / "Qwen3-8B-4bit"), draft=False).drafter is None


def test_no_drafter_known(folders):
    with pytest.raises(PairError, match=r"draft=\.\.\. / --draft-model"):
        load(str(folders / "drafter"))


@pytest.mark.parametrize("name", ["./not/there", "/not/there", "nothing", "a/b/c"])
def test_missing_folders(name):
    with pytest.raises(ConfigError, match="no such folder"):
        load(name, draft=False)


def test_broken_target(folders, tmp_path):
    shutil.copytree(folders / "Qwen3-8B-4bit", tmp_path / "t")
    weights = mx.load(str(tmp_path / "t" / "model.safetensors"))
    weights.pop("model.norm.weight")
    mx.save_safetensors(str(tmp_path / "t" / "model.safetensors"), weights)
    with pytest.raises(WeightsError, match=r"norm\.weight"):
        load(str(tmp_path / "t"), draft=False)
    (tmp_path / "t" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json"):
        load(str(tmp_path / "t"), draft=False)


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's protocol that downloads use, over local folders; repositories by name."""

    repositories: dict = {}
    commit = "0123456789abcdef0123456789abcdef01234567"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.split("?")[0].lstrip("/")
        api = path.startswith("api/models/")
        owner, name, *rest = path.removeprefix("api/models/").split("/")
        folder = self.repositories.get(f"{owner}/{name}")
        if folder is None or (rest[1:2] and rest[1] not in ("main", "v1", self.commit)):
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound" if folder is None else "RevisionNotFound"}, body)
        elif api:
            files = [{"rfilename": p.name, "size": p.stat().st_size} for p in sorted(folder.iterdir())]
            tree = [{"type": "file", "path": f["rfilename"], "size": f["size"], "oid": "0" * 40} for f in files]
            info = {"id": f"{owner}/{name}", "modelId": f"{owner}/{name}", "sha": self.commit, "siblings": files}
            content = json.dumps(tree if rest[:1] == ["tree"] else info).encode()
            self.reply(200, content, {"Content-Type": "application/json"}, body)
        elif (folder / rest[-1]).is_file():
            content = (folder / rest[-1]).read_bytes()
            etag, length = hashlib.sha1(content).hexdigest(), str(len(content))
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit, "Content-Length": length}
            if body and (owner, rest[-1]) == ("broken", "model.safetensors"):
                content, self.close_connection = content[: len(content) // 2], True
            self.reply(200, content, headers, body)
        else:
            self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, body)

    def reply(self, status, content, headers, body):
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(folders):
    Hub.repositories = {
        "mlx-community/Qwen3-8B-4bit": folders / "Qwen3-8B-4bit",
        "z-lab/Qwen3-8B-DFlash-b16": folders / "drafter",
        "broken/Qwen3-8B": folders / "Qwen3-8B-4bit",
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run(code, home, **environment):
    """A fresh interpreter, since huggingface_hub reads its endpoint once."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env |= {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)


LOAD = """
from mlx_ddtree import load, MlxDdtreeError
try:
    pair = load("{name}", revision={revision!r})
    print(pair.notes["drafter"], pair.notes["target_folder"])
except MlxDdtreeError as error:
    print(type(error).__name__, error)
"""


def test_repositories_by_name_offline_and_missing(hub, tmp_path):
    """A quantisation's name finds its drafter; afterwards the cache serves it without a network."""
    code = LOAD.format(name="mlx-community/Qwen3-8B-4bit", revision=None)
    first = run(code, tmp_path, HF_ENDPOINT=hub)
    assert "z-lab/Qwen3-8B-DFlash-b16" in first.stdout, first.stdout + first.stderr
    assert Hub.commit in first.stdout
    offline = run(code, tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline.stdout == first.stdout, offline.stderr
    empty = run(code, tmp_path / "empty", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert "could not be downloaded" in empty.stdout, empty.stderr


def test_revisions_and_missing_repositories(hub, tmp_path):
    pinned = run(LOAD.format(name="mlx-community/Qwen3-8B-4bit", revision="v1"), tmp_path, HF_ENDPOINT=hub)
    assert Hub.commit in pinned.stdout, pinned.stderr
    wrong = run(LOAD.format(name="mlx-community/Qwen3-8B-4bit", revision="v2"), tmp_path, HF_ENDPOINT=hub)
    assert "v2" in wrong.stdout and "Error" in wrong.stdout, wrong.stderr
    missing = run(LOAD.format(name="someone/Qwen3-8B", revision=None), tmp_path, HF_ENDPOINT=hub)
    assert "no such repository" in missing.stdout, missing.stderr


def test_connections_that_break_off(hub, tmp_path):
    """The server hangs up in the middle of a file, again and again: the error says which repository and what to do."""
    broken = run(LOAD.format(name="broken/Qwen3-8B", revision=None), tmp_path, HF_ENDPOINT=hub)
    assert "broken/Qwen3-8B could not be downloaded" in broken.stdout, broken.stderr
    assert "check the connection" in broken.stdout


def test_errors_share_one_base():
    assert issubclass(ConfigError, MlxDdtreeError)
