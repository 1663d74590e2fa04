"""mlx_ddtree.chat: talk with a model in the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.machine import __version__, cache_folder
from mlx_ddtree.programs import cli
from mlx_ddtree.programs.conversation import Conversation, Settings

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
    parser = cli.make_parser("Chat with a model; drafts make it faster and change nothing it says.", EXAMPLES)
    parser.add_argument("--system-prompt", help="system message for the chat template")
    parser.add_argument("--max-tokens", "-m", type=int, default=1024, help="of an answer; -1 is the model's context")
    parser.add_argument("--load", metavar="FILE", help="go on with a conversation that /save wrote")
    cli.add_model_options(parser)
    cli.add_sampling_options(parser)
    cli.add_decoding_options(parser)
    cli.add_compression_options(parser)
    cli.add_kv_options(parser)
    parser.add_argument("--verbose", "-v", action="store_true", help="log how models are loaded")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(chat, make_arguments().parse_args(argv), several=True)


def chat(args: argparse.Namespace) -> int:
    names = Settings.__dataclass_fields__
    settings = Settings(**{name: value for name, value in vars(args).items() if name in names})
    settings.options()  # a wrong option is refused before the models load
    pair = cli.load_pair(args)
    conversation = Conversation(pair, settings, args.system_prompt)
    if args.load:
        print(conversation.load(args.load))
    terminal = sys.stdin.isatty() or pair.target.shards > 1  # mlx.launch passes a terminal's lines on, without it
    if terminal:
        print(f"{args.model or 'the embedded pair'}; /help lists the commands, Ctrl-D leaves")
    with _line_editing(terminal):
        for message in messages(terminal):
            if message in ("/exit", "/quit"):
                break
            respond(conversation, message, terminal)
    return 0


def respond(conversation: Conversation, message: str, terminal: bool) -> None:
    """Obey a command or answer a message; the session outlives errors and Ctrl-C."""
    try:
        if message.startswith("/") and not message.startswith("//"):
            print(HELP if message == "/help" else conversation.command(message))
        else:
            say(conversation, message.removeprefix("/") if message.startswith("//") else message, terminal)
    except MlxDdtreeError as error:
        print(f"error: {error}")
    except KeyboardInterrupt:
        print("\n(stopped)")


def say(conversation: Conversation, message: str, terminal: bool) -> None:
    """Stream the answer, then a line of figures for people."""
    last: GenerationResponse | None = None
    for response in conversation.say(message, cli.progress_bar(terminal)):
        print(response.text, end="", flush=True)
        last = response
    print()
    if terminal and last is not None:
        print(cli.dim(brief(last)))
    conversation.measure_plain()


def brief(last: GenerationResponse) -> str:
    lost, shorter = last.compression, ""
    if lost is not None and lost.kept_tokens < lost.prompt_tokens:
        shorter = f", {lost.kept_tokens} of {lost.prompt_tokens} prompt tokens kept"
    return (
        f"[{last.generation_tokens} tokens, {last.generation_tps:.0f} tok/s, {last.mean_acceptance_length:.1f} a round"
        f"{shorter}{', cut at the limit' if last.finish_reason == 'length' else ''}]"
    )


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
