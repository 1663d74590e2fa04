"""How well a KV cache that is read in part keeps a model's answers.

Usage: python studies/pages/icecache_agreement.py tokens [--model FOLDER] [--tokens FILE.npy] [--context 768] [--steps 192] \\
           --setting '{"budget": 64}' --setting '{"budget": 256, "formation": "dci"}'
       python studies/pages/icecache_agreement.py trees [--tokens FILE.npy] --setting '{"budget": 128}'
       python studies/pages/icecache_agreement.py needles --model FOLDER --count 20 --setting '{"budget": 64}'

tokens: the share of tokens whose most probable next token is that of the full cache, the text's own tokens being fed
one at a time (teacher forcing), and how much less probable the text becomes.  trees: how far answers with a draft
tree agree with plain decoding under the same budget, by whose queries choose the pages.  needles: questions about a
fact in real text, to a target that can answer them.
"""

import argparse
import json
import random
from dataclasses import replace
from itertools import takewhile

import numpy as np

from mlx_ddtree import load, stream_generate
from mlx_ddtree.benchmarking.needles import haystack, needle_case
from mlx_ddtree.decoding.context import PromptCache
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.sampler import Sampler
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.icecache.options import IceCacheOptions
from mlx_ddtree.icecache.paging import Paging

import mlx.core as mx  # isort: skip  (after the BLAS is chosen)
from mlx_lm.models.cache import KVCache  # isort: skip

PLAN = RoundPlan("ar", 1, 0, Sampler())


def texts(args, tokenizer, length, count):
    """`count` pieces of `length` tokens: of a file of held-out tokens, or of real prose and code."""
    if args.tokens:
        tokens = np.load(args.tokens).astype(np.int64)
        if tokens.ndim == 2:  # rows of their own
            return [row[-length:].tolist() for row in tokens[np.linspace(0, len(tokens) - 1, count).astype(int)]]
        starts = np.linspace(0, len(tokens) - length, count).astype(int)
        return [tokens[s : s + length].tolist() for s in starts]
    kinds = ["prose", "code"] * count
    pieces = ["".join(haystack(kind, 8 * length, random.Random(i))) for i, kind in enumerate(kinds[:count])]
    return [list(tokenizer.encode(piece))[:length] for piece in pieces]


def forked(caches):
    """The same content, to be continued separately."""
    copies = []
    for cache in caches:
        copies.append(KVCache())
        copies[-1].state = cache.state
    return copies


def teacher_forced(pair, caches, length, tokens, options):
    """(len(tokens),) most probable next tokens, and log-probabilities (len(tokens) - 1,) of the text's own."""
    forks = forked(caches)
    state = DecodeState(pair, PromptCache(forks, len(forks)), tokens[0])
    paging = None
    if options is not None:
        paging = Paging(pair.target, options, state.caches.target)
        paging.begin(state, PLAN)
    best, likely = [], []
    for token, following in zip(tokens, [*tokens[1:], 0], strict=True):
        hidden, _ = pair.target.forward(mx.array([[token]]), state.caches.target)
        logits = pair.target.unembed(hidden[0, 0])
        log_prob = logits[following] - mx.logsumexp(logits)
        best.append(mx.argmax(logits))
        likely.append(log_prob)
        mx.async_eval(best[-1], likely[-1])
    reads = paging.reader.reads.as_dict() if paging else {}
    return np.array(mx.stack(best)), np.array(mx.stack(likely))[:-1], reads


def agree(args):
    pair = load(args.model, draft=False) if args.model else load(draft=False)
    settings = [IceCacheOptions(**json.loads(text)) for text in args.setting]
    seen = {i: [] for i in range(-1, len(settings))}
    for text in texts(args, pair.tokenizer, args.context + args.steps, args.count):
        caches = pair.target.make_cache()
        for start in range(0, args.context, 512):
            pair.target.forward(mx.array([text[start : min(start + 512, args.context)]]), caches)
            mx.eval([cache.state for cache in caches])
        for i, results in seen.items():
            options = settings[i] if i >= 0 else None
            results.append(teacher_forced(pair, caches, args.context, text[args.context :], options))
    full_best = np.concatenate([best for best, _, _ in seen[-1]])
    full = -np.concatenate([likely for _, likely, _ in seen[-1]]).mean()
    print(f"{len(full_best)} tokens after {args.context}; full cache {full:.4f} nats a token")
    for i, options in enumerate(settings):
        best = np.concatenate([best for best, _, _ in seen[i]])
        nats = -np.concatenate([likely for _, likely, _ in seen[i]]).mean()
        read = seen[i][0][2]["read_tokens"]
        changes = {k: v for k, v in vars(options).items() if v != getattr(IceCacheOptions(options.budget), k)}
        print(
            f"{options.budget:5d}  same {(best == full_best).mean():7.2%}  +{nats - full:.4f} nats  read {read:.0f}  {changes}"
        )


def trees(args):
    pair = load(args.model) if args.model else load()
    for text in args.setting:
        options = IceCacheOptions(**json.loads(text))
        prompts, plain = texts(args, pair.tokenizer, args.context, args.count), []
        rows = {"full cache": None, **{select: replace(options, select=select) for select in ("root", "union", "node")}}
        for prompt in prompts:
            plain.append(answer(pair, prompt, args.steps, method="ar", kv_budget=options)[0])
        for name, kv_budget in rows.items():
            results = [answer(pair, p, args.steps, tree_budget=args.tree_budget, kv_budget=kv_budget) for p in prompts]
            same = [
                sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(got, want, strict=False)))
                for (got, _), want in zip(results, plain, strict=True)
            ]
            whole = sum(got == want for (got, _), want in zip(results, plain, strict=True))
            tau = np.mean([length for _, length in results])
            print(
                f"{options.budget:4d} {name:10s}  equal answers {whole}/{len(plain)}  equal until token {np.mean(same):.1f}  acceptance length {tau:.2f}",
                flush=True,
            )


def needles(args):
    """Right answers to questions about one fact in real text, by plain decoding."""
    pair = load(args.model, draft=False) if args.model else load(draft=False)
    kinds, depths = ("prose", "code"), (0.1, 0.3, 0.5, 0.7, 0.9)
    right = {text: [] for text in ["null", *args.setting]}
    for case in range(args.count):
        found = needle_case(kinds[case % 2], 3 * args.context, depths[case % 5], 1000 + case)
        prompt = pair.tokenizer.encode(f"<|im_start|>user\n{found.prompt}<|im_end|>\n<|im_start|>assistant\n")
        for text, answers in right.items():
            options = json.loads(text)
            kv_budget = IceCacheOptions(**options) if options else None
            said, _ = answer(pair, prompt, 40, method="ar", kv_budget=kv_budget)
            answers.append(found.fact.value in pair.tokenizer.decode(said))
    for text, answers in right.items():
        both = [a for a, full in zip(answers, right["null"], strict=True) if full]
        print(f"{sum(answers)}/{len(answers)} right, {sum(both)}/{len(both)} where the full cache is  {text}")


def answer(pair, prompt, count, **how):
    responses = list(stream_generate(pair, prompt, count, **how))
    return [t for r in responses for t in r.tokens], responses[-1].mean_acceptance_length


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tokens", "trees", "needles"))
    parser.add_argument("--model", help="folder of a target (default: the embedded pair)")
    parser.add_argument("--tokens", help=".npy of token ids, one text or rows (default: real prose and code)")
    parser.add_argument("--context", type=int, default=768)
    parser.add_argument("--steps", type=int, default=192)
    parser.add_argument("--count", type=int, default=4, help="texts")
    parser.add_argument("--tree-budget", type=int, default=16)
    parser.add_argument("--setting", action="append", default=[], help='IceCacheOptions as JSON: {"budget": 64}')
    args = parser.parse_args()
    {"tokens": agree, "trees": trees, "needles": needles}[args.what](args)


if __name__ == "__main__":
    main()
