"""What a Markov head is worth on a frozen drafter, and what the approximations of its trees lose.

Usage: python studies/drafters/markov_head.py PROMPTS.jsonl [--kind vanilla] [--rank 64] [--train 60] [--test 20]
       [--max-tokens 96] [--steps 400]

The head learns on the target's greedy answers to the first prompts, with the drafter's logits as they are.  Drafts behind
every third place of the answers to the last prompts then count accepted tokens at temperature 0.

    no head     the drafter alone
    pool 16     candidates are the 16 best by the drafter's logits
    pool 64     candidates are chosen among the 64 best, as drafting does it
    whole       candidates, and the normaliser, are exact
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import mlx_ddtree  # noqa: F401  # isort: skip  (before MLX, for its BLAS)
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from mlx_ddtree import load, stream_generate
from mlx_ddtree.drafter.config import MarkovConfig
from mlx_ddtree.drafter.path_heads import MARKOV_HEADS
from mlx_ddtree.drafter.paths import candidates_of, start_paths
from mlx_ddtree.kernels.pairwise import finish_pairwise
from mlx_ddtree.kernels.topk import top_k_log_probs
from mlx_ddtree.tree import build_tree
from mlx_ddtree.tree.lattice import Candidates

NODES = (4, 8, 16, 32)
POOLS = {"pool 16": 16, "pool 64": 64, "whole": 1 << 30}
ROWS = 512


def answers(pair, rows, max_tokens):
    """[(prompt's tokens, all tokens), ...]"""
    texts = []
    for row in rows:
        chat = [{"role": "user", "content": row["prompt"]}]
        prompt = list(pair.tokenizer.apply_chat_template(chat, add_generation_prompt=True))
        texts.append(
            (prompt, prompt + [t for r in stream_generate(pair, prompt, max_tokens, parity="off") for t in r.tokens])
        )
    return texts


def features_of(pair, tokens):
    _, features = pair.target.forward(mx.array([tokens]), pair.target.make_cache())
    mx.eval(features)
    return features


def drafts(pair, tokens, places, features):
    """Hidden states (L, D) of the block at each of the ascending places."""
    drafter, cache, seen = pair.drafter, pair.drafter.make_cache(), 0
    for place in places:
        block = mx.array([drafter.block_ids(tokens[place], drafter.config.block_size)])
        hidden = drafter(drafter.embed(block, pair.target.embed), features[:, seen:place], cache)[0]
        seen = place
        yield place, hidden[drafter.config.logits_start :]


def examples(pair, texts):
    """Blocks at every third place: hidden (N, L, D), tokens before (N, L), labels (N, L), -1 past the end."""
    length = pair.drafter.config.block_size - 1
    rows = []
    for prompt, tokens in texts:
        padded = [*tokens, *[-1] * length]
        places = range(len(prompt), len(tokens) - 2, 3)
        for place, hidden in drafts(pair, tokens, places, features_of(pair, tokens)):
            mx.eval(hidden)
            rows.append((np.array(hidden), padded[place : place + length], padded[place + 1 : place + 1 + length]))
    return [np.array(part) for part in zip(*rows, strict=True)]


def train(pair, head, data, steps):
    """Cross-entropy of the corrected logits; blocks in random order."""
    hidden, before, labels = data
    blocks = max(1, ROWS // hidden.shape[1])
    rng, optimizer = np.random.default_rng(0), optim.AdamW(optim.cosine_decay(3e-3, steps))

    def loss(head, h, previous, label):
        logits, state, total = pair.drafter.logits(h, pair.target.head), mx.zeros((len(h), head.state_size)), 0.0
        for depth in range(h.shape[1]):
            state, features = head.from_embedding(state, head.markov_w1(previous[:, depth]), h[:, depth])
            corrected = logits[:, depth] + head.bias(features)
            right = label[:, depth] >= 0
            losses = nn.losses.cross_entropy(corrected, mx.maximum(label[:, depth], 0))
            total = total + (losses * right).sum() * 0.85**depth
        return total / len(h)

    step = nn.value_and_grad(head, loss)
    for i in range(steps):
        some = rng.choice(len(hidden), blocks)
        value, gradients = step(
            head, mx.array(hidden[some]), mx.array(np.maximum(before[some], 0)), mx.array(labels[some])
        )
        optimizer.update(head, gradients)
        mx.eval(head.parameters(), optimizer.state)
        if i % 100 == 0:
            print(f"step {i}: loss {value.item():.3f}", flush=True)


def candidates(pair, head, pool, root, hidden):
    logits = pair.drafter.logits(hidden, pair.target.head)
    if head is None:
        return Candidates(*top_k_log_probs(logits, 16))
    started = start_paths(head, logits, mx.array(root), hidden, pair.target.embed, None, pool)
    return Candidates(*finish_pairwise(started, candidates_of(head, logits)))


def accepted(pair, head, pool, blocks):
    """{'chain' or nodes: mean accepted tokens} of drafts behind the same places of the answers, at temperature 0."""
    counts = {size: [] for size in ("chain", *NODES)}
    for root, hidden, truth in blocks:
        drafted = candidates(pair, head, pool, root, mx.array(hidden))
        path = drafted.greedy().token_ids[:, 0]
        counts["chain"].append(int(np.cumprod(path == truth).sum()))
        for nodes in NODES:
            counts[nodes].append(follow(build_tree(root, *drafted, nodes), truth.tolist()))
    return {size: float(np.mean(found)) for size, found in counts.items()}


def follow(tree, truth):
    """Nodes from the root along the answer."""
    node = depth = 0
    for token in truth:
        children = np.flatnonzero((tree.parents == node) & (tree.token_ids == token))
        children = children[children > node]
        if not children.size:
            break
        node, depth = int(children[0]), depth + 1
    return depth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--kind", choices=MARKOV_HEADS, default="vanilla")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--test", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    pair = load()
    rows = [json.loads(line) for line in args.prompts.read_text(encoding="utf-8").splitlines()]
    mx.random.seed(0)
    shape = MarkovConfig(args.kind, args.rank)
    head = MARKOV_HEADS[args.kind](replace(pair.drafter.config, markov=shape), shape)
    head.markov_w2.weight = mx.zeros_like(head.markov_w2.weight)  # no correction before it is learned
    data = examples(pair, answers(pair, rows[: args.train], args.max_tokens))
    print(f"{len(data[0])} blocks of {data[0].shape[1]} drafts")
    train(pair, head, data, args.steps)
    hidden, before, labels = examples(pair, answers(pair, rows[-args.test :], args.max_tokens))
    blocks = [(int(b[0]), h, truth) for h, b, truth in zip(hidden, before, labels, strict=True)]
    print("| candidates | chain | " + " | ".join(f"{n} nodes" for n in NODES) + " |")
    for name, pool in {"no head": 0, **POOLS}.items():
        found = accepted(pair, None if name == "no head" else head, pool, blocks)
        print(f"| {name} | " + " | ".join(f"{mean:.2f}" for mean in found.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
