"""From a request to token ids.  Nothing here touches MLX, so it runs beside the decoding thread."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlx_lm.server import convert_chat
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.errors import PromptError
from mlx_ddtree.generation.grammars import is_reasoning
from mlx_ddtree.generation.prompts import KEEPS_REASONING, conversation_template, prompt_token_ids
from mlx_ddtree.grammar.grammar import Grammar
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.compress import OFF, PrefillCompression, is_chat
from mlx_ddtree.pflash.messages import aged_spans
from mlx_ddtree.pflash.modes import MESSAGES
from mlx_ddtree.server.errors import TOO_LONG, ApiError
from mlx_ddtree.server.grammars import grammar_for
from mlx_ddtree.server.history import completed, make_fit_for_template
from mlx_ddtree.server.reasonings import Reasonings
from mlx_ddtree.server.requests import ChatRequest, TextRequest


@dataclass(frozen=True)
class Prepared:
    """A prompt.

    state: what the answer begins as: 'normal', 'reasoning', or a state of the tokenizer's response format.
    tools: as the client gave them.
    compression: of this prompt, with what is protected in it as spans of its tokens.
    conversation: the key of a chat's messages, under which the answer's reasoning is remembered.
    grammar: the form that the answer must have.
    """

    ids: list[int]
    state: str = "normal"
    tools: list[Any] | None = None
    compression: PrefillCompression | None = None
    conversation: bytes | None = None
    grammar: Grammar | None = None


def prepare_texts(pair: Pair, request: TextRequest, compression: PrefillCompression = OFF) -> list[Prepared]:
    """A completion's prompts.  Raises ApiError 400."""
    prepared = []
    for prompt in request.prompt:
        ids = fitting(pair, text_ids(pair, prompt), "prompt", compression)
        grammar = grammar_for(pair, request, None, ids)
        prepared.append(Prepared(ids, compression=protecting(pair, compression, ids, ids), grammar=grammar))
    return prepared


def prepare(
    pair: Pair,
    request: ChatRequest,
    body: dict[str, Any],
    template: Mapping[str, Any],
    compression: PrefillCompression = OFF,
    reasonings: Reasonings | None = None,
    must_fit: bool = True,
) -> Prepared:
    """A chat's prompt.  Raises ApiError 400.

    must_fit: whether a chat that leaves no room for an answer is refused.
    template: options of the chat template that the server was started with.
    reasonings: what is remembered of earlier answers.
    """
    tools = None if request.tool_choice == "none" else body.get("tools") or None
    if tools and not pair.tokenizer.has_tool_calling:
        raise ApiError(400, "tools: mlx-lm knows no tool calls of this model", param="tools")
    options = template_options(pair, request, template)
    make_fit_for_template(pair.tokenizer, body["messages"])
    conversation = None
    if reasonings is not None and options.get(KEEPS_REASONING) is not False:
        conversation = reasonings.put_back(body["messages"])
    if request.continue_final_message:
        options |= {"add_generation_prompt": False, "continue_final_message": True}
    ids = chat_ids(pair, body["messages"], tools, options, tolerated=request.reasoning_effort is not None)
    if must_fit:
        fitting(pair, ids, "messages", compression)
    prompt: Any = body["messages"] if pair.tokenizer.has_chat_template else ids
    shorter = protecting(pair, compression, prompt, ids, tools=tools, **options)
    grammar = grammar_for(pair, request, tools, ids)
    return Prepared(ids, initial_state(pair.tokenizer, ids), tools, shorter, conversation, grammar)


def protecting(
    pair: Pair, compression: PrefillCompression, prompt: Any, ids: list[int], **template: Any
) -> PrefillCompression:
    """The compression with what is protected in this prompt, if it may be compressed at all.  Raises ApiError 400."""
    if compression.mode == MESSAGES and is_chat(prompt):
        return replace(compression, aged=aged_spans(pair.tokenizer, prompt, ids, compression.threshold, **template))
    if not compression.concerns(len(ids)):
        return compression
    try:
        return compression.protecting(pair, prompt, ids, **template)
    except PromptError as error:
        raise ApiError(400, f"prefill_protect: {error}", param="prefill_protect") from None


def template_options(pair: Pair, request: ChatRequest, template: Mapping[str, Any]) -> dict[str, Any]:
    """The server's options of the template, and the request's over them.  Raises ApiError 400 for what is none."""
    options = {**conversation_template(pair.tokenizer), **template, **(request.chat_template_kwargs or {})}
    if request.reasoning_effort is not None:
        options["reasoning_effort"] = request.reasoning_effort
    if request.reasoning_effort == "none":
        options.setdefault("enable_thinking", False)
    reserved = set(inspect.signature(pair.tokenizer.apply_chat_template).parameters) | _RESERVED
    if wrong := sorted(reserved & set(options)):
        message = f"chat_template_kwargs: {', '.join(wrong)} cannot be set"
        raise ApiError(400, message, param="chat_template_kwargs")
    return options


def text_ids(pair: Pair, prompt: str | list[int]) -> list[int]:
    """One of a completion's prompts.  Raises ApiError 400."""
    if not prompt:
        raise ApiError(400, "prompt: it is empty", param="prompt")
    try:
        return prompt_token_ids(pair, prompt)
    except PromptError as error:
        raise ApiError(400, f"prompt: {error}", param="prompt") from None


def chat_ids(
    pair: Pair,
    messages: list[dict[str, Any]],
    tools: list[Any] | None,
    options: dict[str, Any],
    tolerated: bool = False,
) -> list[int]:
    """A conversation as its template writes it; options: of the template.

    tolerated: whether a reasoning effort that the template does not know is left out, in `options` too: clients have
        one written into them that not every model has.

    What a template does not like about the messages is the client's to mend: its own words become a 400.
    """
    tokenizer = pair.tokenizer
    try:
        if not tokenizer.has_chat_template:
            return list(tokenizer.encode(convert_chat(messages)))
        asked = {"add_generation_prompt": True} | options
        return list(tokenizer.apply_chat_template(messages, tools=tools, **asked))
    except Exception as error:  # templates are programs that raise what they like
        if tolerated and options.pop("reasoning_effort", None) is not None:
            return chat_ids(pair, messages, tools, options)
        if tools and (more := completed(tools)) != tools:
            return chat_ids(pair, messages, more, options)
        raise ApiError(400, f"messages: the chat template cannot use them: {error}", param="messages") from error


_RESERVED = {
    *("tokenize", "add_generation_prompt", "continue_final_message", "tools", "documents", "chat_template"),
    *("return_dict", "return_tensors", "padding", "truncation", "max_length", "tokenizer_kwargs"),
    *("return_assistant_tokens_mask", "conversation", "messages"),
}


def fitting(pair: Pair, ids: list[int], param: str, compression: PrefillCompression) -> list[int]:
    """A prompt's ids as they came, if they leave room for an answer.

    Prompts that will be compressed into fewer positions may be longer than the context.  Raises ApiError 400.
    """
    if not ids:
        raise ApiError(400, f"{param}: the prompt is empty", param=param)
    limit = pair.target.max_context
    shorter = compression.positions == "compact" and compression.concerns(len(ids))
    shorter |= compression.mode == MESSAGES and len(ids) > compression.threshold
    if limit is not None and len(ids) >= limit and not shorter:
        message = f"{param}: the prompt has {len(ids)} tokens, but this model's context ends at {limit}"
        raise ApiError(400, message, param=param, code=TOO_LONG)
    return ids


def initial_state(tokenizer: TokenizerWrapper, ids: list[int]) -> str:
    """Templates may end in the middle of the model's reasoning."""
    state = "reasoning" if is_reasoning(tokenizer, ids) else "normal"
    return tokenizer.response_initial_state or state
