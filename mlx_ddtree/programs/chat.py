"""mlx_ddtree.chat: talk with a model in the terminal."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

from mlx_ddtree._home import cache_folder
from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.programs import arguments, cli
from mlx_ddtree.programs.conversation import CHAT_MAX_TOKENS, Conversation

try:
    import readline
except ImportError:  # a Python built without it: lines are typed without editing
    readline = None  # type: ignore[assignment]

EXAMPLES = """\
  mlx_ddtree.chat
  mlx_ddtree.chat --model mlx-community/Qwen3-8B-4bit --temp 0.7 --system-prompt "Answer briefly."
  printf 'Write a function that adds two numbers.\\n' | mlx_ddtree.chat
"""
HELP = """\
/help              this list
/reset             forget the conversation
/undo              take back the last message and its answer
/stats             speed, acceptance length, and the speedup against plain decoding
/set               the settings; /set temp 0.7 changes one
/system TEXT       the system prompt, from the next message on; without TEXT: none
/save FILE         write the conversation; /load FILE goes on with it
/exit              leave; so does Ctrl-D
Ctrl-C stops an answer and keeps what was said.  A line that ends with \\ goes on in the next; \"\"\" starts
and ends a text of several lines.  //... sends a message that begins with a slash."""
QUOTES = '"""'


def make_arguments() -> argparse.ArgumentParser:
    """The program's options."""
    parser = cli.make_parser(
        "Chat with a model; drafts make it faster and change nothing it says.", EXAMPLES, "mlx_ddtree.chat"
    )
    parser.add_argument("--load", metavar="FILE", help="go on with a conversation that /save wrote")
    arguments.add_template_options(parser)
    arguments.add_model_options(parser)
    arguments.add_generation_options(parser, max_tokens=CHAT_MAX_TOKENS)
    arguments.add_output_options(parser, "log how models are loaded (default: figures after answers on a terminal)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(chat, make_arguments().parse_args(argv), several=True)


def chat(args: argparse.Namespace) -> int:
    """Load the pair, then answer until the user leaves."""
    settings = arguments.generation_options(args)  # a wrong option is refused before the models load
    pair = arguments.load_pair(args)
    conversation = Conversation(pair, settings, args.system_prompt)
    if args.load:
        print(conversation.load(args.load))
    terminal = sys.stdin.isatty() or pair.target.shards > 1  # mlx.launch passes a terminal's lines on, without it
    figures = terminal if args.verbose is None else bool(args.verbose)
    if terminal:
        print(f"{args.model or 'the embedded pair'}; /help lists the commands, Ctrl-D leaves")
    with _line_editing(terminal):
        for message in messages(terminal):
            if message in ("/exit", "/quit"):
                break
            respond(conversation, message, terminal, figures)
    return 0


def respond(conversation: Conversation, message: str, terminal: bool = False, figures: bool = False) -> None:
    """Obey a command or answer a message; the conversation outlives errors and Ctrl-C.

    terminal: show how far a long prompt is read.  figures: a line of them after an answer.
    """
    try:
        if message.startswith("/") and not message.startswith("//"):
            print(HELP if message == "/help" else conversation.command(message))
        else:
            said = message.removeprefix("/") if message.startswith("//") else message
            answer(conversation, said, terminal, figures)
    except MlxDdtreeError as error:
        print(f"error: {error}")
    except KeyboardInterrupt:
        print("\n(stopped)")
    except Exception as error:
        if isinstance(error, BrokenPipeError) or conversation.pair.target.shards > 1:
            raise  # nobody reads any more, or another machine is gone
        logging.getLogger(__name__).info("this message failed", exc_info=True)
        print(f"error: {type(error).__name__}: {error}\n(a fault of mlx_ddtree; the conversation goes on)")


def answer(conversation: Conversation, message: str, terminal: bool, figures: bool) -> None:
    """Stream the answer, then a line of figures for people."""
    last: GenerationResponse | None = None
    for last in conversation.say(message, cli.progress_bar(terminal)):
        print(last.text, end="", flush=True)
    print()
    if figures and last is not None:
        print(cli.dim(cli.brief(last)))
    conversation.measure_plain()


def messages(terminal: bool) -> Iterator[str]:
    """What the user types, until the end of the input."""
    while True:
        try:
            text = read_message(">>> " if terminal else "", "... " if terminal else "").strip()
        except EOFError:
            if terminal:
                print()
            return
        except KeyboardInterrupt:  # drops the line, as shells do
            print("\n(Ctrl-D leaves)")
            continue
        if text:
            yield text


def read_message(prompt: str, more: str) -> str:
    """One line; or several, while they end with a backslash or until quotes are closed.  Raises EOFError."""
    line = input(prompt)
    if line.lstrip().startswith(QUOTES):
        text = line.lstrip().removeprefix(QUOTES)
        while not text.rstrip().endswith(QUOTES):
            text += "\n" + input(more)
        return text.rstrip().removesuffix(QUOTES)
    while line.endswith("\\"):
        line = line[:-1] + "\n" + input(more)
    return line


class _line_editing:
    """Arrow keys, and the lines of earlier sessions."""

    def __init__(self, terminal: bool) -> None:
        self.on = terminal and readline is not None
        self.file = cache_folder() / "chat_history"

    def __enter__(self) -> None:
        if self.on:
            readline.set_history_length(1000)
            with suppress(OSError):
                readline.read_history_file(self.file)

    def __exit__(self, *error: object) -> None:
        if self.on:
            with suppress(OSError):  # a home that cannot be written is no reason to fail
                self.file.parent.mkdir(parents=True, exist_ok=True)
                readline.write_history_file(self.file)


if __name__ == "__main__":
    raise SystemExit(main())
