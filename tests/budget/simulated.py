"""Texts that are played instead of decoded: seconds come from a table, tokens from a list, drafts from a made-up drafter.

The planner sees what it would see in decoding/adaptive.py and nothing else: its own table of costs, which may be wrong, and
the seconds of rounds and steps.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mlx_ddtree.budget.cost import CostTable
from mlx_ddtree.budget.planner import Planner
from mlx_ddtree.budget.proposal import Outcome
from mlx_ddtree.tree import accept
from mlx_ddtree.tree.lattice import Candidates

VOCAB = 50_000
TOP_K = 4


@dataclass
class Drafter:
    """Drafts for a text of which every candidate is right or wrong by its own luck.

    chance: from the place in the text to the chance that the best candidate there is right.
    claimed: from that chance to what the drafter says of it.
    """

    chance: Callable[[int], float]
    claimed: Callable[[float], float] = lambda chance: chance
    seed: int = 0

    def draft(self, text, place, block_size, top_k):
        """The candidates for the block_size - 1 tokens behind the root at `place`."""
        length = block_size - 1
        count = min(top_k, TOP_K)
        token_ids = np.arange(VOCAB, VOCAB + count, dtype=np.int32) + np.zeros((length, 1), np.int32)
        log_probs = np.zeros((length, count), np.float32)
        luck = np.random.default_rng([self.seed, place]).random(length)
        for depth in range(length):
            chance = self.chance(place + 1 + depth)
            said = min(max(self.claimed(chance), 0.01), 0.99)
            log_probs[depth] = np.log([said, *[(1 - said) / TOP_K / 2] * (count - 1)])
            if luck[depth] < chance and place + 1 + depth < len(text):
                token_ids[depth, 0] = text[place + 1 + depth]
        return Candidates(token_ids, log_probs)


@dataclass
class Machine:
    """What things really take.

    cost: the true table.  clock: from the seconds so far to a factor on all that comes.  restart: steps that a run of
    plain decoding loses, since its first step does not run ahead.
    """

    cost: CostTable
    clock: Callable[[float], float] = lambda seconds: 1.0
    restart: float = 0.0
    seconds: float = 0.0
    largest_round: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)

    def take(self, seconds: float) -> float:
        taken = seconds * self.clock(self.seconds)
        self.seconds += taken
        return taken

    def plain_seconds(self, tokens: int, context: int) -> float:
        """Seconds of the text by plain decoding alone."""
        alone = Machine(self.cost, self.clock)
        for place in range(tokens):
            alone.take(self.cost.step(context + place))
        return alone.seconds


def play(machine: Machine, planner: Planner, text: list[int], drafter: Drafter) -> float:
    """Decode all but the text's first token; the seconds that it took."""
    place = 0
    before = machine.seconds
    while place < len(text) - 1:
        place += _one_round(machine, planner, text, drafter, place)
    return machine.seconds - before


def _one_round(machine, planner, text, drafter, place):
    context = place
    copy = planner.copy_after(text[: place + 1])
    proposal = planner.without_draft(text[place], copy, context)
    drafting = 0.0
    if proposal is None:
        if pause := planner.pause(context):
            return _plain_run(machine, planner, text, place, pause)
        block_size = planner.next_block_size(context)
        drafting = machine.take(machine.cost.drafting(block_size))
        candidates = drafter.draft(text, place, block_size, planner.top_k)
        proposal = planner.with_draft(text[place], candidates, copy, context)
    tree = proposal.tree
    follow = dict(enumerate(text[place + 1 :]))
    chosen = [follow.get(depth, -1) for depth in tree.depths.tolist()]
    path = accept(tree, chosen)
    rows = machine.cost.rows
    table = machine.cost.verification(context, tree.is_chain)
    verify = machine.take(float(table[min(int(np.searchsorted(rows, len(tree))), len(rows) - 1)]))
    rest = machine.take(machine.cost.round)
    seconds = drafting + verify + rest
    machine.largest_round = max(machine.largest_round, seconds)
    planner.learn(proposal, Outcome([chosen[node] for node in path], context, seconds, verify, drafting))
    machine.kinds[proposal.kind] = machine.kinds.get(proposal.kind, 0) + len(path)
    return len(path)


def _plain_run(machine, planner, text, place, pause):
    """Steps of plain decoding, timed as AdaptiveProposer does it: the first two and the last are left out."""
    for done in range(pause):
        step = machine.take(machine.cost.step(place + done))
        if done == 0:
            machine.take(machine.restart * machine.cost.step(place))
        ended = place + done + 1 >= len(text) - 1 or done + 1 == pause
        ended = ended or planner.ends_plain_run(text[: place + done + 2], place + done + 1)
        if done >= 2 and not ended:
            planner.profile.cost.saw_step(place + done, step)
        if ended:
            break
    machine.kinds["plain"] = machine.kinds.get("plain", 0) + done + 1
    return done + 1
