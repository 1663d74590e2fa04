"""Folders of models: local ones, and the Hub's through its cache; and what went wrong, in one line with a remedy."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from huggingface_hub import constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm

from mlx_ddtree.errors import ConfigError, MlxDdtreeError, OptionError, one_line
from mlx_ddtree.hub.names import local_folder
from mlx_ddtree.untrusted import read_json

TARGET_FILES = ["*.json", "model*.safetensors", "*.py", "tokenizer.model", "*.tiktoken", "*.txt", "*.jsonl", "*.jinja"]
SMALL_TARGET_FILES = [pattern for pattern in TARGET_FILES if not pattern.endswith(".safetensors")]
DRAFTER_FILES = ["*.json", "*.safetensors", "mask_embedding.pt"]
WEIGHT_INDEX = "model.safetensors.index.json"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


def fetch(name: str, revision: str | None, patterns: list[str]) -> Path:
    """A local folder as it is, or a repository's snapshot: from the cache, or from the Hub with progress bars.

    Files that have arrived are never asked for again, a broken connection goes on where it stopped, and
    HF_HUB_OFFLINE=1 asks nobody.  Raises ConfigError (no such folder, repository or revision, no access),
    MlxDdtreeError (network, disk) or OptionError (a revision of a folder).
    """
    folder = local_folder(name)
    if folder is not None:
        if revision is not None:
            raise OptionError(f"{name} is a folder here, so it has no revision {revision!r}")
        return folder
    try:
        with _stopping_at_ctrl_c() as bar:
            return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, tqdm_class=bar))
    except Exception as error:  # the HTTP client's own errors too, whose module changes with huggingface_hub
        raise explain(error, name, revision) from error


class _Stopped(Exception):
    """In a thread that downloads, after Ctrl-C in the main one."""


@contextmanager
def _stopping_at_ctrl_c() -> Iterator[type[tqdm]]:
    """A class of progress bars that end their downloads after Ctrl-C.

    huggingface_hub's threads would finish their files first, gigabytes perhaps; each asks its bar after every piece.
    """
    stop = threading.Event()

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            if stop.is_set():
                raise _Stopped
            return super().update(n)

    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield Bar
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        stop.set()
        previous(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield Bar
    finally:
        signal.signal(signal.SIGINT, previous)


def read_weight_map(folder: Path) -> dict[str, str]:
    """The file of every tensor, as a folder's index says; empty without an index.  Raises ConfigError."""
    file = folder / WEIGHT_INDEX
    if not file.exists():
        return {}
    weight_map = read_json(file).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ConfigError(f"{file} holds no 'weight_map' from tensors to files; download it again")
    return weight_map


def commit_of(folder: Path) -> str | None:
    """The commit that a snapshot in the Hub's cache was taken of; None for other folders."""
    return folder.name if folder.parent.name == "snapshots" else None


def explain(error: BaseException, name: str, revision: str | None = None) -> MlxDdtreeError:
    """The cause of a failed request about a repository, and what to do about it."""
    causes = list(_causes(error))
    if any(isinstance(e, OSError) and e.errno in _NO_SPACE for e in causes):
        return MlxDdtreeError(
            f"{name}: the disk of {constants.HF_HUB_CACHE} is full; free some space, or set HF_HOME to a folder on "
            "another disk, and start again: files that have arrived are kept"
        )
    if any(isinstance(e, PermissionError) for e in causes):
        return MlxDdtreeError(f"{name}: the Hub's cache {constants.HF_HUB_CACHE} cannot be written; set HF_HOME")
    if isinstance(error, HFValidationError):
        return ConfigError(f"{name} is not a valid repository name: {one_line(error)}")
    answer = next((e for e in causes if isinstance(e, HfHubHTTPError)), None)
    if answer is not None:
        return _refused(answer, name, revision)
    if isinstance(error, LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE:
        which = name if revision is None else f"{name} at {revision}"
        return MlxDdtreeError(
            f"{which} could not be downloaded: HF_HUB_OFFLINE is set, and {constants.HF_HUB_CACHE} does not hold "
            "all of it; unset HF_HUB_OFFLINE once, or give a local folder"
        )
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return MlxDdtreeError(
        f"{name} could not be downloaded ({reason}); check the connection and HF_ENDPOINT, then start again: files "
        "that have arrived are kept"
    )


def _refused(error: HfHubHTTPError, name: str, revision: str | None) -> MlxDdtreeError:
    """What the Hub's answer means."""
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{name}"
        return ConfigError(f"{name} is gated: accept its terms at {page}, and {_LOG_IN}")
    if isinstance(error, RepositoryNotFoundError) or (status == 401 and get_token() is None):
        return ConfigError(
            f"{name}: no such folder here, and no such repository on the Hub that you may read; check the name, "
            f"and if it is private {_LOG_IN}"
        )
    if isinstance(error, RevisionNotFoundError):
        return ConfigError(f"{name} has no revision {revision!r}; give a branch, a tag or a whole commit")
    if status in (401, 403):
        return ConfigError(f"{name}: the Hub refuses the access token ({status}); {_LOG_IN} with one that may do this")
    if status == 429:
        return MlxDdtreeError(f"{name}: the Hub takes no more requests for now (429); wait, or {_LOG_IN}")
    return MlxDdtreeError(
        f"{name} could not be downloaded: {constants.ENDPOINT} answers {status} ({one_line(error)}); try again later"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
