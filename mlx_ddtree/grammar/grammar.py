"""What form an answer must have: a JSON schema, a regular expression or a Lark grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llguidance import LLMatcher, LLParserLimits

from mlx_ddtree.errors import LONGEST_LINE, OptionError
from mlx_ddtree.untrusted import read_json

Kind = Literal["json_schema", "regex", "lark"]
KINDS: tuple[Kind, ...] = ("json_schema", "regex", "lark")
NAMES: Mapping[Kind, str] = {"json_schema": "JSON schema", "regex": "regular expression", "lark": "grammar"}
"""What messages call them."""
MOST_BYTES = 1 << 20
"""Of a grammar's text."""
LAYOUT = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
"""How JSON is laid out where a schema does not say otherwise: as Python's json.dumps does it.  A free choice of white
space would leave almost nothing that is certain, and small models get lost in it."""


def limits() -> LLParserLimits:
    """What a grammar may take: llguidance's own limits, but about 50 MB of states, a quarter of the readings that it
    lets a text have at once (their time grows with the square), and messages without the grammar's text."""
    return LLParserLimits(max_lexer_states=50_000, max_items_in_row=500, verbose_errors=False)


@dataclass(frozen=True)
class Grammar:
    """The form that an answer has from its first token to its end; checked when it is made.

    kind: how `text` is to be read.
    text: a JSON schema, a regular expression (Rust's syntax) or a grammar in llguidance's Lark.
    after_reasoning: whether a model that reasons may do so first; the form then begins behind its reasoning.

    Raises OptionError for what cannot be understood, or would take too much.
    """

    kind: Kind
    text: str
    after_reasoning: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"unknown kind of grammar {self.kind!r}; choose one of {', '.join(KINDS)}")
        if not isinstance(self.text, str):
            raise OptionError(f"the {NAMES[self.kind]} must be a text, not a {type(self.text).__name__}")
        try:
            size = len(self.text.encode())
        except UnicodeEncodeError:
            raise OptionError(f"the {NAMES[self.kind]} is not Unicode: it holds halves of characters") from None
        if size > MOST_BYTES:
            raise OptionError(f"the {NAMES[self.kind]} has more than {MOST_BYTES >> 20} MiB")
        is_wrong, messages = LLMatcher.validate_grammar_with_warnings(self.source, limits=limits())
        if is_wrong:
            raise OptionError(f"the {NAMES[self.kind]} cannot be used: {_one_line(messages)}")

    @classmethod
    def json_schema(cls, schema: str | Mapping[str, Any], *, after_reasoning: bool = True) -> Grammar:
        """Answers that are JSON of this schema, laid out as json.dumps does it unless its "x-guidance" says otherwise.

        Raises OptionError.
        """
        if not isinstance(schema, Mapping):
            schema = read_json(schema, name="the JSON schema", most_bytes=MOST_BYTES, error=OptionError)
        return cls("json_schema", json.dumps(schema), after_reasoning)

    @classmethod
    def json_object(cls, *, after_reasoning: bool = True) -> Grammar:
        """Answers that are any JSON object."""
        return cls.json_schema({"type": "object"}, after_reasoning=after_reasoning)

    @classmethod
    def regex(cls, pattern: str, *, after_reasoning: bool = True) -> Grammar:
        """Answers that a regular expression matches from the first character to the last.  Raises OptionError."""
        return cls("regex", pattern, after_reasoning)

    @classmethod
    def lark(cls, text: str, *, after_reasoning: bool = True) -> Grammar:
        """Answers of a grammar in llguidance's Lark.  Raises OptionError."""
        return cls("lark", text, after_reasoning)

    @property
    def source(self) -> str:
        """The grammar as llguidance takes it.  Raises OptionError for a schema that is no JSON object."""
        if self.kind == "regex":
            return LLMatcher.grammar_from_regex(self.text)
        if self.kind == "lark":
            return LLMatcher.grammar_from_lark(self.text)
        try:
            return LLMatcher.grammar_from_json_schema(self.text, defaults=LAYOUT)  # type: ignore[arg-type]
        except ValueError as error:
            raise OptionError(f"the JSON schema is no JSON object: {_one_line([str(error)])}") from None


def _one_line(messages: list[str]) -> str:
    """What llguidance says, without its repetitions of the grammar."""
    text = " ".join(" ".join(messages).split())
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}..."
