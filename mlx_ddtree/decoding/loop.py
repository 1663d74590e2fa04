"""The loop over rounds, one for all methods: prepare, hand out, propose, verify, learn."""

from __future__ import annotations

from collections.abc import Iterator

from mlx_ddtree.decoding.adaptive import AdaptiveProposer
from mlx_ddtree.decoding.failure import can_go_on, compute_again
from mlx_ddtree.decoding.parity import remake_cache
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.propose import CopyingProposer, FixedProposer, NoProposer, Proposer
from mlx_ddtree.decoding.round import Clock, Round, decode_round
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.text import Text
from mlx_ddtree.errors import MlxDdtreeError


def decode_rounds(
    state: DecodeState, plan: RoundPlan, text: Text, clock: Clock, done: Round | None = None
) -> Iterator[Round]:
    """Rounds without end; the caller stops when the text does.

    done: a round that is to be handed out before, while the device works on the next one already.

    Where the GPU fails under kernels of ours, the rounds that it may have spoilt are made again without them.
    """
    while True:
        try:
            yield from _rounds(state, plan, text, clock, done)
        except RuntimeError as error:
            if not can_go_on(state, error):
                raise
            compute_again(state, error)
            done = None


def _rounds(state: DecodeState, plan: RoundPlan, text: Text, clock: Clock, done: Round | None) -> Iterator[Round]:
    proposer = make_proposer(state, plan, text, clock)
    while True:
        try:
            # 1. Caches that hold enough tokens are quantised.
            if state.quantization_due:
                quantize_as_plainly(state, plan)
            # 2. Send the next draft off, or, where drafting does not pay, a plain step: the device works while the
            #    caller handles the last round.
            plain_rounds = proposer.prepare()
        except (RuntimeError, MlxDdtreeError):  # of the device, or of a grammar that grows too complex
            if done is not None:  # the text has it
                yield done
            raise
        # 3. Hand the last round out.
        if done is not None:
            yield done
        # 4. Where drafting does not pay, decode plainly for a while.
        if plain_rounds is not None:
            yield from plain_rounds
            done = None
            continue
        # 5. One round, and what there is to learn from it.
        done = proposer.learn(decode_round(state, plan, proposer.propose, text.keep, clock))


def quantize_as_plainly(state: DecodeState, plan: RoundPlan) -> None:
    """Quantise the caches as plain decoding would have filled them, where rounding could decide later near ties.

    Rows that were computed several at a time are computed again for that; once they are quantised they cannot be.
    """
    if plan.parity.cache > 0 and state.exact < state.length:
        remake_cache(state)
    state.quantize()


def make_proposer(state: DecodeState, plan: RoundPlan, text: Text, clock: Clock) -> Proposer:
    """What the plan asks for: nothing, trees of one size, or a size chosen every round."""
    if plan.method == "ar" or plan.tree_budget == 0:
        return NoProposer(state, plan, text, clock)
    if plan.adaptive:
        return AdaptiveProposer(state, plan, text, clock)
    if state.pair.drafter is None:
        return CopyingProposer(state, plan, text, clock)
    return FixedProposer(state, plan, text, clock)
