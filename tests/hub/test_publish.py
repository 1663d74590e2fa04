"""A drafter from the Hub, converted, to the Hub, and from there into a pair: everything over the wire."""

import json

import pytest
from huggingface_hub import ModelCard

from ..helpers import save_drafter, save_target, small_drafter, small_target
from .loopback import TOKEN, running_hub
from .programs import run

SOURCE, PUBLISHED, TARGET = "z-lab/Qwen3-8B-DFlash-b16", "me/Qwen3-8B-DFlash-4bit", "mlx-community/Qwen3-8B-4bit"
USE = f"""
from mlx_ddtree import load
pair = load("{TARGET}", "{PUBLISHED}")
print(pair.drafter.config.quantization["bits"], pair.drafter.fc.bits, len(pair.drafter.layers))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    target = small_target()
    save_target(root / "target", target)
    save_drafter(root / "drafter", small_drafter(target))
    (root / "drafter" / "README.md").write_text("---\nlicense: mit\n---\n# DFlash\n")
    (root / "drafter" / "LICENSE").write_text("MIT License")
    return root


@pytest.fixture
def hub(folders):
    with running_hub() as state:
        state.add(TARGET, folders / "target")
        state.add(SOURCE, folders / "drafter")
        yield state


def convert(*options, hub, tmp_path, **values):
    arguments = ["--hf-path", SOURCE, "-q", "--q-group-size", "32", "--mlx-path", str(tmp_path / "mlx"), *options]
    return run("-m", "mlx_ddtree.convert", *arguments, home=tmp_path / "home", HF_ENDPOINT=hub.url, **values)


def test_convert_upload_and_use(hub, tmp_path):
    """All files arrive as they were written; the source's commit and licence are on the card; load() takes it."""
    done = convert("--upload-repo", PUBLISHED, "--private", "--json", hub=hub, tmp_path=tmp_path, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    written = {p.name: p.read_bytes() for p in (tmp_path / "mlx").iterdir()}
    arrived = hub.files(PUBLISHED)
    assert {name: arrived[name] for name in arrived if name != ".gitattributes"} == written
    assert {"config.json", "model.safetensors", "README.md", "LICENSE"} <= written.keys()
    commit = hub.repositories[SOURCE].refs["main"]
    assert (result["url"], result["revision"], result["target"]) == (f"{hub.url}/{PUBLISHED}", commit, "Qwen/Qwen3-8B")
    card = ModelCard(arrived["README.md"].decode())
    assert (card.data.license, card.data.base_model) == ("mit", SOURCE)
    assert commit in card.text and f"--draft-model {PUBLISHED}" in card.text
    assert hub.private == {PUBLISHED}
    assert hub.commit_messages == ["Upload mlx with mlx_ddtree 0.1.0"]
    used = run("-c", USE, home=tmp_path / "other", HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
    assert used.stdout == "4 4 2\n", used.stderr


def test_an_upload_without_a_right_to_it(hub, tmp_path):
    """The converted folder stays, and the line says how to go on."""
    done = convert("--upload-repo", PUBLISHED, hub=hub, tmp_path=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"{PUBLISHED} was not uploaded: a token that may write to it is needed" in line
    assert f"hf upload {PUBLISHED} {tmp_path / 'mlx'}" in line
    assert (tmp_path / "mlx" / "model.safetensors").is_file()
    assert PUBLISHED not in hub.repositories


def test_an_existing_repository_gets_a_commit(hub, folders, tmp_path):
    """What it holds besides stays."""
    hub.add(PUBLISHED, folders / "target")
    before = hub.files(PUBLISHED)
    done = convert("--upload-repo", PUBLISHED, hub=hub, tmp_path=tmp_path, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    after = hub.files(PUBLISHED)
    assert after["tokenizer.json"] == before["tokenizer.json"]
    assert after["config.json"] == (tmp_path / "mlx" / "config.json").read_bytes()
    assert f"published at {hub.url}/{PUBLISHED}" in done.stdout


def test_offline_says_so_before_any_work(hub, tmp_path):
    done = convert("--upload-repo", PUBLISHED, hub=hub, tmp_path=tmp_path, HF_TOKEN=TOKEN, HF_HUB_OFFLINE="1")
    assert (done.returncode, hub.requests) == (2, [])
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert not (tmp_path / "mlx").exists()


def test_offline_conversion_from_the_cache(hub, tmp_path):
    """What a former download left is enough; the licence, which it did not fetch, is said to be unknown."""
    fetched = run(
        "-c",
        f"from mlx_ddtree.hub.fetch import *; fetch('{SOURCE}', None, DRAFTER_FILES)",
        home=tmp_path / "home",
        HF_ENDPOINT=hub.url,
    )
    assert fetched.returncode == 0, fetched.stderr
    done = convert(hub=hub, tmp_path=tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert f"warning: the licence of {SOURCE} is unknown" in done.stderr
    assert "The source states none" in (tmp_path / "mlx" / "README.md").read_text()
