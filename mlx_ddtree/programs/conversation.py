"""A conversation with a pair: its messages, its settings, and the commands that change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_ddtree.errors import OptionError, PromptError
from mlx_ddtree.generation.draw import TreeDrawing, draw_tree
from mlx_ddtree.generation.options import FLAGS, GenerationOptions
from mlx_ddtree.generation.prompts import refuse_half_characters
from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.generation.session import Session
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs.commands import find
from mlx_ddtree.programs.saved_chat import SavedChat, read_chat, write_chat


@dataclass
class AnswerTotals:
    """Sums over the answers so far."""

    answers: int = 0
    tokens: int = 0
    rounds: int = 0
    seconds: float = 0.0

    def add(self, last: GenerationResponse) -> None:
        """Count an answer by its last response."""
        self.answers += 1
        self.tokens += last.generation_tokens
        self.rounds += last.rounds
        self.seconds += last.generation_tokens / last.generation_tps


class Conversation:
    """Messages and the session that holds what they became.

    settings: how answers are made.
    system: the system prompt, or None.
    template: further arguments of the chat template.
    last: the last answer's last response.
    drafted: the last response whose round verified a tree.
    plain: (tokens of context, tokens a second) of plain decoding when it was last measured.
    """

    def __init__(
        self,
        pair: Pair,
        settings: GenerationOptions,
        system: str | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        if not pair.tokenizer.has_chat_template:
            raise PromptError("this model's tokenizer has no chat template; use mlx_ddtree.generate for plain text")
        self.pair = pair
        self.settings = settings
        self.system = system
        self.session = Session(pair, template=template)
        self.messages: list[dict[str, str]] = []
        self.totals = AnswerTotals()
        self.last: GenerationResponse | None = None
        self.drafted: GenerationResponse | None = None
        self.plain: tuple[int, float] | None = None

    def prompt(self) -> list[dict[str, str]]:
        """All messages, the system prompt first."""
        if not self.system:
            return list(self.messages)
        return [{"role": "system", "content": self.system}, *self.messages]

    def say(self, message: str, progress: Callable[[int, int], None] | None = None) -> Iterator[GenerationResponse]:
        """The answer, as it comes.

        What was said stays in the conversation even when it is cut off; a message that is refused, or not answered at
        all, does not.
        """
        self.messages.append({"role": "user", "content": message})
        answer = ""
        last = None
        try:
            options = self.settings.keywords()
            limit = self.settings.max_tokens
            options.pop("max_tokens", None)
            for last in self.session.stream(self.prompt(), limit, prompt_progress_callback=progress, **options):
                answer += last.text
                if last.nodes:
                    self.drafted = last
                yield last
        finally:
            if last is None:
                self.messages.pop()
            else:
                self.messages.append({"role": "assistant", "content": answer})
                self.last = last
                self.totals.add(last)

    def measure_plain(self) -> None:
        """Measure plain decoding's speed here, now and then: when the context has grown by half."""
        length = len(self.session.token_ids)
        limit = self.pair.target.max_context
        grown = self.plain is None or length > 1.5 * self.plain[0]
        if length and grown and (limit is None or length + 16 < limit):
            self.plain = length, self.session.plain_tps()

    def command(self, line: str) -> str:
        """Obey a line that begins with a slash; what to print.  Raises MlxDdtreeError."""
        name, _, rest = line.partition(" ")
        commands: Mapping[str, Callable[[str], str]] = {
            "/reset": self._reset,
            "/undo": self._undo,
            "/stats": self._stats,
            "/tree": self._tree,
            "/set": self._set,
            "/system": self._system,
            "/save": self.save,
            "/load": self.load,
        }
        if name not in commands:
            find(name)  # refuses it
        return commands[name](rest.strip())

    def _reset(self, _: str) -> str:
        self.messages = []
        self.session.reset()
        return "(the conversation is forgotten)"

    def _undo(self, _: str) -> str:
        if not self.messages:
            raise OptionError("there is nothing to take back")
        taken = self.messages[-2]["content"].partition("\n")[0]
        del self.messages[-2:]
        return f"(taken back: {taken[:60]})"

    def _system(self, text: str) -> str:
        refuse_half_characters(text)
        self.system = text or None
        return "(the system prompt is set)" if text else "(no system prompt)"

    def _set(self, text: str) -> str:
        if text:
            self.change(text)
        return "\n".join(f"{name:24} {value}" for name, value in self.setting_values().items())

    def change(self, text: str) -> str:
        """Change a setting, from 'NAME VALUE' or 'NAME=VALUE'; what to print.  Raises OptionError."""
        name, _, value = text.strip().replace("=", " ").partition(" ")
        name = name.replace("-", "_")
        self.settings = self.settings.with_text(name, value.strip())
        return f"({name} is {getattr(self.settings, name)})"

    def setting_values(self) -> dict[str, Any]:
        """The settings by name."""
        return {name: getattr(self.settings, name) for name in FLAGS}

    def tree(self) -> TreeDrawing:
        """The draft tree of the last round that drafted.  Raises OptionError before there is one."""
        if self.drafted is None:
            raise OptionError("no round has drafted yet")
        return draw_tree(self.drafted, self.pair.tokenizer)

    def _tree(self, _: str) -> str:
        return self.tree().text()

    def _stats(self, _: str) -> str:
        return "\n".join(f"{f'{name}:':15}{value}" for name, value in self.statistics().items())

    def statistics(self) -> dict[str, str]:
        """Figures of the last answer and of all, by name.  Raises OptionError before there is one."""
        if self.last is None:
            raise OptionError("there is no answer yet")
        last = self.last
        totals = self.totals
        rate = totals.tokens / totals.seconds
        length = (totals.tokens - totals.answers) / max(totals.rounds, 1)
        figures = {
            "last answer": f"{last.generation_tokens} tokens, {last.generation_tps:.1f} tok/s, "
            f"acceptance length {last.mean_acceptance_length:.2f}",
            f"all {totals.answers} answers": f"{totals.tokens} tokens, {rate:.1f} tok/s, "
            f"acceptance length {length:.2f}",
            "prompt": f"{last.prompt_tokens} new tokens, {self.session.reused} kept from before",
            "context": f"{len(self.session.token_ids)} tokens, {self.session.nbytes / 1e6:.1f} MB of caches",
        }
        if self.plain is not None:
            measured_after, plain = self.plain
            speedup = last.generation_tps / plain
            figures["plain decoding"] = f"{plain:.1f} tok/s, measured after {measured_after} tokens: {speedup:.2f}x"
        for line in last.statistics.lines().splitlines():
            name, _, value = line.partition(": ")
            figures[name] = value
        return figures

    def save(self, name: str) -> str:
        """Write the conversation to a file; what to print.  Raises MlxDdtreeError."""
        path = _path(name)
        write_chat(path, SavedChat(self.messages, self.system, self.settings))
        return f"({len(self.messages)} messages are in {path})"

    def load(self, name: str) -> str:
        """Take over the whole conversation of a file or nothing of it; what to print.  Raises MlxDdtreeError."""
        path = _path(name)
        saved = read_chat(path, self.settings)
        self.messages = saved.messages
        self.settings = saved.settings
        self.system = saved.system
        return f"({len(self.messages)} messages from {path})"


def _path(name: str) -> Path:
    if not name:
        raise OptionError("name a file")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:  # a ~user that is not there
        raise OptionError(f"{name} is no file: {error}") from None
