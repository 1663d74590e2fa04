"""The work of mlx_ddtree.chat: messages in, answers and what commands say out."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rich.text import Text

from mlx_ddtree import terminal
from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs import arguments
from mlx_ddtree.programs.commands import LEAVING, LETTERS, help_text
from mlx_ddtree.programs.conversation import Conversation
from mlx_ddtree.programs.displays import Display, PlainText
from mlx_ddtree.programs.figures import brief
from mlx_ddtree.programs.loading import load_pair
from mlx_ddtree.programs.markdown_stream import MarkdownStream
from mlx_ddtree.programs.message_input import MORE, PROMPT, MessageEditor, messages, read_lines
from mlx_ddtree.terminal_bar import PromptBar


@dataclass(frozen=True)
class Surroundings:
    """Whom a chat talks to.

    terminal: somebody types, and sees what is said.
    lively: lines can be drawn anew: answers are rendered as they grow.
    figures: whether a line of them stands behind an answer.
    """

    terminal: bool = False
    lively: bool = False
    figures: bool = False


def chat(args: argparse.Namespace) -> int:
    """Load the pair, then answer until the user leaves."""
    settings = arguments.generation_options(args)
    pair = load_pair(args)
    conversation = Conversation(pair, settings, args.system_prompt, args.chat_template_args)
    if args.load:
        print(conversation.load(args.load))
    edited = sys.stdin.isatty() and sys.stdout.isatty()
    typed = sys.stdin.isatty() or pair.target.shards > 1  # mlx.launch passes a terminal's lines on, without it
    figures = typed if args.verbose is None else bool(args.verbose)
    surroundings = Surroundings(typed, edited and terminal.is_lively(), figures)
    if typed:
        greet(args, pair)
    for message in messages(_reader(edited, typed), typed):
        meant = LETTERS.get(message, message) if typed else message
        if meant in LEAVING:
            break
        respond(conversation, meant, surroundings)
    return 0


def greet(args: argparse.Namespace, pair: Pair) -> None:
    """What is talked with, and how to find out more."""
    facts = {"model": args.model or "the embedded pair"}
    if pair.drafter is None:
        facts["drafter"] = "none"
    elif args.model:
        facts["drafter"] = str(pair.notes.get("drafter"))
    facts["max tokens"] = f"{args.max_tokens:,}"
    if args.system_prompt:
        facts["system"] = args.system_prompt if len(args.system_prompt) <= 60 else f"{args.system_prompt[:57]}..."
    terminal.print_facts("mlx_ddtree.chat", facts)
    terminal.print_muted("/help lists the commands, Ctrl-D leaves")


def _reader(edited: bool, typed: bool) -> Callable[[], str]:
    """What reads a message: an editor at a terminal, else lines."""
    if edited:
        return MessageEditor().read
    return partial(read_lines, PROMPT, MORE) if typed else read_lines


def respond(conversation: Conversation, message: str, surroundings: Surroundings | None = None) -> None:
    """Obey a command or answer a message; the conversation outlives errors and Ctrl-C."""
    around = surroundings or Surroundings()
    try:
        if message.startswith("/") and not message.startswith("//"):
            obey(conversation, message, around)
        else:
            said = message.removeprefix("/") if message.startswith("//") else message
            answer(conversation, said, around)
    except MlxDdtreeError as error:
        terminal.print_error(str(error), sys.stdout)
    except KeyboardInterrupt:
        print("\n(stopped)")
    except Exception as error:
        if isinstance(error, BrokenPipeError) or conversation.pair.target.shards > 1:
            raise  # nobody reads any more, or another machine is gone
        logging.getLogger(__name__).info("this message failed", exc_info=True)
        terminal.print_error(f"{type(error).__name__}: {error}", sys.stdout)
        print("(a fault of mlx_ddtree; the conversation goes on)")


def obey(conversation: Conversation, line: str, around: Surroundings) -> None:
    """Do what a command says, and print its answer."""
    name, _, rest = line.partition(" ")
    if name == "/help":
        print(help_text(rest.strip(), around.terminal))
    elif around.lively and name == "/stats":
        terminal.print_facts("statistics", conversation.statistics())
    elif around.lively and name == "/tree":
        terminal.show(Text.from_ansi(conversation.tree().text(color=True), no_wrap=True))
    elif around.lively and line == "/set":
        terminal.print_facts("settings", conversation.setting_values())
    elif around.lively and name == "/set":
        terminal.print_muted(conversation.change(rest))
    else:
        print(conversation.command(line))


def answer(conversation: Conversation, message: str, around: Surroundings) -> None:
    """Stream the answer, then a line of figures for people."""
    last: GenerationResponse | None = None
    shown: Display = MarkdownStream(terminal.make_console()) if around.lively else PlainText()
    with PromptBar(around.terminal) as progress, shown:
        for last in conversation.say(message, progress):
            shown.tell(last)
    if not around.lively:
        print()
    conversation.measure_plain()
    if around.figures and last is not None:
        plain_tps = None if conversation.plain is None else conversation.plain[1]
        terminal.print_muted(brief(last, plain_tps))
