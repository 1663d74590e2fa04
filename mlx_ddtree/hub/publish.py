"""A converted or trained drafter's folder to a repository on the Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from mlx_ddtree.errors import ConfigError, MlxDdtreeError, OptionError
from mlx_ddtree.hub.fetch import explain
from mlx_ddtree.machine import __version__


def check_repository(name: str) -> None:
    """A name that the Hub will take; asked before work that would be in vain.  Raises OptionError."""
    if constants.HF_HUB_OFFLINE:
        raise OptionError("--upload-repo needs the Hub, but HF_HUB_OFFLINE is set")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise OptionError(f"--upload-repo {name}: {' '.join(str(error).split())}") from None
    if name.count("/") != 1:
        raise OptionError(f"--upload-repo {name}: give owner/name")


def upload(folder: Path, repository: str, *, private: bool = False) -> str:
    """Create the repository where it is missing and commit the folder's files to it; returns its address.

    Progress bars on stderr; interrupted, the same call goes on: what the Hub holds already is not sent again.
    Raises MlxDdtreeError; the folder stays as it is.
    """
    api = HfApi(library_name="mlx_ddtree", library_version=__version__)
    try:
        address = api.create_repo(repository, exist_ok=True, private=private)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=f"Upload {folder.name} with mlx_ddtree {__version__}",
        )
    except Exception as error:  # the HTTP client's own errors too, whose module changes with huggingface_hub
        raise _explain_upload(error, folder, repository) from error
    return str(address)


def _explain_upload(error: Exception, folder: Path, repository: str) -> MlxDdtreeError:
    cause = explain(error, repository)
    kept = f"{folder} is complete: repeat the upload with `hf upload {repository} {folder}`"
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(cause, ConfigError):
        reason = "a token that may write to it is needed; log in with `hf auth login` or set HF_TOKEN"
    return MlxDdtreeError(f"{repository} was not uploaded: {reason}; {kept}")
