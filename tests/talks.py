"""Conversations as agents and chats have them, with tiny random pairs and a template that takes reasoning out of history.

The template is laid out as those of today's hybrid models are: a prompt for an answer ends within an opened reasoning, and
answers before the last user's message are written without any, unless `preserve_thinking` asks for them.
"""

from dataclasses import dataclass, field

from mlx_ddtree.pair import Pair
from mlx_ddtree.target import make_target

from .families import FAMILIES, tiny_model
from .helpers import small_drafter
from .training.tiny import make_special_tokenizer

SPECIAL = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
TEMPLATE = (
    "{%- set ns = namespace(last=-1) %}"
    "{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{%- for m in messages %}"
    "{{- '<|im_start|>' + ('user\ntool. ' if m.role == 'tool' else m.role + '\n') }}"
    "{%- if m.role == 'assistant' and (loop.index0 > ns.last or preserve_thinking) %}"
    "{{- '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}"
    "{%- endif %}"
    "{{- m.content + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\n<think>\n' + ('\n</think>\n\n' if enable_thinking is false else '') }}"
    "{%- endif %}"
)
SYSTEM = "You help with programs. " + "Use a tool where it helps and say what you found. " * 6
LIMIT = {"max_position_embeddings": 10000}


def talking_pair(name, *, drafter=True):
    """One of tests/families.py, with this template and without an end token, so that answers have their full length."""
    config = FAMILIES[name] | LIMIT
    if "text_config" in config:
        config["text_config"] = config["text_config"] | LIMIT
    target = make_target(tiny_model(config))
    tokenizer = make_special_tokenizer(SPECIAL, TEMPLATE, eos=None)
    tokenizer.eos_token_ids.clear()
    return Pair(target, small_drafter(target) if drafter else None, tokenizer)


def user(text):
    return {"role": "user", "content": text}


def answer(text, reasoning=None):
    return {"role": "assistant", "content": text} | ({} if reasoning is None else {"reasoning_content": reasoning})


def tool(text):
    return {"role": "tool", "content": text}


@dataclass
class Talk:
    """Requests one after the other, as a client sends them; a request holds the whole conversation.

    template: options of the chat template.
    """

    pair: Pair
    messages: list = field(default_factory=lambda: [{"role": "system", "content": SYSTEM}])
    template: dict = field(default_factory=dict)

    def ids(self, *more):
        """The prompt of the next request; more: messages that come to the conversation."""
        self.messages += more
        options = {"add_generation_prompt": True} | self.template
        return list(self.pair.tokenizer.apply_chat_template(self.messages, **options))

    def text(self, tokens):
        return self.pair.tokenizer.decode(tokens, skip_special_tokens=False)
