"""From options to an answer's way through its grammar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.errors import OptionError
from mlx_ddtree.grammar.grammar import MOST_BYTES, Grammar
from mlx_ddtree.grammar.reasoning import Reasoning
from mlx_ddtree.grammar.vocabulary import Vocabulary
from mlx_ddtree.grammar.walk import GrammarWalk
from mlx_ddtree.pair import Pair
from mlx_ddtree.untrusted import read_json, read_text


def grammar_of(grammar: str | Grammar | None, json_schema: str | None, regex: str | None) -> Grammar | None:
    """The one grammar that options ask for; None: there is none.

    grammar: an object, or a file in Lark.  json_schema: a file, or the schema's text, which begins with a brace.

    Raises OptionError for more than one, and for what cannot be read or understood.
    """
    given = {"grammar": grammar, "json_schema": json_schema, "regex": regex}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise OptionError(f"an answer has one form: give one of {', '.join(names)}")
    if isinstance(grammar, Grammar):
        return grammar
    if grammar is not None:
        name = f"the grammar {grammar}"
        return Grammar.lark(read_text(Path(grammar), name=name, most_bytes=MOST_BYTES, error=OptionError))
    if json_schema is not None:
        if json_schema.lstrip().startswith("{"):
            return Grammar.json_schema(json_schema)
        name = f"the JSON schema {json_schema}"
        return Grammar.json_schema(read_json(Path(json_schema), name=name, most_bytes=MOST_BYTES, error=OptionError))
    return None if regex is None else Grammar.regex(regex)


def open_walk(pair: Pair, grammar: Grammar | None, ids: Sequence[int]) -> GrammarWalk | None:
    """An answer's way through a grammar, from its beginning; None without one.

    ids: of the prompt, which may end within the model's reasoning.

    Raises OptionError where the grammar cannot be followed with this pair's tokenizer.
    """
    if grammar is None:
        return None
    vocabulary = vocabulary_of(pair)
    reasoning = reasoning_of(pair.tokenizer, ids) if grammar.after_reasoning else None
    return GrammarWalk(vocabulary, vocabulary.matcher(grammar), reasoning=reasoning)


def vocabulary_of(pair: Pair) -> Vocabulary:
    """The pair's tokenizer as grammars see it, made once for its end tokens.  Raises OptionError."""
    ends = frozenset(pair.tokenizer.eos_token_ids)
    if ends not in pair.vocabularies:
        refuse_channels(pair.tokenizer)
        tokenizer = hf_tokenizer(pair.tokenizer)
        size = getattr(pair.target, "vocab_size", len(tokenizer))
        pair.vocabularies[ends] = Vocabulary(tokenizer, ends, size)
    return pair.vocabularies[ends]


def reasoning_of(tokenizer: TokenizerWrapper, ids: Sequence[int]) -> Reasoning | None:
    """What a model may think behind a prompt; None where it does not reason, or has been told that it has done so."""
    if not tokenizer.has_thinking:
        return None
    begun = is_reasoning(tokenizer, ids)
    end = tuple(tokenizer.think_end_tokens)
    last = tokenizer.rfind_think_end(list(ids))
    if not begun and last >= 0 and not tokenizer.decode(list(ids[last + len(end) :])).strip():
        return None
    return Reasoning(tuple(tokenizer.think_start_tokens), end, begun)


def is_reasoning(tokenizer: TokenizerWrapper, ids: Sequence[int]) -> bool:
    """Whether a prompt ends in the middle of the model's reasoning, as templates may have it."""
    if not tokenizer.has_thinking:
        return False
    return bool(tokenizer.rfind_think_start(list(ids)) > tokenizer.rfind_think_end(list(ids)))


def refuse_channels(tokenizer: TokenizerWrapper) -> None:
    """Raise OptionError for models whose answers are made of channels, each with a header of its own."""
    channels = "<|channel|>" in tokenizer.get_vocab()
    if channels or tokenizer.structural_markers or tokenizer.response_initial_state:
        raise OptionError(
            "this model's answers come in channels with headers of their own, into which no grammar can be laid here"
        )


def hf_tokenizer(tokenizer: TokenizerWrapper) -> Any:
    """What mlx-lm has wrapped."""
    return getattr(tokenizer, "_tokenizer", tokenizer)
