"""From text, token ids or chat messages to the token ids that the target reads; what a template refuses is one line."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.errors import OptionError, PromptError
from mlx_ddtree.pair import Pair

KEEPS_REASONING = "preserve_thinking"
"""The option of newer templates that leaves the reasoning of earlier answers where it was."""
Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]] | mx.array

_FORMS = "give text, token ids, or chat messages ({'role', 'content'})"
_TEMPLATES_OWN = {
    *("tokenize", "add_generation_prompt", "continue_final_message", "tools", "documents", "chat_template"),
    *("return_dict", "return_tensors", "padding", "truncation", "max_length", "tokenizer_kwargs"),
    *("return_assistant_tokens_mask", "conversation", "messages"),
}
"""Arguments of `apply_chat_template` that this package sets itself, or that change what it returns."""


def prompt_token_ids(pair: Pair, prompt: Prompt, template: Mapping[str, Any] | None = None) -> list[int]:
    """The ids of raw text, of ids in any form, or of chat messages through the chat template.

    template: further arguments of the template.

    Raises PromptError for what is none of these, is empty, or has ids outside the vocabulary.
    """
    items: Any = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    if isinstance(items, str):
        ids = text_token_ids(pair.tokenizer, items)
    elif not isinstance(items, Sequence) or isinstance(items, bytes):
        raise PromptError(f"the prompt is {_kind_of(items)}: {_FORMS}")
    elif items and all(isinstance(item, Mapping) for item in items):
        ids = chat_token_ids(pair.tokenizer, items, template)
    else:
        ids = _given_ids(items)
    if not ids:
        raise PromptError("the prompt is empty: give at least one token")
    vocab_size = pair.target.args.vocab_size
    if min(ids) < 0 or max(ids) >= vocab_size:
        raise PromptError(f"the prompt has token ids outside the vocabulary (0..{vocab_size - 1})")
    return ids


def text_token_ids(tokenizer: TokenizerWrapper, text: str) -> list[int]:
    """The ids of raw text, with the token that begins a text unless it is there already."""
    refuse_half_characters(text)
    bos = tokenizer.bos_token
    return list(tokenizer.encode(text, add_special_tokens=bos is None or not text.startswith(bos)))


def chat_token_ids(
    tokenizer: TokenizerWrapper,
    messages: Sequence[Mapping[str, Any]],
    template: Mapping[str, Any] | None = None,
    *,
    continue_last: bool = False,
) -> list[int]:
    """The ids of chat messages, as the tokenizer's template writes them.

    template: further arguments of the template.
    continue_last: the answer goes on where the last message, an assistant's, ends.

    Raises PromptError where there is no template, or where it refuses the messages; OptionError for arguments that
    are not the template's.
    """
    if not tokenizer.has_chat_template:
        raise PromptError("this tokenizer has no chat template: give the prompt as text or token ids")
    options = dict(template or {})
    refuse_reserved(tokenizer, options)
    for message in messages:
        refuse_half_characters(message.get("content"))
    try:
        ids = tokenizer.apply_chat_template(
            with_known_roles(tokenizer, messages),
            add_generation_prompt=not continue_last,
            continue_final_message=continue_last,
            **options,
        )
    except Exception as error:  # templates are programs that raise what they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PromptError(f"the chat template cannot use these messages: {reason}") from error
    return _given_ids(ids)


def conversation_template(tokenizer: TokenizerWrapper) -> dict[str, Any]:
    """What a conversation that goes on asks of its template, where the template knows it: reasoning stays in history.

    Then a prompt begins with all that the one before it and its answer were, and nothing of these is processed again.
    """
    template = tokenizer.chat_template if tokenizer.has_chat_template else None
    return {KEEPS_REASONING: True} if isinstance(template, str) and KEEPS_REASONING in template else {}


def with_known_roles(tokenizer: TokenizerWrapper, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages, with "developer" as "system" where the template does not know that role.

    OpenAI's newer clients say "developer".  Templates that do not know a role pass over its messages, or write a header
    that the model has never seen.
    """
    known = knows_developer(tokenizer)
    fitting = []
    for message in messages:
        copy = dict(message)
        if copy.get("role") == "developer" and not known:
            copy["role"] = "system"
        fitting.append(copy)
    return fitting


def knows_developer(tokenizer: TokenizerWrapper) -> bool:
    """Whether the tokenizer's chat template does something of its own with the role "developer"."""
    template = tokenizer.chat_template if tokenizer.has_chat_template else None
    return isinstance(template, str) and "developer" in template


def reserved_names(tokenizer: TokenizerWrapper) -> set[str]:
    """What may not be given to a chat template as an option of its own."""
    return set(inspect.signature(tokenizer.apply_chat_template).parameters) | _TEMPLATES_OWN


def refuse_reserved(tokenizer: TokenizerWrapper, options: Mapping[str, Any]) -> None:
    """Raise OptionError for options that are not the template's to know."""
    wrong = sorted(reserved_names(tokenizer) & set(options))
    if wrong:
        raise OptionError(f"the chat template's options cannot set {', '.join(wrong)}")


def refuse_half_characters(text: Any) -> None:
    """Raise PromptError for text that is not Unicode, such as bytes of another encoding; anything else passes."""
    if not isinstance(text, str):
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        before = text[: error.start].count("\n") + 1
        raise PromptError(f"the text is not UTF-8 in line {before}: convert it, with iconv for example") from None


def _given_ids(items: Any) -> list[int]:
    ids = []
    for item in items:
        if not hasattr(item, "__index__"):
            raise PromptError(f"the prompt holds {_kind_of(item)} among its token ids: {_FORMS}")
        ids.append(int(item.__index__()))
    return ids


def _kind_of(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"
