"""Scores are the tail's attention, whatever the family and the size of the parts, and the model stays as it is."""

from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import mamba

import mlx_ddtree
from mlx_ddtree.benchmarking.needles import KINDS, needle_case
from mlx_ddtree.errors import OptionError, PromptError, UnsupportedModelError
from mlx_ddtree.pflash.block_sparse import BlockSparseAttention
from mlx_ddtree.pflash.bridge import fast_tokenizer, token_spans
from mlx_ddtree.pflash.lexical import LexicalScorer
from mlx_ddtree.pflash.scoring import TailAttentionScorer, closing_tokens
from mlx_ddtree.pflash.selection import select

from ..families import FAMILIES, tiny_target
from ..helpers import small_target
from ..training.tiny import make_tokenizer

LATENT = ("deepseek_v3", "kimi_k25")
SCORING = {"llama, windows": [1, 3], "gpt_oss": [1, 3], "gemma4, shared keys": [1, 3], "gemma4, experts": [1, 3]}
SCORING |= {name: [1, 3] for name in ("qwen3_5", "qwen3_5_moe", "qwen3_next")}


def prompt(length, seed=0):
    return np.random.default_rng(seed).integers(4, 60, length).tolist()


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def tail_scores(layers, rows, scale):
    """layers: (queries (Hq, S, D), keys (H, S, D)) of each.  max over layers and heads, then the mean over rows."""
    places = layers[0][1].shape[1]
    best = np.zeros((rows, places))
    for queries, keys in layers:
        for head in range(len(queries)):
            key = keys[head * len(keys) // len(queries)]
            for t in range(rows):
                seen = places - rows + t + 1
                weights = softmax(queries[head, seen - 1].astype(float) @ key[:seen].astype(float).T * scale)
                best[t, :seen] = np.maximum(best[t, :seen], weights)
    return best.mean(axis=0)


def plain_qwen3(target, ids, turned):
    """Queries and keys of every layer by numpy alone, before or after RoPE."""
    weights = {name: np.array(x, np.float64) for name, x in tree_flatten(target.model.parameters())}
    args, size = target.args, len(ids)

    def norm(x, name):
        return (
            x
            / np.sqrt((x**2).mean(axis=-1, keepdims=True) + args.rms_norm_eps)
            * weights[f"model.layers.{name}.weight"]
        )

    def heads(x, i, name):
        y = (x @ weights[f"model.layers.{i}.self_attn.{name}_proj.weight"].T).reshape(size, -1, args.head_dim)
        return y.transpose(1, 0, 2)

    def rope(x):
        half = args.head_dim // 2
        angles = np.arange(size)[:, None] * args.rope_theta ** (-np.arange(half) / half)
        a, b, cos, sin = x[..., :half], x[..., half:], np.cos(angles), np.sin(angles)
        return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)

    hidden, found = weights["model.embed_tokens.weight"][ids], []
    for i in range(args.num_hidden_layers):
        x = norm(hidden, f"{i}.input_layernorm")
        q, k = (norm(heads(x, i, n), f"{i}.self_attn.{n}_norm") for n in ("q", "k"))
        found.append((rope(q), rope(k)) if turned else (q, k))
        values = np.repeat(heads(x, i, "v"), args.num_attention_heads // args.num_key_value_heads, axis=0)
        keys = np.repeat(rope(k), args.num_attention_heads // args.num_key_value_heads, axis=0)
        logits = rope(q) @ keys.swapaxes(1, 2) * args.head_dim**-0.5
        mixed = softmax(np.where(np.tri(size, dtype=bool), logits, -np.inf)) @ values
        hidden = (
            hidden + mixed.transpose(1, 0, 2).reshape(size, -1) @ weights[f"model.layers.{i}.self_attn.o_proj.weight"].T
        )
        x = norm(hidden, f"{i}.post_attention_layernorm")
        gate, up = (x @ weights[f"model.layers.{i}.mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        hidden = hidden + (gate / (1 + np.exp(-gate)) * up) @ weights[f"model.layers.{i}.mlp.down_proj.weight"].T
    return found


@pytest.mark.parametrize("before_rope", [True, False])
def test_scores_equal_plain_numpy(before_rope):
    target, ids = small_target(), prompt(150)
    found = plain_qwen3(target, ids, turned=not before_rope)
    for layers in (1, 2, 3):
        for rows in (1, 8):
            scorer = TailAttentionScorer(
                target, layers=layers, scoring=layers, rows=rows, before_rope=before_rope, step=128
            )
            wanted = tail_scores(found[:layers], rows, target.args.head_dim**-0.5)
            np.testing.assert_allclose(scorer(ids), wanted, atol=1e-5)
    last = TailAttentionScorer(target, layers=3, scoring=1, before_rope=before_rope, step=128)
    np.testing.assert_allclose(last(ids), tail_scores(found[2:], 8, target.args.head_dim**-0.5), atol=1e-5)


class SeenRope(nn.Module):
    def __init__(self, rope):
        super().__init__()
        self.rope, self._seen = rope, []

    def __call__(self, x, offset=0):
        self._seen.append(x)
        return self.rope(x, offset=offset)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in LATENT])
def test_every_family_scores_by_its_layers_of_full_attention(name):
    """Against the same model run as a whole, in one part, by its own code."""
    target, ids = tiny_target(name), prompt(140)
    scorer = TailAttentionScorer(target, layers=4, scoring=4, step=128)
    assert scorer.scoring == SCORING.get(name, [0, 1, 2, 3])
    scores = scorer(ids)
    ropes = {}
    for i in scorer.scoring:
        attention = target.layers[i].self_attn
        attention.rope = ropes[i] = SeenRope(attention.rope)
    target.forward(mx.array(ids)[None], target.make_cache())
    layers = []
    for i in scorer.scoring:
        few, many = sorted((np.array(x[0]) for x in ropes[i]._seen), key=len)  # queries have as many heads or more
        if len(few) == len(many):
            many, few = (np.array(x[0]) for x in ropes[i]._seen)
        layers.append((many, few))
    scale = target.layers[scorer.scoring[0]].self_attn
    scale = getattr(scale, "scale", getattr(scale, "sm_scale", None))
    np.testing.assert_allclose(scores, tail_scores(layers, 8, scale), atol=1e-5)


@pytest.mark.parametrize("name", LATENT)
def test_latent_attention_is_refused_by_name(name):
    with pytest.raises(UnsupportedModelError, match=r"MLA.*lexical"):
        TailAttentionScorer(tiny_target(name))


def test_models_that_cannot_score_are_refused_with_a_way_out():
    args = {"model_type": "mamba", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "state_size": 4}
    args |= {"num_hidden_layers": 1, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 2}
    with pytest.raises(UnsupportedModelError, match=r"mamba.*lexical"):
        TailAttentionScorer(mamba.Model(mamba.ModelArgs(**args)))
    with pytest.raises(UnsupportedModelError, match="the first is number 2"):
        TailAttentionScorer(tiny_target("qwen3_5"), layers=1)
    for options in ({"layers": 0}, {"layers": 9}, {"scoring": 0}, {"rows": 0}, {"step": 0}, {"step": 100}):
        with pytest.raises(OptionError):
            TailAttentionScorer(small_target(), **options)


@pytest.mark.parametrize("name", ["qwen3", "gemma4, shared keys", "qwen3_next"])
def test_the_size_of_the_parts_changes_nothing(name):
    target, ids = tiny_target(name), prompt(300)
    whole = TailAttentionScorer(target, layers=4, scoring=4, step=384)(ids)
    for rows in (261, 257, 256):  # also rows from two parts
        np.testing.assert_allclose(
            TailAttentionScorer(target, layers=4, scoring=4, step=128)(ids[:rows]),
            TailAttentionScorer(target, layers=4, scoring=4, step=384)(ids[:rows]),
            atol=1e-5,
        )
    np.testing.assert_allclose(TailAttentionScorer(target, layers=4, scoring=4, step=128)(ids), whole, atol=1e-5)


def test_the_model_stays_as_it_is_and_is_not_copied():
    target, ids = tiny_target("qwen3"), mx.array(prompt(40))[None]
    target.taps = (0, 2)
    before, features = target.forward(ids, target.make_cache())
    classes = [type(module) for module in target.model.modules()]
    scorer = TailAttentionScorer(target, layers=3, scoring=3, step=128)
    scorer(prompt(200))
    assert [type(module) for module in target.model.modules()] == classes and not target.current.outputs
    after, same = target.forward(ids, target.make_cache())
    assert mx.array_equal(before, after) and mx.array_equal(features, same)
    own = {id(x) for _, x in tree_flatten(target.model.parameters())}
    assert {id(x) for _, x in tree_flatten(scorer._inner.parameters())} <= own


def test_later_layers_are_never_computed():
    target, ids = small_target(), prompt(150)
    clean = TailAttentionScorer(target, layers=2, step=128)(ids)
    broken = small_target()
    for module in (broken.layers[1].self_attn.o_proj, broken.layers[1].mlp.up_proj, broken.layers[2].mlp.up_proj):
        module.weight = module.weight * mx.nan  # of the last scoring layer, only queries and keys count
    np.testing.assert_array_equal(TailAttentionScorer(broken, layers=2, step=128)(ids), clean)


def test_the_text_that_asks_may_end_before_the_prompt():
    scorer, ids = TailAttentionScorer(small_target(), step=128), prompt(200)
    for part in (scorer, LexicalScorer()):
        ended = part(ids, tail_end=190)
        assert ended.shape == (200,) and ended.dtype == np.float32
        for wrong in (0, 201):
            with pytest.raises(PromptError, match="asking text"):
                part(ids, tail_end=wrong)
    np.testing.assert_array_equal(scorer(ids, tail_end=190), np.pad(scorer(ids[:190]), (0, 10)))


def test_a_templates_closing_tokens_do_not_ask():
    tokenizer = mlx_ddtree.load(draft=False).tokenizer
    closing = closing_tokens(tokenizer)
    assert tokenizer.decode(list(closing)) == "<|im_end|>\n<|im_start|>assistant\n"
    target, text = small_target(vocab=tokenizer.vocab_size), prompt(150)
    ids = [*text, *closing]
    for kind in (TailAttentionScorer, partial(LexicalScorer)):
        model = [target] if kind is TailAttentionScorer else []
        told, untold = kind(*model, closing=closing), kind(*model)
        np.testing.assert_array_equal(told(ids), untold(ids, tail_end=150))
        np.testing.assert_array_equal(told(text), untold(text))
        assert np.abs(told(ids) - untold(ids)).max() > 0
    tiny = make_tokenizer()
    words = tiny.apply_chat_template([{"role": "user", "content": "say hello"}], add_generation_prompt=True)
    assert tiny.decode(words[: -len(closing_tokens(tiny))]).endswith("say hello")


def test_short_prompts_and_progress():
    scorer, calls = TailAttentionScorer(small_target(), step=128), []
    assert scorer([5]).tolist() == [1.0] and scorer(prompt(3)).shape == (3,)
    scorer(prompt(300), lambda done, total: calls.append((done, total)))
    assert calls == [(0, 300), (128, 300), (256, 300), (300, 300)]


def test_long_prompts_are_read_with_sparse_attention():
    target, ids = small_target(), prompt(1400)
    dense = TailAttentionScorer(target, layers=3, scoring=3, step=512)
    scores, exact = dense(ids), BlockSparseAttention(alpha=0)
    assert dense.sparse.kept == 0  # never called
    same = TailAttentionScorer(target, layers=3, scoring=3, step=512, sparse=exact, sparse_from=1400)
    np.testing.assert_allclose(same(ids), scores, atol=1e-5)
    assert (
        exact.kept_fraction == 1 and exact.kept == 2 * 2 * 11 * 12 // 2
    )  # two layers of two heads; the last needs none
    one = TailAttentionScorer(target, layers=3, scoring=1, step=512, sparse=exact, sparse_from=1400)
    one(ids)
    assert exact.kept == 2 * 2 * 11 * 12 // 2  # layers that do not score read sparsely too
    few = TailAttentionScorer(
        target, layers=3, scoring=3, step=512, sparse=BlockSparseAttention(alpha=1, window=1), sparse_from=1
    )
    assert np.isfinite(few(ids)).all() and few.sparse.kept_fraction < 0.8
    first = few.sparse.kept
    few(ids)
    assert few.sparse.kept == first  # each prompt is counted by itself


def test_words_score_where_the_prompts_end_stands_elsewhere():
    ids = np.random.default_rng(1).integers(100, 5000, 3000)
    ids[1200:1206] = ids[-10:-4]
    scores = LexicalScorer()(ids)
    middle = scores[:2900]
    assert 1190 <= middle.argmax() <= 1215 and middle.max() > 2 * np.delete(middle, np.arange(1150, 1250)).max()
    with pytest.raises(OptionError):
        LexicalScorer(window=0)


def test_a_word_that_is_everywhere_says_nothing():
    ids = np.random.default_rng(2).integers(100, 5000, 3000)
    ids[::10] = 7
    assert LexicalScorer(query=1)(np.append(ids, 7)).max() < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_target_finds_needles_in_its_own_prompts(kind):
    pair = mlx_ddtree.load(draft=False)
    scorer, found = TailAttentionScorer(pair.target, closing=closing_tokens(pair.tokenizer)), 0
    for depth in (0.3, 0.5, 0.7):
        case = needle_case(kind, 2500, depth, 11)
        ids = pair.tokenizer.apply_chat_template([{"role": "user", "content": case.prompt}], add_generation_prompt=True)
        text, spans = token_spans(fast_tokenizer(pair.tokenizer), ids)
        first = text.index(case.fact.answer)
        needle = np.flatnonzero((spans[:, 0] < first + len(case.fact.answer)) & (spans[:, 1] > first))
        found += set(needle) <= set(select(scorer(ids), ids, 0.2, anchors=False).positions)
    assert found == 3
