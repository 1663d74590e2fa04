"""Where a round's time goes: the two models' forwards, and everything else.

Usage: python studies/budget/profile_rounds.py [--count 12] [--max-tokens 128] [--tree-budget auto]

Wraps the forwards of this pair's own target and drafter (and the LM head and embedding) so that each is
evaluated and timed at once, and subtracts them from the rounds' wall time.  What remains is the host's: top-k,
calibration, tree, choice of tokens, walk, commit, text, statistics.
"""

import argparse
import json
from time import perf_counter

from mlx_ddtree import load, stream_generate
from mlx_ddtree.generation.options import tree_budget
from mlx_ddtree.hub.fetch import DEMO
from mlx_ddtree.programs.cli import columns

import mlx.core as mx  # isort: skip


class Forwards:
    """Seconds inside the models, by name."""

    def __init__(self, pair):
        self.seconds = {}
        target, drafter = pair.target, pair.drafter
        for name in ("forward_rows", "forward", "unembed", "embed"):
            self.seconds[f"target {name}"] = 0.0
            setattr(target, name, self.timed(f"target {name}", getattr(target, name)))
        self.seconds["drafter forward"] = 0.0
        pair.drafter = _Proxy(drafter, self.timed("drafter forward", drafter))

    def timed(self, name, function):
        def call(*args, **options):
            start = perf_counter()
            result = function(*args, **options)
            parts = result if isinstance(result, tuple) else (result,)
            mx.eval([part for part in parts if isinstance(part, mx.array)])
            self.seconds[name] += perf_counter() - start
            return result

        return call


class _Proxy:
    """A drafter whose call is timed."""

    def __init__(self, drafter, call):
        self._drafter, self._call = drafter, call

    def __getattr__(self, name):
        return getattr(self._drafter, name)

    def __call__(self, *args):
        return self._call(*args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--draft-model")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--tree-budget", type=tree_budget, default="auto")
    args = parser.parse_args()
    pair = load(args.model, args.draft_model)
    rows = (DEMO / "heldout_prompts.jsonl").read_text(encoding="utf-8").splitlines()[: args.count]
    prompts = [[{"role": "user", "content": json.loads(row)["prompt"]}] for row in rows]
    options = {"tree_budget": args.tree_budget}
    list(stream_generate(pair, prompts[0], 32, **options))
    forwards, wall, rounds = Forwards(pair), 0.0, 0
    for prompt in prompts:
        stream = stream_generate(pair, prompt, args.max_tokens, **options)
        kept = dict(forwards.seconds)
        next(stream)  # the prompt's own time does not count
        forwards.seconds.update(kept)
        start = perf_counter()
        rounds += sum(1 for _ in stream)
        wall += perf_counter() - start
    report(forwards.seconds, wall, rounds)


def report(seconds, wall, rounds):
    rest = wall - sum(seconds.values())
    lines = [
        {"part": name, "ms a round": f"{spent / rounds * 1e3:.3f}", "share": f"{spent / wall:.1%}"}
        for name, spent in [*seconds.items(), ("everything else", rest)]
    ]
    print(f"{rounds} rounds, {wall / rounds * 1e3:.2f} ms each")
    print(columns(lines))


if __name__ == "__main__":
    main()
