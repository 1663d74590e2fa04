"""The commands of a chat: their names, what they take, and what /help says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_ddtree.errors import OptionError


@dataclass(frozen=True)
class Command:
    """A command.

    takes: what follows its name, for /help.
    about: what it does, in a clause.
    more: further sentences, for /help NAME.
    files: whether it takes the name of a file.
    """

    name: str
    takes: str
    about: str
    more: str = ""
    files: bool = False


COMMANDS = [
    Command("/help", "[NAME]", "this list, or more about one command"),
    Command("/reset", "", "forget the conversation", "The settings and the system prompt stay."),
    Command("/undo", "", "take back the last message and its answer"),
    Command("/stats", "", "speed, acceptance length, and the speedup against plain decoding"),
    Command(
        "/tree",
        "",
        "the draft tree of the last round that drafted",
        "Ticks are tokens that the model agreed with, the arrow is its own token where it left the tree.",
    ),
    Command(
        "/set",
        "[NAME VALUE]",
        "the settings; /set temp 0.7 changes one",
        "'none' takes a setting back where it need not be set.  They are the options of mlx_ddtree.generate.",
    ),
    Command("/system", "[TEXT]", "the system prompt, from the next message on; without TEXT: none"),
    Command("/save", "FILE", "write the conversation", "Messages, system prompt and settings, as JSON.", files=True),
    Command("/load", "FILE", "go on with a conversation that /save wrote", files=True),
    Command("/exit", "", "leave; so does Ctrl-D"),
]
LETTERS = {"q": "/exit", "r": "/reset", "h": "/help"}
"""mlx_lm.chat's commands, for hands that know them; at a terminal only."""
LEAVING = ("/exit", "/quit")
NOTES = """\
Ctrl-C stops an answer and keeps what was said.  A line that ends with \\ goes on in the next; \"\"\" starts
and ends a text of several lines.  //... sends a message that begins with a slash."""
TERMINAL_NOTES = """\
A pasted text is one message.  Escape, then Enter (Option-Enter, Alt-Enter) begins a new line.  Tab completes commands,
settings and file names; the arrow keys bring earlier messages back.  q, r and h alone are /exit, /reset and /help."""


def help_text(name: str = "", terminal: bool = False) -> str:
    """What /help says, of all commands or of one.  Raises OptionError for one that there is not."""
    if name:
        command = find(name)
        first = f"{command.name} {command.takes}".rstrip() + f": {command.about}."
        return f"{first}  {command.more}".rstrip()
    lines = [f"{f'{command.name} {command.takes}':18} {command.about}" for command in COMMANDS]
    return "\n".join([*lines, NOTES, *([TERMINAL_NOTES] if terminal else [])])


def find(name: str) -> Command:
    """The command of a name, with its slash or without.  Raises OptionError."""
    wanted = f"/{name.removeprefix('/')}"
    for command in COMMANDS:
        if command.name == wanted:
            return command
    raise OptionError(f"there is no command {wanted}; /help lists them")


def names() -> Sequence[str]:
    """All names, with their slashes."""
    return [command.name for command in COMMANDS]
