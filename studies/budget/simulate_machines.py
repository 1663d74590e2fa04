"""Which budgets 'auto' picks on other machines: recorded drafts through the cost staircases of M1 to M5.

Usage: python studies/budget/simulate_machines.py RECORD.npz [--json OUT.json] [--cost PROFILE.json] [--wander SEED]

RECORD.npz comes from record_drafts.py.  At temperature 0 the target's answer is fixed, so a recorded draft
at every position is all that any policy can meet: the simulation is exact but for two things.  A block
shorter than the drafter's own is taken to be the start of the long one (it differs by about 2 %), and
seconds are the table's.  'auto' runs the package's own Planner, which sees nothing but those seconds.

The first table of a machine compares settings over all answers; the second one kinds of text, where the record has several:
the best block of one size, chosen for that very kind; auto, which meets all answers in a drawn order; and auto that has met
nothing but the answers of this kind, once before.  With --wander the
machine takes 1.15 to 1.7 times as long in two fifths of stretches of 0.4 s on average, 3 times in single rounds, and the
first thing of a text 1.4 times; speeds are counted without all that, so what is seen is what decisions have lost by it.
"""

import argparse
import json
from copy import deepcopy
from pathlib import Path

import numpy as np

from mlx_ddtree.budget import prior
from mlx_ddtree.budget.cost import ROWS, CostTable
from mlx_ddtree.budget.planner import Planner
from mlx_ddtree.budget.profile import Profile
from mlx_ddtree.budget.proposal import Outcome
from mlx_ddtree.terminal import table_text
from mlx_ddtree.tree import accept, build_tree
from mlx_ddtree.tree.lattice import Candidates

# Seconds of one verification in units of plain decoding's step, by rows: straight lines between the
# points, jumps where two points share a place.  4-bit: quantised_matmul's own timings (docs/auto_budget.md
# names the sources), taken for 90 % of a step, the rest grows by 1 % a row; 16-bit: flat after the second row.
APPLE = [kind for kind in prior.SHAPES if not kind.startswith("a processor")]
STAIRCASES = {kind: prior.SHAPES[kind] for kind in APPLE} | {
    "MoE 4-bit, M1 Max": [(1, 1.0), (2, 1.26), (4, 1.9), (9, 3.4), (17, 5.9), (128, 20.0)],
}
BLOCKS = (2, 3, 4, 5, 6, 8, 10, 12, 16)
UNREAD = 0.9
"""Share of a draft's and a verification's seconds that an unread chain takes: assumed, 0.75 to 0.9 on processors."""
LONG = 32
"""Tokens of a text whose own speed is looked at."""


def staircase(points, block_size):
    rows, units = zip(*points, strict=True)
    verify = [float(np.interp(n, rows, units)) for n in ROWS]
    draft = {b: prior.DRAFT_SHARE * (0.85 + 0.15 * b / block_size) for b in BLOCKS if b <= block_size}
    return CostTable(list(ROWS), [0], [verify], [verify], [1.0], draft, 0.02, unread=UNREAD)


def load_record(path):
    """[(kind, prompt, answer, token_ids (n, L, K), log_probs)]"""
    data = np.load(path)
    count = max(int(key[6:]) for key in data if key.startswith("prompt")) + 1
    names = ("kind", "prompt", "answer", "tokens", "scores")
    return [tuple(data[f"{name}{i}"] for name in names) for i in range(count) if f"prompt{i}" in data]


class Wandering:
    """A machine that others use as well: from the seconds that something should take to what it takes over that."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.level, self.now, self.until = 1.0, 0.0, 0.0

    def __call__(self, seconds):
        if self.now >= self.until:
            self.level = self.random.uniform(1.15, 1.7) if self.random.random() < 0.4 else 1.0
            self.until = self.now + self.random.exponential(0.4)
        factor = self.level * self.random.lognormal(0, 0.08)
        if self.random.random() < 0.02:
            factor *= self.random.uniform(1.5, 3)
        self.now += seconds * factor
        return factor


def steady(seconds):
    """A machine that nobody else uses."""
    return 1.0


class Machine:
    """Plays rounds over one recorded answer and adds up the table's seconds.

    pace: what things take over the table's seconds, which `seconds` leaves out.
    """

    def __init__(self, cost, row, pace=steady):
        self.cost, (_, self.prompt, self.answer, self.tokens, self.scores) = cost, row
        self.place, self.seconds, self.rounds, self.sizes, self.pace = 0, 0.0, 0, {}, pace

    def take(self, seconds):
        """What something takes that the table says takes so many seconds."""
        first = 1.0 if self.seconds or self.pace is steady else 1.4
        self.seconds += seconds
        return seconds * self.pace(seconds) * first

    @property
    def context(self):
        return len(self.prompt) + self.place

    @property
    def going(self):
        return self.place < len(self.tokens)

    def candidates(self, block_size, top_k=None):
        part = self.place, slice(block_size - 1)
        found = Candidates(self.tokens[part], self.scores[part].astype(np.float32))
        if found.pairwise:
            return found.greedy() if top_k == 1 else found
        return Candidates(found.token_ids[:, :top_k], found.log_probs[:, :top_k])

    def plain(self):
        self.place += 1
        self.rounds += 1
        self.sizes[0] = self.sizes.get(0, 0) + 1
        return self.take(self.cost.step(self.context))

    def verify(self, tree, draft_seconds, unread=False):
        """The Outcome of a round; the answer goes on.

        draft_seconds: that the draft took.  unread: whether the draft is verified unread; it took nothing by itself then.
        """
        follow = self.answer[self.place + 1 : self.place + 2 + int(tree.depths.max())].tolist()
        chosen = [follow[d] if d < len(follow) else -1 for d in tree.depths.tolist()]
        path = accept(tree, chosen)
        rows = self.cost.verification(self.context, tree.is_chain)
        place = int(np.searchsorted(self.cost.rows, len(tree)))
        alone = float(rows[min(place, len(rows) - 1)])
        verify = self.take(self.cost.unread_chain(len(tree), self.context) if unread else alone)
        seconds = draft_seconds + verify + self.take(self.cost.round)
        outcome = Outcome([chosen[n] for n in path], self.context, seconds, verify, draft_seconds)
        self.place += len(path)
        self.rounds += 1
        self.sizes[len(tree) - 1] = self.sizes.get(len(tree) - 1, 0) + 1
        return outcome


def play_fixed(cost, row, block_size, budget):
    machine = Machine(cost, row)
    while machine.going:
        ids, scores = machine.candidates(block_size, 1 if budget is None else None)
        tree = build_tree(int(machine.answer[machine.place]), ids, scores, budget or block_size - 1)
        chain = budget is None
        machine.verify(tree, 0.0 if chain else machine.take(cost.drafting(block_size)), unread=chain)
    return machine


def play_convex(cost, row, block_size):
    """Grow the tree while the ratio of each round rises, and stop at its first fall."""
    machine = Machine(cost, row)
    while machine.going:
        ids, scores = machine.candidates(block_size)
        tree = build_tree(int(machine.answer[machine.place]), ids, scores, 127)
        seconds = np.interp(np.arange(1, len(tree) + 1), cost.rows, cost.verification(machine.context))
        theta = (1 + tree.expected_accepted()) / (seconds + cost.drafting(block_size) + cost.round)
        falls = np.flatnonzero(np.diff(theta) < 0)
        nodes = int(falls[0]) if len(falls) else len(tree) - 1
        machine.verify(tree.prefix(nodes), machine.take(cost.drafting(block_size)))
    return machine


def play_auto(cost, rows, profile, linear=False, pace=steady):
    """One machine per answer; the profile learns from one to the next, as on disk."""
    machines = []
    for row in rows:
        machine, planner = Machine(cost, row, pace), Planner(profile, greedy=True, linear=linear)
        text = [*row[1].tolist(), int(row[2][0])]
        while machine.going:
            play_round(machine, planner, text)
            text += row[2][len(text) - len(row[1]) : machine.place + 1].tolist()
        machines.append(machine)
    return machines


def play_round(machine, planner, text):
    """A round, or a run of plain decoding."""
    root, context = text[-1], machine.context
    copy = planner.copy_after(text)
    proposal = planner.without_draft(root, copy, context)
    drafting = 0.0
    if proposal is None:
        if pause := planner.pause(context):
            return play_plainly(machine, planner, text, pause)
        if block_size := planner.unread_block(context):
            best = machine.candidates(block_size, 1)
            proposal = planner.without_reading(build_tree(root, *best, block_size - 1), context)
        else:
            block_size = planner.next_block_size(context)
            drafting = machine.take(machine.cost.drafting(block_size))
            proposal = planner.with_draft(root, machine.candidates(block_size, planner.top_k), copy, context)
    planner.learn(proposal, machine.verify(proposal.tree, drafting, proposal.unread))


def play_plainly(machine, planner, text, pause):
    """Steps without a draft, of which the first two and the last are not timed, as in decoding/adaptive.py."""
    known = len(text)
    for done in range(pause):
        seconds = machine.plain()
        ended = not machine.going or done + 1 == pause
        if not ended:
            text.append(int(machine.answer[machine.place]))
            ended = planner.ends_plain_run(text, machine.context)
        if ended:
            break
        if done >= 2:
            planner.profile.cost.saw_step(machine.context, seconds)
    del text[known:]


def speedup(machines):
    return sum(m.place * m.cost.step(m.context) for m in machines) / sum(m.seconds for m in machines)


def summary(name, machines):
    tokens = sum(m.place for m in machines)
    sizes = {}
    for machine in machines:
        for size, count in machine.sizes.items():
            sizes[size] = sizes.get(size, 0) + count
    usual = sorted(sizes, key=sizes.get, reverse=True)[:4]
    rounds = sum(m.rounds for m in machines)
    return {
        "setting": name,
        "tau": round(tokens / rounds, 3),
        "speedup": round(speedup(machines), 3),
        "usual nodes": ", ".join(f"{size} ({sizes[size] / rounds:.0%})" for size in usual),
    }


def compare(cost, record):
    block_size = record[0][3].shape[1] + 1
    lines = [
        summary(f"block {b}", [play_fixed(cost, r, b, None) for r in record]) for b in BLOCKS[2:] if b <= block_size
    ]
    for budget in (4, 8, 16, 31, 32, 64):
        lines.append(summary(f"tree {budget}", [play_fixed(cost, r, block_size, budget) for r in record]))
    lines.append(summary("greedy convex stop", [play_convex(cost, r, block_size) for r in record]))
    for name, linear in (("auto, linear", True), ("auto", False)):
        profile = Profile(deepcopy(cost), 0.0, block_size)
        lines.append(summary(f"{name}, first run", play_auto(cost, record, profile, linear)))
        lines.append(summary(f"{name}, learned", play_auto(cost, record, profile, linear)))
    return lines


def by_kind(cost, record, wander=None):
    """A line for every kind: the best block of one size for it, and auto over all answers in a drawn order."""
    block_size = record[0][3].shape[1] + 1
    order = np.random.default_rng(0 if wander is None else wander).permutation(len(record))
    profile = Profile(deepcopy(cost), 0.0, block_size)
    played = play_auto(cost, [record[i] for i in order], profile, pace=steady if wander is None else Wandering(wander))
    autos = dict(zip(order.tolist(), played, strict=True))
    lines = []
    for kind in sorted({str(row[0]) for row in record}):
        places = [i for i, row in enumerate(record) if str(row[0]) == kind]
        fixed = {b: [play_fixed(cost, record[i], b, None) for i in places] for b in BLOCKS[2:] if b <= block_size}
        best = max(fixed, key=lambda b: speedup(fixed[b]))
        long = [i for i in places if len(record[i][3]) >= LONG] or places
        least = min(speedup([autos[i]]) for i in long)
        line = {"kind": kind, "best block": f"block {best} {speedup(fixed[best]):.2f}x"}
        line["auto"] = f"{speedup([autos[i] for i in places]):.2f}x"
        line["auto, this kind alone"] = f"{speedup(play_twice(cost, [record[i] for i in places])):.2f}x"
        lines.append(line | {"worst text": f"{least:.2f}x"})
    return lines


def play_twice(cost, rows):
    """The second time that auto meets these answers; it starts knowing nothing of the drafter."""
    profile = Profile(deepcopy(cost), 0.0, rows[0][3].shape[1] + 1)
    play_auto(cost, rows, profile)
    return play_auto(cost, rows, profile)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--cost", type=Path, help="a measured profile instead of the published staircases")
    parser.add_argument("--kind", help="only answers of this kind")
    parser.add_argument("--wander", type=int, metavar="SEED", help="let auto's machine be used by others as well")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    record = [row for row in load_record(args.record) if args.kind in (None, str(row[0]))]
    block_size = record[0][3].shape[1] + 1
    tables = {name: staircase(points, block_size) for name, points in STAIRCASES.items()}
    if args.cost:
        tables = {args.cost.stem: CostTable.from_dict(json.loads(args.cost.read_text())["cost"])}
    results = {}
    for name, cost in tables.items():
        results[name] = compare(cost, record)
        kinds = by_kind(cost, record, args.wander)
        print(f"{name}\n{table_text(results[name])}\n\n{table_text(kinds)}\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
