"""What a KV cache that is read in part saves.

Usage: python studies/pages/icecache_times.py attention [--contexts 2048,8192]
       python studies/pages/icecache_times.py rounds [--contexts 2048,8192,32768,65536] [--offload DIR]

attention: processor time of one layer's attention, choice of pages included, on random keys.  rounds: processor time
of whole verifications of the embedded target, and memory.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mlx_ddtree import load
from mlx_ddtree.decoding.context import PromptCache
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.sampler import Sampler
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.icecache.cache import IceLayer, IceView
from mlx_ddtree.icecache.options import IceCacheOptions
from mlx_ddtree.icecache.paging import Paging
from mlx_ddtree.icecache.reads import Reader, Reads
from mlx_ddtree.icecache.select import PageSet
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tree import DraftTree

import mlx.core as mx  # isort: skip  (after the BLAS is chosen)
from mlx_lm.models.cache import KVCache  # isort: skip

PLAN = RoundPlan("ar", 1, 0, Sampler())


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
            full = partial(mx.fast.scaled_dot_product_attention, queries, *whole, scale=0.125, mask=mask)
            cells = [f"{context:7d} {nodes:5d} {median_ms(full, args.repeats):9.2f} |"]
            for select in ("root", "union", "node"):
                options = IceCacheOptions(args.budget, select=select, **json.loads(args.options))
                reader = Reader(options, active=True, reads=Reads(layers=1))
                layer = IceLayer(base, reader, PageSet(options), leads=True, first=True)
                view = IceView(layer, rows) if nodes > 1 else layer
                fetched = view.update_and_fetch(keys, keys)
                mx.eval(layer.state[:2], layer.pages.summaries)
                once = partial(view.attend, queries, *fetched, 0.125, None, None)
                cells.append(f"{median_ms(once, args.repeats):9.2f}")
                if select == "root":
                    reads = reader.reads.as_dict()
                    read = f"| {reads['read_tokens']:.0f} + {reads['ranked_rows']:.0f}"
            cells.append(read)
            print(" ".join(cells), flush=True)


def anonymous_mib():
    """Resident memory without files' pages, which the system may drop."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def verify_once(pair, state, nodes):
    """The target's forward over a tree, undone again."""
    before = pair.target.mark(state.caches.target)
    rows = TreeRows(bushy(nodes), state.length, nodes)
    hidden, _, _ = pair.target.forward_rows(mx.zeros((1, nodes), mx.int32), rows, state.caches.target)
    mx.eval(hidden)
    pair.target.rewind(state.caches.target, before)
    return hidden


def rounds(args):
    """Verifications of trees on random keys in the target's caches, a process for each line."""
    print("context  cache        1 row ms  16 rows ms  tokens read  caches MiB  anonymous MiB of the process")
    for context in args.contexts:
        for kind in ("full", "paged", "on disk")[: 3 if args.offload else 2]:
            subprocess.run([sys.executable, *sys.argv, "--line", json.dumps([context, kind])], check=True)


def line(args):
    context, kind = json.loads(args.line)
    pair = load(args.model, draft=False) if args.model else load(draft=False)
    caches = pair.target.make_cache()
    mx.random.seed(0)
    for cache in caches:
        cache.update_and_fetch(*(mx.random.normal((1, 2, context, 64)) for _ in range(2)))
        mx.eval(cache.state)
    state = DecodeState(pair, PromptCache(caches, len(caches)), 0)
    reads = None
    if kind != "full":
        options = IceCacheOptions(args.budget, **json.loads(args.options))
        options = replace(options, offload=args.offload if kind == "on disk" else None)
        _, reads = Paging(pair.target, options, caches).begin(state, PLAN)
    milliseconds = [median_ms(partial(verify_once, pair, state, n), args.repeats) for n in (1, 16)]
    held = sum(cache.nbytes for cache in state.caches.target) / 2**20
    read = context if reads is None else reads.as_dict()["read_tokens"]
    del cache
    mx.clear_cache()
    cells = f"{milliseconds[0]:9.1f}  {milliseconds[1]:10.1f}  {read:11.0f}  {held:10.1f}  {anonymous_mib():6.0f}"
    print(f"{context:7d}  {kind:10s}  {cells}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("attention", "rounds"))
    parser.add_argument("--model")
    parser.add_argument("--contexts", type=lambda text: [int(n) for n in text.split(",")], default=[2048, 8192, 32768])
    parser.add_argument("--budget", type=int, default=256)
    parser.add_argument("--options", default="{}", help="more of IceCacheOptions as JSON")
    parser.add_argument("--offload", help="folder")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--line", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.line:
        return line(args)
    {"attention": attention, "rounds": rounds}[args.what](args)


if __name__ == "__main__":
    main()
