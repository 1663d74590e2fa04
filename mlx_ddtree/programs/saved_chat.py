"""A chat's conversation as a file: what /save writes, and what /load believes of a file from anybody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from mlx_ddtree.errors import MlxDdtreeError, OptionError
from mlx_ddtree.generation.options import DEFAULTS, FLAGS, GenerationOptions
from mlx_ddtree.untrusted import read_json

VERSION = 1
"""Of the files written here; others are not read."""


@dataclass(frozen=True)
class SavedChat:
    """messages: user and assistant in turns.  system: the system prompt.  settings: how answers are made."""

    messages: list[dict[str, str]]
    system: str | None
    settings: GenerationOptions


def write_chat(path: Path, chat: SavedChat) -> None:
    """Write the whole file or leave what is there.  Raises MlxDdtreeError where that is impossible."""
    settings = {}
    for name, flag in FLAGS.items():
        if not flag.reaches_out:
            settings[name] = getattr(chat.settings, name)
    record = {"version": VERSION, "system": chat.system, "messages": chat.messages, "settings": settings}
    text = json.dumps(record, indent=1, ensure_ascii=False)
    unfinished: Path | None = None
    try:
        with NamedTemporaryFile("wb", dir=path.parent, delete=False) as file:
            unfinished = Path(file.name)
            file.write(text.encode("utf-8"))
        unfinished.replace(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)
        raise MlxDdtreeError(f"{path} cannot be written: {_reason(error)}") from error


def read_chat(path: Path, settings: GenerationOptions) -> SavedChat:
    """The conversation in a file, or MlxDdtreeError with what is wrong; nothing is fetched or opened for it.

    settings: count where the file says nothing, and for what names a file or a repository, which a file cannot set.
    """
    try:
        record = read_json(path, error=MlxDdtreeError)
    except ValueError as error:  # a NUL in the name
        raise MlxDdtreeError(f"{path} cannot be read: {error}") from None
    if record.get("version") != VERSION:
        raise _foreign(path, f"its version is {record.get('version')!r}, and this program reads {VERSION}")
    system = record.get("system")
    if system is not None and not isinstance(system, str):
        raise _foreign(path, "its system prompt is not a text")
    return SavedChat(_messages(path, record.get("messages")), system, _settings(path, record, settings))


def _messages(path: Path, given: Any) -> list[dict[str, str]]:
    if not isinstance(given, list):
        raise _foreign(path, "it has no list of messages")
    messages = []
    for number, message in enumerate(given):
        role = ("user", "assistant")[number % 2]
        if not isinstance(message, Mapping) or message.get("role") != role:
            raise _foreign(path, f"its roles do not alternate: message {number + 1} is not of role {role!r}")
        if not isinstance(message.get("content"), str):
            raise _foreign(path, f"the content of message {number + 1} is not a text")
        messages.append({"role": role, "content": message["content"]})
    if len(messages) % 2:
        raise _foreign(path, "its roles do not alternate: the last message has no answer")
    return messages


def _settings(path: Path, record: Mapping[str, Any], present: GenerationOptions) -> GenerationOptions:
    given = record.get("settings")
    if not isinstance(given, Mapping):
        raise _foreign(path, "it has no settings")
    wanted = {}
    for name, value in given.items():
        if name not in FLAGS:
            raise _foreign(path, f"there is no setting {name!r}")
        if not FLAGS[name].reaches_out:
            wanted[name] = value
        elif value not in (DEFAULTS[name], getattr(present, name)):
            raise _foreign(path, f"it sets {name}, which only you can: take that out, and use /set or the command line")
    try:
        return present.changed(**wanted)
    except OptionError as error:
        raise _foreign(path, str(error)) from None


def _foreign(path: Path, reason: str) -> MlxDdtreeError:
    return MlxDdtreeError(f"{path} is not a conversation that /save wrote: {reason}")


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
