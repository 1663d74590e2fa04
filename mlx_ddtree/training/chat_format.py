"""How a target's conversations look as tokens: in what form its chat template takes texts, and how answers end.

Both are found out from the template itself, by rendering a conversation of words that can be found again.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

from mlx_lm.server import process_message_content
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.training.examples import DataError

Message = dict[str, Any]
"""{"role": ..., "content": a text, or parts as [{"type": "text", "text": ...}]}, and what else a template reads."""
QUESTION = "askedbyprobe"
ANSWER = "answeredbyprobe"


class ChatFormat:
    """A tokenizer's way from conversations to tokens.

    takes_parts: whether the template shows texts only as lists of parts (some multimodal ones do).
    end_tokens: what ends an answer.

    Raises DataError if the chat template shows no user's text in either form.
    """

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self.tokenizer = tokenizer
        self.takes_parts = tokenizer.has_chat_template and self._shows_only_parts()
        self.end_tokens = self._find_end_tokens()

    def prompt_tokens(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The conversation up to where the answer starts; without a chat template, its plain text.

        Raises DataError for content that is no text, and with the template's reason where it refuses the conversation.
        """
        texts = texts_of(messages)
        if not self.tokenizer.has_chat_template:
            return tuple(self.tokenizer.encode("\n".join(message["content"] for message in texts)))
        try:
            token_ids = self.tokenizer.apply_chat_template(
                in_parts(texts) if self.takes_parts else texts,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
        except Exception as error:  # templates are programs that raise what they like
            raise DataError(f"the chat template refuses the conversation: {error}") from None
        return tuple(int(token) for token in token_ids)

    def answer_tokens(self, text: str) -> tuple[int, ...]:
        """An answer as the model would have written it, with its end."""
        return tuple(self.text_tokens(text)) + self.end_tokens

    def text_tokens(self, text: str) -> list[int]:
        """Plain text, nothing before or behind it."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _shows_only_parts(self) -> bool:
        question: list[Message] = [{"role": "user", "content": QUESTION}]
        if QUESTION in self._rendered(question):
            return False
        if QUESTION in self._rendered(in_parts(question)):
            return True
        raise DataError("the target's chat template shows no text of a user: it cannot be asked anything")

    def _rendered(self, messages: Sequence[Message]) -> str:
        """The template's text of a conversation that is over; empty where it refuses."""
        try:
            text = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=False, tokenize=False)
        except Exception as error:  # templates are programs that raise what they like
            logging.getLogger(__name__).info("the chat template refuses a probe: %s", error)
            return ""
        return str(text)

    def _find_end_tokens(self) -> tuple[int, ...]:
        """What the chat template writes behind an answer, up to the first end token.

        A target may have several end tokens of which its answers use one: Llama 3.1 has 128001, 128008 and 128009.
        Where nothing is written behind the last answer, the next question's beginning may be the end (GLM 4).
        """
        if self.tokenizer.has_chat_template:
            question = {"role": "user", "content": QUESTION}
            answer = {"role": "assistant", "content": ANSWER}
            for talk in ([question, answer], [question, answer, question]):
                conversation = in_parts(talk) if self.takes_parts else talk
                _, _, behind = self._rendered(conversation).rpartition(ANSWER)
                tokens = self.text_tokens(behind)
                for index, token in enumerate(tokens):
                    if token in self.tokenizer.eos_token_ids:
                        return tuple(tokens[: index + 1])
        return self._default_end()

    def _default_end(self) -> tuple[int, ...]:
        """The tokenizer's own end token, or the only one that the target has."""
        own = self.tokenizer.eos_token_id
        if own is not None:
            return (int(own),)
        if len(self.tokenizer.eos_token_ids) == 1:
            return tuple(self.tokenizer.eos_token_ids)
        logging.getLogger(__name__).warning(
            "which of the end tokens %s ends an answer is not known: answers of files are learnt without an end",
            sorted(self.tokenizer.eos_token_ids),
        )
        return ()


def in_parts(messages: Sequence[Message]) -> list[Message]:
    """Messages whose texts are lists of one part."""
    return [message | {"content": [{"type": "text", "text": message["content"]}]} for message in messages]


def texts_of(messages: Sequence[Message]) -> list[Message]:
    """Messages whose content is one text each; parts are joined as mlx-lm's server joins them.

    Raises DataError for content of another kind, such as images.
    """
    texts = copy.deepcopy(list(messages))
    try:
        process_message_content(texts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f'content must be a text, or parts as {{"type": "text", "text": ...}}: {error}') from None
    if not all(isinstance(message["content"], str) for message in texts):
        raise DataError('content must be a text, or parts as {"type": "text", "text": ...}')
    return texts
