"""Training files: rows of conversations, prompts or text, and plain text, as examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlx_ddtree.files.rows import Row, read_bytes, read_rows
from mlx_ddtree.training.chat_format import ChatFormat, Message, texts_of
from mlx_ddtree.training.examples import DataError, Example

MESSAGES = '"messages" must be a list of objects with "role" (a string) and "content" (a string or parts of text)'


def read_examples(files: Sequence[str | Path], chat_format: ChatFormat, window: int) -> list[Example]:
    """Examples of all `files`.

    *.jsonl: rows {"prompt"}, {"messages"}, {"prompt", "response"} or {"text"}.  Any other file
    is text: responses without a prompt, cut in windows of `window` tokens.

    Raises DataError naming the file, and the line of a JSONL file.
    """
    if not files:
        raise DataError("no training data: give text or JSONL files with --data")
    examples: list[Example] = []
    for file in map(Path, files):
        if file.suffix == ".jsonl":
            found = _examples_of_rows(file, chat_format, window)
        else:
            found = list(_windows(chat_format.text_tokens(_read_text(file)), window, str(file)))
        if not found:
            raise DataError(f"{file} holds no training text")
        examples += found
    return examples


def _read_text(file: Path) -> str:
    content = read_bytes(file, DataError)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} cannot be read as UTF-8 text: {error}") from None
    if not text.strip():
        raise DataError(f"{file} is empty")
    return text


def _examples_of_rows(file: Path, chat_format: ChatFormat, window: int) -> list[Example]:
    rows = read_rows(file, DataError)
    if not rows:
        raise DataError(f"{file} is empty")
    examples = []
    for place, row in rows:
        examples += _examples_of_row(row, place, chat_format, window)
    return examples


def _examples_of_row(row: Row, place: str, chat_format: ChatFormat, window: int) -> list[Example]:
    """One example of a prompt or a conversation, windows of a text."""
    if "messages" in row:
        messages, response = _split_messages(row["messages"], place)
    elif "prompt" in row:
        messages = [{"role": "user", "content": _text(row, "prompt", place)}]
        response = _text(row, "response", place) if "response" in row else None
    elif "text" in row:
        return list(_windows(chat_format.text_tokens(_text(row, "text", place)), window, place))
    else:
        keys = ", ".join(row) or "no keys"
        raise DataError(f'{place}: a row needs "prompt", "messages" or "text"; it has {keys}')
    try:
        prompt = chat_format.prompt_tokens(messages)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    if not prompt:
        raise DataError(f"{place}: the prompt has no tokens")
    if response is None:
        return [Example(prompt, None, place)]
    return [Example(prompt, chat_format.answer_tokens(response), place)]


def _text(row: Row, key: str, place: str) -> str:
    if not isinstance(row[key], str) or not row[key]:
        raise DataError(f'{place}: "{key}" must be a string that is not empty')
    return row[key]


def _split_messages(messages: Any, place: str) -> tuple[list[Message], str | None]:
    """A conversation and, when the assistant has the last word, that word as the response."""
    if not isinstance(messages, list) or not messages or not all(_is_message(message) for message in messages):
        raise DataError(f"{place}: {MESSAGES}")
    try:
        texts = texts_of(messages)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    if texts[-1]["role"] != "assistant":
        return texts, None
    if len(texts) == 1:
        raise DataError(f'{place}: "messages" holds an answer without a question')
    return texts[:-1], texts[-1]["content"]


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        return False
    if message.get("content") is None:
        return bool(message.get("tool_calls"))  # a call of tools may stand without a text
    return isinstance(message["content"], str | list)


def _windows(tokens: Sequence[int], window: int, source: str) -> Iterator[Example]:
    """Pieces of a text; a block needs a token and a successor, so a piece has two tokens or more."""
    for start in range(0, len(tokens), window):
        piece = tokens[start : start + window]
        if len(piece) >= 2:
            yield Example((), tuple(piece), source)
