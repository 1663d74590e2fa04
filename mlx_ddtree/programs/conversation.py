"""A conversation with a pair: its messages, its settings, and the commands that change them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from mlx_lm.sample_utils import make_logits_processors

from mlx_ddtree.decoding.sampling import make_sampler
from mlx_ddtree.errors import MlxDdtreeError, OptionError, PromptError
from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.generation.session import Session
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.compress import PrefillCompression
from mlx_ddtree.programs.cli import compression, kv_budget, tree_budget

VERSION = 1


@dataclass(frozen=True)
class Settings:
    """How answers are made; the names are those of the command line."""

    temp: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    top_k: int = 0
    seed: int | None = None
    repetition_penalty: float | None = None
    repetition_context_size: int = 20
    max_tokens: int = 1024
    method: str = "ddtree"
    tree_budget: Any = "auto"
    block_size: int | None = None
    parity: str = "exact"
    prefill_step_size: int = 2048
    prefill_compression: str = "off"
    prefill_threshold: int = PrefillCompression.threshold
    prefill_keep_ratio: float | None = None
    prefill_scorer: str = "self"
    prefill_positions: str = "original"
    prefill_protect: list[str] = field(default_factory=list)
    kv_keep_ratio: float | None = None
    kv_budget: int | None = None
    kv_page_size: int = 0
    kv_offload: str | None = None

    def with_text(self, name: str, text: str) -> Settings:
        """One of them changed, from what a user typed.  Raises OptionError."""
        if name not in _CONVERT:
            raise OptionError(f"there is no setting {name!r}; there are {', '.join(_CONVERT)}")
        try:
            changed = replace(self, **{name: _CONVERT[name](text)})
        except ValueError:
            raise OptionError(f"{text!r} is no value for {name}") from None
        changed.options()
        return changed

    def options(self) -> dict[str, Any]:
        """For `stream_generate`.  Raises OptionError."""
        sampler = make_sampler(self.temp, self.top_p, self.min_p, top_k=self.top_k, seed=self.seed)
        processors = make_logits_processors(
            repetition_penalty=self.repetition_penalty, repetition_context_size=self.repetition_context_size
        )
        names = ("max_tokens", "method", "tree_budget", "block_size", "parity", "prefill_step_size")
        same = {name: getattr(self, name) for name in (*names, "kv_keep_ratio")}
        budget = kv_budget(self.kv_budget, self.kv_page_size, self.kv_offload)
        long = {"compression": compression(self), "kv_budget": budget}
        return {"sampler": sampler, "logits_processors": processors, **same, **long}


def _or_none(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text == "none" else convert(text)


_CONVERT: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("temp", "top_p", "min_p"), float),
    **dict.fromkeys(("top_k", "max_tokens", "repetition_context_size", "prefill_step_size"), int),
    **dict.fromkeys(("method", "parity", "prefill_compression", "prefill_scorer", "prefill_positions"), str),
    "seed": _or_none(int),
    "repetition_penalty": _or_none(float),
    "prefill_threshold": int,
    **dict.fromkeys(("prefill_keep_ratio", "kv_keep_ratio"), _or_none(float)),
    **dict.fromkeys(("block_size", "kv_budget"), _or_none(int)),
    "kv_page_size": int,
    "kv_offload": _or_none(str),
    "tree_budget": tree_budget,
}


@dataclass
class Totals:
    """Over the answers so far."""

    answers: int = 0
    tokens: int = 0
    rounds: int = 0
    seconds: float = 0.0

    def add(self, last: GenerationResponse) -> None:
        self.answers += 1
        self.tokens += last.generation_tokens
        self.rounds += last.rounds
        self.seconds += last.generation_tokens / last.generation_tps


class Conversation:
    """Messages and the session that holds what they became."""

    def __init__(self, pair: Pair, settings: Settings, system: str | None = None) -> None:
        if not pair.tokenizer.has_chat_template:
            raise PromptError("this model's tokenizer has no chat template; use mlx_ddtree.generate for plain text")
        self.pair, self.settings, self.system = pair, settings, system
        self.session = Session(pair)
        self.messages: list[dict[str, str]] = []
        self.totals = Totals()
        self.last: GenerationResponse | None = None
        self.plain: tuple[int, float] | None = None  # at how many tokens of context, tokens a second

    def prompt(self) -> list[dict[str, str]]:
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.messages]

    def say(self, message: str, progress: Callable[[int, int], None] | None = None) -> Iterator[GenerationResponse]:
        """The answer, as it comes.  What was said stays in the conversation even when it is cut off; a message
        that is refused, or not answered at all, does not."""
        self.messages.append({"role": "user", "content": message})
        answer, last, options = "", None, self.settings.options()
        try:
            for last in self.session.stream(self.prompt(), prompt_progress_callback=progress, **options):
                answer += last.text
                yield last
        finally:
            if last is None:
                self.messages.pop()
            else:
                self.messages.append({"role": "assistant", "content": answer})
                self.last = last
                self.totals.add(last)

    def measure_plain(self) -> None:
        """Plain decoding's speed here, now and then: when the context has grown by half."""
        length, limit = len(self.session.token_ids), self.pair.target.max_context
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
            "/set": self._set,
            "/system": self._system,
            "/save": self.save,
            "/load": self.load,
        }
        if name not in commands:
            raise OptionError(f"there is no command {name}; /help lists them")
        return commands[name](rest.strip())

    def _reset(self, _: str) -> str:
        self.messages = []
        self.session.reset()
        return "(the conversation is forgotten)"

    def _undo(self, _: str) -> str:
        if not self.messages:
            raise OptionError("there is nothing to take back")
        taken = self.messages[-2]["content"]
        del self.messages[-2:]
        return f"(taken back: {taken.splitlines()[0][:60]})"

    def _system(self, text: str) -> str:
        self.system = text or None
        return "(the system prompt is set)" if text else "(no system prompt)"

    def _set(self, text: str) -> str:
        if text:
            name, _, value = text.replace("=", " ").partition(" ")
            self.settings = self.settings.with_text(name.replace("-", "_"), value.strip())
        return "\n".join(f"{f.name:24} {getattr(self.settings, f.name)}" for f in fields(self.settings))

    def _stats(self, _: str) -> str:
        if self.last is None:
            raise OptionError("there is no answer yet")
        totals, last = self.totals, self.last
        rate = totals.tokens / totals.seconds
        lines = [
            f"last answer:   {last.generation_tokens} tokens, {last.generation_tps:.1f} tok/s, "
            f"acceptance length {last.mean_acceptance_length:.2f}",
            f"all {totals.answers} answers: {totals.tokens} tokens, {rate:.1f} tok/s, "
            f"acceptance length {(totals.tokens - totals.answers) / max(totals.rounds, 1):.2f}",
            f"prompt:        {last.prompt_tokens} new tokens, {self.session.reused} kept from before",
            f"context:       {len(self.session.token_ids)} tokens, {self.session.nbytes / 1e6:.1f} MB of caches",
        ]
        if self.plain is not None:
            length, plain = self.plain
            speedup = last.generation_tps / plain
            lines.append(f"plain decoding: {plain:.1f} tok/s, measured after {length} tokens: {speedup:.2f}x")
        return "\n".join([*lines, last.statistics.lines()])

    def save(self, name: str) -> str:
        path = _path(name)
        record = {
            "version": VERSION,
            "system": self.system,
            "messages": self.messages,
            "settings": asdict(self.settings),
        }
        try:
            with NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
                json.dump(record, file, indent=1, ensure_ascii=False)
            Path(file.name).replace(path)
        except OSError as error:
            raise MlxDdtreeError(f"{path} cannot be written: {error.strerror}") from error
        return f"({len(self.messages)} messages are in {path})"

    def load(self, name: str) -> str:
        """The whole conversation or nothing of it."""
        path = _path(name)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in record["messages"]]
            settings, system = Settings(**record["settings"]), record["system"]
            settings.options()
        except OSError as error:
            raise MlxDdtreeError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise MlxDdtreeError(f"{path} is not a conversation that /save wrote: {error}") from error
        roles = [m["role"] for m in messages]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            raise MlxDdtreeError(f"{path} is not a conversation that /save wrote: its roles do not alternate")
        self.messages, self.settings, self.system = messages, settings, system
        return f"({len(messages)} messages from {path})"


def _path(name: str) -> Path:
    if not name:
        raise OptionError("name a file")
    return Path(name).expanduser()
