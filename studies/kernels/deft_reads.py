"""What DeFT's plans read, how long attention over them takes on this machine, and several answers against one at a time.

Usage: python studies/kernels/deft_reads.py [reads] [time] [answers] [--model FOLDER] [--length 4096] [--n 8]

reads    draft trees of the embedded drafter on held-out prompts: rows of keys and values by plan, against reading by
         query and by path; balance, elements of masks, partial outputs.
time     one layer's attention, random arrays: a plan against one masked mx.fast.scaled_dot_product_attention and
         against a call for each query.  Medians of interleaved runs.
answers  n continuations of one long prompt (real code, then a question) together and one after the other, the prompt's
         own time left out on both sides (those one after the other find it in a session's caches).
"""

import argparse
import json
import random
from itertools import chain
from statistics import mean, median
from time import perf_counter, process_time

from mlx_ddtree import Session, load, make_sampler, stream_branches, stream_generate
from mlx_ddtree.benchmarking.needles import haystack
from mlx_ddtree.deft.attention import PreparedPlan, deft_attention
from mlx_ddtree.deft.plans import PLANS, PrefixTree, make_plan
from mlx_ddtree.hub.names import DEMO
from mlx_ddtree.terminal import table_text

import mlx.core as mx  # isort: skip


def heldout(count):
    lines = (DEMO / "heldout_prompts.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    return [json.loads(line)["prompt"] for line in lines]


def trees_of(pair, budget, prompts=4, tokens=48):
    """Draft trees as they were verified."""
    for prompt in heldout(prompts):
        for response in stream_generate(pair, [{"role": "user", "content": prompt}], tokens, tree_budget=budget):
            if response.nodes == budget:
                yield response.round.tree


def reads(args):
    pair, lines = load(), []
    for budget in args.nodes:
        trees = list(trees_of(pair, budget))
        for context in args.contexts or (512, 8192):
            prefixes = [PrefixTree.behind(context, tree.parents) for tree in trees]
            for kind, cap in [*((kind, None) for kind in PLANS), ("flatten", 32)]:
                plans = [make_plan(tree, kind, cap=cap) for tree in prefixes]
                read = [plan.kv_rows for plan in plans]
                lines.append(
                    {
                        "nodes": budget,
                        "context": context,
                        "plan": kind + (f", cap {cap}" if cap else ""),
                        "rows read": f"{mean(read):.0f}",
                        "saved by query": share(read, [tree.rows_per_query for tree in prefixes]),
                        "saved by path": share(read, [tree.rows_per_path for tree in prefixes]),
                        "balance": f"{mean(plan.balance for plan in plans):.2f}",
                        "mask": f"{mean(plan.mask_elements for plan in plans):.0f}",
                        "dense mask": (budget + 1) * (context + budget + 1),
                        "partials": f"{mean(plan.partials for plan in plans):.0f}",
                    }
                )
    print(table_text(lines))


def share(read, without):
    return f"{1 - sum(read) / sum(without):.1%}"


def time_plans(args):
    lines, pair = [], load()
    for budget in args.nodes:
        tree = next(iter(trees_of(pair, budget, 1)))
        rows = budget + 1
        for context in args.contexts or (512, 2048, 8192):
            q, k, v = (
                mx.random.normal((1, h, n, 64)) for h, n in ((8, rows), (2, context + rows), (2, context + rows))
            )
            mask = mx.concatenate([mx.ones((rows, context), mx.bool_), mx.array(tree.ancestor_mask())], axis=1)
            mx.eval(q, k, v, mask)
            prefixes = PrefixTree.behind(context, tree.parents)
            sides = {"dense": lambda q=q, k=k, v=v, mask=mask: attention(q, k, v, mask)}
            for kind, block in (("node", 2048), ("node-chunk", 2048), ("flatten", 2048), ("flatten", 512)):
                plan = PreparedPlan(make_plan(prefixes, kind, block=block))
                name = f"{kind} {block}" if kind == "flatten" else kind
                if kind == "flatten" or budget <= 22:  # of the others every node is a group of operations
                    sides[name] = lambda q=q, k=k, v=v, plan=plan: deft_attention(q, k, v, plan, scale=0.125)
            if budget <= 22:
                sides["by query"] = lambda q=q, k=k, v=v, mask=mask: by_query(q, k, v, mask)
            seconds = timed(sides, 9 if context * budget < 500_000 else 5, args.clock)
            ratios = {name: f"{seconds[name] / seconds['dense']:.2f}" if name in seconds else "-" for name in NAMES}
            lines.append({"nodes": budget, "context": context, "dense ms": f"{seconds['dense'] * 1e3:.1f}", **ratios})
    print("times relative to dense masked attention")
    print(table_text(lines))


NAMES = ("flatten 2048", "flatten 512", "node-chunk", "node", "by query")


def attention(q, k, v, mask):
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=0.125, mask=mask)


def by_query(q, k, v, mask):
    return [attention(q[:, :, i : i + 1], k, v, mask[i : i + 1]) for i in range(q.shape[2])]


def timed(sides, repeats, clock):
    """Medians, in turns so that all sides meet the same machine."""
    times = {name: [] for name in sides}
    for repeat in range(-1, repeats):
        for name, run in sides.items():
            start = clock()
            mx.eval(run())
            if repeat >= 0:
                times[name].append(clock() - start)
    return {name: median(taken) for name, taken in times.items()}


def long_prompt(pair, length, question):
    """About `length` tokens of real code, then a question."""
    text = "".join(haystack("code", 5 * length, random.Random(0)))
    ids = pair.tokenizer.encode(text)[: length - 64]
    return [{"role": "user", "content": pair.tokenizer.decode(ids) + "\n" + question}]


SETTINGS = {"ar": {"method": "ar"}, "4": {"tree_budget": 4}, "auto": {"tree_budget": "auto"}}


def answers(args):
    pair = load(args.model, str(DEMO / "drafter") if args.model else None)
    prompt, lines = long_prompt(pair, args.length, heldout(1)[0]), []
    list(stream_generate(pair, heldout(1)[0], 8))  # measures the pair
    session = Session(pair)
    list(session.stream(prompt, 1))
    for how in (SETTINGS[name] for name in args.settings):
        options, together = {"max_tokens": args.tokens, **how}, [[] for _ in range(args.n)]
        stream = stream_branches(pair, prompt, args.n, sampler=make_sampler(0.8, seed=1), **options)
        last = next(stream)
        start = perf_counter(), process_time()
        for response in chain([last], stream):
            together, last = [have + new for have, new in zip(together, response.tokens, strict=True)], response
        wall, cpu = perf_counter() - start[0], process_time() - start[1]
        alone, rows, start = [], 0, (perf_counter(), process_time())
        for i in range(args.n):
            tokens = []
            for response in session.stream(prompt, sampler=make_sampler(0.8, seed=1 + i), **options):
                if tokens:  # the first round is the prompt's
                    rows += last.prompt_tokens + len(tokens) - 1 + len(response.round.tree)
                tokens += response.tokens
            alone.append(tokens)
        wall_alone, cpu_alone = perf_counter() - start[0], process_time() - start[1]
        lines.append(
            {
                "setting": next(str(value) for value in how.values()),
                "prompt": last.prompt_tokens,
                "tokens": last.generation_tokens,
                "same texts": f"{sum(a == b for a, b in zip(alone, together, strict=True))}/{args.n}",
                "rounds": last.rounds,
                "rows together": last.kv_rows,
                "alone": rows,
                "fewer": f"{rows / last.kv_rows:.1f}x",
                "s together": f"{wall:.1f}",
                "alone ": f"{wall_alone:.1f}",
                "faster": f"{wall_alone / wall:.2f}x",
                "by CPU time": f"{cpu_alone / cpu:.2f}x",
            }
        )
        print(lines[-1], flush=True)
    print(table_text(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["reads", "time", "answers", []])
    parser.add_argument("--model", help="a target of the embedded drafter's size")
    parser.add_argument("--nodes", type=int, nargs="+", default=[16, 22, 64, 256], help="reads, time")
    parser.add_argument("--contexts", type=int, nargs="+", help="reads, time (default: 512 to 8192)")
    parser.add_argument("--length", type=int, default=4096, help="answers: tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="answers: tokens of each")
    parser.add_argument("--n", type=int, default=8, help="answers")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--cpu", action="store_true", help="CPU time in place of wall time, for busy machines")
    args = parser.parse_args()
    args.clock = process_time if args.cpu else perf_counter
    for part in args.parts or ["reads", "time", "answers"]:
        {"reads": reads, "time": time_plans, "answers": answers}[part](args)


if __name__ == "__main__":
    main()
