"""Small random pairs whose tokens are bytes and a few longer pieces, as grammars need them."""

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mlx_ddtree import stream_generate
from mlx_ddtree.generation.grammars import vocabulary_of
from mlx_ddtree.pair import Pair

from ..helpers import any_profile, small_drafter, small_target

SPECIAL = ("<eos>", "<mask>", "<think>", "</think>", "<end>")
EOS, MASK, THINK, THOUGHT, END = range(len(SPECIAL))
MERGES = (
    *(("{", '"'), ('"', ":"), ("n", "a"), ("m", "e"), ("na", "me"), ("a", "b"), ("ab", "c"), ("t", "r")),
    *(("u", "e"), ("tr", "ue"), (",", "Ġ"), ('"', ","), ("1", "2"), ("a", "l"), ("s", "e"), ("f", "al"), ("fal", "se")),
)
VOCAB = 320
TEMPLATE = "{% for m in messages %}{{ m['role'][0] }}: {{ m['content'] }}\n{% endfor %}a: "
PROMPT = [70, 80, 90, 75, 66, 101]

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "kind": {"enum": ["alpha", "alphabet", "beta"]},
        "pure": {"type": "boolean"},
        "size": {"type": "integer", "minimum": 0, "maximum": 999},
        "parts": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "kind", "pure", "size", "parts"],
    "additionalProperties": False,
}


def byte_tokenizer(reasons=False, ends=("<eos>",)):
    """Byte-level BPE; reasons: whether <think> and </think> are among its special tokens."""
    special = SPECIAL if reasons else [name.replace("think", "unused") for name in SPECIAL]
    vocab = {name: i for i, name in enumerate(special)}
    for piece in [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in MERGES)]:
        vocab[piece] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab, list(MERGES)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", mask_token="<mask>")
    fast.chat_template = TEMPLATE
    return TokenizerWrapper(fast, eos_token_ids=[vocab[name] for name in ends])


def byte_pair(family="qwen3", *, drafter=True, tokenizer=None, **options):
    target = small_target(family, vocab=VOCAB, **options)
    pair = Pair(target, small_drafter(target) if drafter else None, tokenizer or byte_tokenizer())
    pair.profile = any_profile(drafter)
    return pair


def allowed_ids(vocabulary, matcher):
    bits = np.unpackbits(vocabulary.allowed(matcher).view(np.uint8), bitorder="little")
    return np.flatnonzero(bits[: vocabulary.size])


def mask_of(pair, grammar, prompt):
    """The grammar as a logits processor of mlx-lm's own loop: a matcher that consumes what was said, step by step."""
    vocabulary = vocabulary_of(pair)
    matcher = vocabulary.matcher(grammar)
    said = len(prompt)

    def processor(token_ids, logits):
        nonlocal said
        new = token_ids.tolist()[said:]
        said += len(new)
        if any(token in vocabulary.ends for token in new):  # mlx-lm runs one step ahead
            return logits
        assert not new or matcher.consume_tokens(new)
        allowed = np.zeros(logits.shape[-1], bool)
        allowed[allowed_ids(vocabulary, matcher)] = True
        return mx.where(mx.array(allowed), logits, -mx.inf)

    return processor


def stock_tokens(pair, grammar, prompt, count, processors=(), **options):
    """What mlx_lm itself generates under the grammar's mask."""
    found = []
    processors = [*processors, mask_of(pair, grammar, prompt)]
    for token, _ in generate_step(
        mx.array(prompt), pair.target.model, max_tokens=count, logits_processors=processors, **options
    ):
        found.append(token)
        if token in pair.tokenizer.eos_token_ids:
            break
    return found


def our_tokens(pair, prompt, count, **options):
    return [token for response in stream_generate(pair, prompt, count, **options) for token in response.tokens]
