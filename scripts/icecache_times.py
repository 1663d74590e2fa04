"""How well a KV cache that is read in part keeps a model's answers, and what it saves.

Usage: python icecache_times.py agree [--model FOLDER] [--tokens FILE.npy] [--context 1792] [--steps 256] ...
       python icecache_times.py attention [--contexts 2048,8192,...]
       python icecache_times.py rounds [--contexts 2048,8192,...] [--offload DIR]

agree: the share of tokens whose most probable next token is that of the full cache, the text's own tokens being fed
one at a time (teacher forcing), and the negative log-likelihood of the text.  attention: processor time of one layer's
attention, choice of pages included, on random keys.  rounds: processor time and memory of whole rounds.
"""

import argparse
import json
import random
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

import mlx_ddtree
from mlx_ddtree import load
from mlx_ddtree.benchmarking.needles import haystack
from mlx_ddtree.decoding.round import RoundPlan
from mlx_ddtree.decoding.sampling import Sampler
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.statistics import RoundStatistics
from mlx_ddtree.longcontext.icecache.cache import IceLayer, IceView, Reader, Reads
from mlx_ddtree.longcontext.icecache.options import IceCacheOptions
from mlx_ddtree.longcontext.icecache.paging import Paging
from mlx_ddtree.longcontext.icecache.select import PageSet
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tree import DraftTree

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
    state, paging = DecodeState(pair, forked(caches), [], length, tokens[0]), None
    if options is not None:
        paging = Paging(pair.target, options, state.target_cache)
        paging.begin(state, PLAN, None, RoundStatistics())
    best, likely = [], []
    for token, following in zip(tokens, [*tokens[1:], 0], strict=True):
        hidden, _ = pair.target.forward(mx.array([[token]]), state.target_cache)
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


def bushy(rows):
    parents = ((np.arange(rows) - 1) // 2).astype(np.int32)
    depths = np.zeros(rows, np.int32)
    for node in range(1, rows):
        depths[node] = depths[parents[node]] + 1
    return DraftTree(np.zeros(rows, np.int32), parents, depths, np.zeros(rows, np.float32))


def median_ms(once, repeats):
    """Processor time, which other programs on the machine touch less than the clock's."""
    times = []
    for _ in range(repeats + 2):
        start = time.process_time()
        mx.eval(once())
        times.append(time.process_time() - start)
    return statistics.median(times[2:]) * 1e3


def attention(args):
    """One layer of 8 query heads and 2 KV heads of 64."""
    print("context nodes   full ms | root ms   union ms  node ms | rows read + ranked")
    for context in args.contexts:
        mx.random.seed(0)
        base = KVCache()
        base.update_and_fetch(*(mx.random.normal((1, 2, context, 64)) for _ in range(2)))
        for nodes in (1, 23):
            queries = mx.random.normal((1, 8, nodes, 64))
            keys = mx.random.normal((1, 2, nodes, 64))
            tree = bushy(nodes)
            rows = TreeRows(tree, context, nodes)
            mask = rows.mask(context) if nodes > 1 else None
            whole = [mx.concatenate([x[:, :, :context], keys], axis=2) for x in (base.keys, base.values)]
            mx.eval(queries, keys, mask, whole)
            full = lambda q=queries, w=whole, m=mask: mx.fast.scaled_dot_product_attention(q, *w, scale=0.125, mask=m)  # noqa: E731
            line = [f"{context:7d} {nodes:5d} {median_ms(full, args.repeats):9.2f} |"]
            for select in ("root", "union", "node"):
                options = IceCacheOptions(args.budget, select=select, **json.loads(args.options))
                reader = Reader(options, active=True, reads=Reads(layers=1))
                layer = IceLayer(base, reader, PageSet(options), leads=True, first=True)
                view = IceView(layer, rows) if nodes > 1 else layer
                view.update_and_fetch(keys, keys)
                mx.eval(layer.state[:2], layer.pages.summaries)
                once = partial(view.attend, queries, 0.125, None)
                line.append(f"{median_ms(once, args.repeats):9.2f}")
                if select == "root":
                    reads = reader.reads.as_dict()
                    read = f"| {reads['read_tokens']:.0f} + {reads['ranked_rows']:.0f}"
            line.append(read)
            print(" ".join(line), flush=True)


def anonymous_mib():
    """Resident memory without files' pages, which the system may drop."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def verify_once(pair, state, nodes):
    """The target's forward over a tree, undone again."""
    before = pair.target.mark(state.target_cache)
    hidden, _, _ = pair.target.forward_tree(
        mx.zeros((1, nodes), mx.int32), bushy(nodes), state.length, state.target_cache
    )
    mx.eval(hidden)
    pair.target.rewind(state.target_cache, before)
    return hidden


def rounds(args):
    """Verifications of trees on random keys in the target's caches: what a round waits for."""
    pair = load(args.model, draft=False) if args.model else load(draft=False)
    pair.target.model.args.max_position_embeddings = 1 << 20
    print(
        "context nodes   full ms   paged ms | tokens read a layer | KV MiB full, paged in memory; anonymous MiB of the process"
    )
    for context in args.contexts:
        for budget in (None, args.budget):
            mx.random.seed(0)
            caches = pair.target.make_cache()
            for cache in caches:
                cache.update_and_fetch(*(mx.random.normal((1, 2, context, 64)) for _ in range(2)))
            mx.eval([cache.state for cache in caches])
            state = DecodeState(pair, caches, [], context, 0)
            how = "full"
            if budget is not None:
                options = replace(IceCacheOptions(budget, **json.loads(args.options)), offload=args.offload)
                paging = Paging(pair.target, options, caches)
                paging.begin(state, PLAN, None, RoundStatistics())
                how = "paged"
            cells = [
                f"{n} nodes {median_ms(partial(verify_once, pair, state, n), args.repeats):8.2f} ms" for n in (1, 16)
            ]
            held = sum(cache.nbytes for cache in state.target_cache) / 2**20
            read = paging.reader.reads.as_dict()["read_tokens"] if budget else context
            del cache, caches
            mx.clear_cache()
            print(
                f"{context:7d} {how:6s} {'  '.join(cells)}  reads {read:.0f}  caches {held:.1f} MiB  process {anonymous_mib():.0f} MiB",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("agree", "attention", "rounds"))
    parser.add_argument("--model")
    parser.add_argument("--tokens")
    parser.add_argument("--context", type=int, default=768)
    parser.add_argument("--steps", type=int, default=192)
    parser.add_argument("--count", type=int, default=4, help="texts")
    parser.add_argument("--setting", action="append", default=[], help='IceCacheOptions as JSON: {"budget": 64}')
    parser.add_argument("--contexts", type=lambda text: [int(n) for n in text.split(",")], default=[2048, 8192, 32768])
    parser.add_argument("--budget", type=int, default=256)
    parser.add_argument("--options", default="{}", help="more of IceCacheOptions as JSON")
    parser.add_argument("--offload", help="folder")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    {"agree": agree, "attention": attention, "rounds": rounds}[args.what](args)


if __name__ == "__main__":
    assert mlx_ddtree
    main()
