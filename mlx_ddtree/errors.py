"""What can go wrong because of what the user gave; every message names what to do."""

from collections.abc import Collection
from difflib import get_close_matches

LONGEST_LINE = 300
"""Characters of a foreign error's text that a message repeats."""


class MlxDdtreeError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(MlxDdtreeError):
    """A model's folder, its config.json or another file of settings is missing or not understood."""


class WeightsError(MlxDdtreeError):
    """A checkpoint's tensors are missing, unexpected, misshapen or unreadable."""


class PairError(MlxDdtreeError):
    """Drafter and target do not belong together."""


class UnsupportedModelError(MlxDdtreeError):
    """The target's architecture has no tree verification here."""


class PromptError(MlxDdtreeError):
    """The prompt is empty, too long, or not of a known form."""


class OptionError(MlxDdtreeError, ValueError):
    """An option's value is out of range or options contradict each other."""


class MissingExtraError(OptionError):
    """A part of this package needs another package, which is installed on request only."""

    def __init__(self, part: str, package: str, extra: str, otherwise: str = "") -> None:
        """part: what needs it.  extra: the group of pyproject.toml that brings it.  otherwise: how to do without."""
        super().__init__(f"{part} needs {package}: run {install_command(extra)} in mlx_ddtree's folder{otherwise}")


def install_command(*extras: str) -> str:
    """What installs extras from a checkout, which is the only place that this package comes from."""
    return f'pip install ".[{",".join(extras)}]"'


class RankError(MlxDdtreeError):
    """The ranks of a model on several machines do not find each other, or one of them cannot do its part."""


def probably_meant(name: str, known: Collection[str], likeness: float = 0.6) -> str:
    """What is said of a name that there is not: the one that was probably meant, or all that there are.

    likeness: of two names, from 0 to 1, from which one may be meant by the other (difflib's ratio).
    """
    close = get_close_matches(name, known, 1, likeness)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def one_line(error: BaseException) -> str:
    """The text of another library's error, as a part of a message: one line, not too long, never empty.

    Errors that say nothing without their type (KeyError: 'factor') keep its name.
    """
    text = " ".join(str(error).split())
    if not isinstance(error, ValueError | RuntimeError | OSError) or not text:
        text = f"{type(error).__name__}: {text}"
    if len(text) > LONGEST_LINE:
        text = f"{text[:LONGEST_LINE]}..."
    return text
