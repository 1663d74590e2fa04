"""What the user types: lines from a pipe, or messages edited at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

from mlx_ddtree._home import cache_folder
from mlx_ddtree.generation.options import FLAGS
from mlx_ddtree.programs import commands

QUOTES = '"""'
PROMPT, MORE = ">>> ", "... "
MOST_REMEMBERED = 1000
"""Earlier messages that the arrow keys bring back."""


def messages(read: Callable[[], str], terminal: bool) -> Iterator[str]:
    """What the user says, until the end of the input.

    read: one message; raises EOFError at the end.
    terminal: whether somebody sees what is said of Ctrl-C and the end.
    """
    while True:
        try:
            text = read().strip()
        except EOFError:
            if terminal:
                print()
            return
        except KeyboardInterrupt:  # drops the line, as shells do
            print("\n(Ctrl-D leaves)")
            continue
        if text:
            yield text


def read_lines(prompt: str = "", more: str = "") -> str:
    """One line; or several, while they end with a backslash or until quotes are closed.  Raises EOFError."""
    text = input(prompt)
    while has_open_quotes(text) or text.endswith("\\"):
        if not has_open_quotes(text):
            text = text[:-1]
        text += "\n" + input(more)
    return without_quotes(text)


def has_open_quotes(text: str) -> bool:
    """Whether a text begins with three quotes that are not closed yet."""
    return text.lstrip().startswith(QUOTES) and text.count(QUOTES) % 2 == 1


def without_quotes(text: str) -> str:
    """The message of what was typed: without the quotes around it, where all of it stands between them."""
    begun = text.strip()
    if begun.startswith(QUOTES) and begun.endswith(QUOTES) and begun.count(QUOTES) == 2:
        return begun.removeprefix(QUOTES).removesuffix(QUOTES)
    return text


class MessageEditor:
    """Reads messages at a terminal, with editing, history, completion, and pasted texts in one piece."""

    def __init__(self, history: Path | None = None, **io: Any) -> None:
        """history: the file that keeps earlier messages.  io: prompt_toolkit's input and output, for tests."""
        self._session: PromptSession[str] = PromptSession(
            message=FormattedText([("ansimagenta bold", PROMPT)]),
            prompt_continuation=FormattedText([("ansibrightblack", MORE)]),
            multiline=True,
            key_bindings=_keys(),
            history=_History(str(history or cache_folder() / "chat_messages")),
            completer=ChatCompleter(),
            complete_while_typing=Condition(self._types_a_command),
            enable_open_in_editor=True,
            tempfile_suffix=".md",
            **io,
        )

    def _types_a_command(self) -> bool:
        document = self._session.default_buffer.document
        return document.text.startswith("/") and " " not in document.text

    def read(self) -> str:
        """The next message.  Raises EOFError at Ctrl-D, KeyboardInterrupt at Ctrl-C."""
        return without_quotes(self._session.prompt())


def _keys() -> KeyBindings:
    """Enter sends, but behind a backslash and between quotes; there, and after Escape, it begins a new line."""
    keys = KeyBindings()

    @keys.add(Keys.Enter)
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if has_open_quotes(buffer.text):
            buffer.newline(copy_margin=False)
        elif buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add(Keys.Escape, Keys.Enter)
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


class ChatCompleter(Completer):
    """Commands, settings and their values, and file names where a command takes one."""

    def __init__(self) -> None:
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What may stand where the cursor is."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, rest = text.partition(" ")
        if not space:
            for command in commands.COMMANDS:
                if command.name.startswith(name):
                    yield Completion(command.name, -len(name), display_meta=command.about)
        elif any(command.name == name and command.files for command in commands.COMMANDS):
            yield from self._files.get_completions(Document(rest, len(rest)), complete_event)
        elif name in ("/set", "/help"):
            yield from _words(name, rest)


def _words(name: str, rest: str) -> Iterable[Completion]:
    """What may follow a command: the settings and their values behind /set, the commands behind /help."""
    setting, space, value = rest.partition(" ")
    if name == "/help":
        wanted, known = rest, [word.removeprefix("/") for word in commands.names()]
    elif not space:
        wanted, known = setting, list(FLAGS)
    else:
        flag = FLAGS.get(setting.replace("-", "_"))
        wanted, known = value, [] if flag is None else [str(choice) for choice in flag.choices]
    for word in known:
        if word.startswith(wanted):
            yield Completion(word, -len(wanted))


class _History(FileHistory):
    """Earlier messages; a home that cannot be read or written is no reason to fail."""

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())[:MOST_REMEMBERED]
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            Path(str(self.filename)).parent.mkdir(parents=True, exist_ok=True)
            super().store_string(string)
