"""A random target and a character tokenizer, small enough to train with in a second."""

import mlx.core as mx
from mlx_lm.models import qwen3
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mlx_ddtree.target import TreeTarget

CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \n.:"
VOCAB, EOS, MASK = 64, 0, 1
TEMPLATE = "{% for m in messages %}{{ m['role'][0] }}: {{ m['content'] }}\n{% endfor %}a: "


def make_target(layers=4):
    mx.random.seed(7)
    args = qwen3.ModelArgs(
        model_type="qwen3", hidden_size=32, num_hidden_layers=layers, intermediate_size=64, num_attention_heads=4,
        rms_norm_eps=1e-6, vocab_size=VOCAB, num_key_value_heads=2, max_position_embeddings=512, rope_theta=1e4,
        head_dim=8, tie_word_embeddings=True,
    )  # fmt: skip
    target = TreeTarget(qwen3.Model(args))
    mx.eval(target.model.parameters())
    return target


def character_tokenizer(vocab):
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def make_tokenizer(chat=True):
    vocab = {"<eos>": EOS, "<mask>": MASK, "<unk>": 2} | {c: i + 3 for i, c in enumerate(CHARACTERS)}
    tokenizer = character_tokenizer(vocab)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", mask_token="<mask>", unk_token="<unk>", chat_template=None
    )
    fast.chat_template = TEMPLATE if chat else None
    return TokenizerWrapper(fast)


def make_special_tokenizer(special, template, *, eos, eos_token_ids=(), gap=0, **named):
    """A tokenizer without a mask token: characters, then `gap` ids that no token has, then the special tokens.

    eos: the tokenizer's own end token, or None.  eos_token_ids: special tokens that the model's config ends with.
    """
    vocab = {"<unk>": 0} | {c: i + 1 for i, c in enumerate(CHARACTERS)}
    first = len(vocab) + gap
    vocab |= {token: first + i for i, token in enumerate(special)}
    tokenizer = character_tokenizer(vocab)
    tokenizer.add_special_tokens(list(special))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token=eos, **named)
    fast.chat_template = template
    return TokenizerWrapper(fast, eos_token_ids=[vocab[token] for token in eos_token_ids])
