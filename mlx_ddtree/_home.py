"""Where this package keeps things, and a home folder for processes that have none, as in containers of unknown users.

Without one, this package, huggingface_hub and transformers have no place for their caches, and Python raises
RuntimeError where a path begins with ~.  So such a process gets a folder under the system's temporary one.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from pathlib import Path


def use_some_home() -> None:
    """See that caches have a place: where the user's folder is missing or closed, one warning says which it is now.

    Sets $HOME where the user has none, and $XDG_CACHE_HOME where the user's cache folder cannot be written; what the
    user has set stays.  To be called before huggingface_hub is imported, since it reads both only then.
    """
    home = os.path.expanduser("~")
    if home == "~":
        variable = "HOME"
    elif _can_be_written(Path(os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache")):
        return
    else:
        variable = "XDG_CACHE_HOME"
    models_have_a_place = os.environ.get("HF_HOME") or os.environ.get("HF_HUB_CACHE")
    if variable == "XDG_CACHE_HOME" and os.environ.get("MLX_DDTREE_CACHE") and models_have_a_place:
        return
    folder = _folder_of_this_user()
    if folder is None:
        return  # then every program says by itself what it cannot write
    known_models = Path(home) / ".cache" / "huggingface"
    if variable == "XDG_CACHE_HOME" and "XDG_CACHE_HOME" not in os.environ and known_models.is_dir():
        os.environ.setdefault("HF_HOME", str(known_models))  # it can be read, at least
    os.environ[variable] = str(folder)
    logging.getLogger(__name__).warning(
        "no home folder that can be written: caches are in %s; set HOME, or HF_HOME and MLX_DDTREE_CACHE",
        folder,
    )


def _can_be_written(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder can be made."""
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
    except OSError:
        return False
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _folder_of_this_user() -> Path | None:
    """A folder that only this user can read and write; None where there is no place for one."""
    try:
        folder = Path(tempfile.gettempdir()) / f"mlx_ddtree-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():  # another user was first
            folder = Path(tempfile.mkdtemp(prefix="mlx_ddtree-"))
    except OSError:
        return None
    return folder


def cache_folder() -> Path:
    """Where profiles and models from the package index are kept: $MLX_DDTREE_CACHE, or mlx_ddtree in the user's cache
    folder; for a user without a home folder, in the one that `use_some_home` has found."""
    given = os.environ.get("MLX_DDTREE_CACHE")
    if not given:
        given = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "mlx_ddtree")
    return Path(os.path.expanduser(given))  # pathlib's raises where there is no such home folder
