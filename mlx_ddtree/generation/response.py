"""What callers see of every round: its text and figures, counts over all rounds, and the meter behind both."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import Any

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.decoding.round import Clock, Round
from mlx_ddtree.decoding.text import TextStream
from mlx_ddtree.generation.draw import draw_tree
from mlx_ddtree.generation.shorten import Shortening
from mlx_ddtree.icecache.reads import Reads
from mlx_ddtree.pflash.compress import CompressionReport
from mlx_ddtree.pictures.tables import bars_table, side_by_side
from mlx_ddtree.target import Target
from mlx_ddtree.target.rank_traffic import RankTraffic


@dataclass(repr=False)
class RoundStatistics:
    """Counts over the rounds so far.

    nodes: rounds by size of their tree, root excluded.
    kinds: rounds by kind: 'draft', 'lookup', 'forced' (by a grammar), 'plain', 'tie' (a near tie, decided by a row of
        its own).
    accepted: rounds by accepted nodes.
    predicted, observed: accepted nodes in all, of the rounds whose outcome was predicted.
    reads: what a cache that is read in part was asked for (icecache).
    exchange: what the ranks of a target on several machines have exchanged.
    """

    nodes: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    accepted: Counter[int] = field(default_factory=Counter)
    predicted: float = 0.0
    observed: int = 0
    reads: Reads | None = None
    exchange: RankTraffic | None = None

    def add(self, done: Round) -> None:
        self.nodes[done.nodes] += 1
        self.kinds[done.kind] += 1
        self.accepted[done.accepted] += 1
        if done.expected is not None:
            self.predicted += done.expected
            self.observed += done.accepted

    def as_dict(self) -> dict[str, Any]:
        """For JSON: keys are strings, in order."""
        rounds = max(self.nodes.total(), 1)
        return {
            "nodes": {str(n): self.nodes[n] for n in sorted(self.nodes)},
            "accepted": {str(n): self.accepted[n] for n in sorted(self.accepted)},
            "kinds": {kind: round(count / rounds, 4) for kind, count in sorted(self.kinds.items())},
            "predicted_accepted": round(self.predicted, 2),
            "observed_accepted": self.observed,
            **({} if self.reads is None else {"kv_reads": self.reads.as_dict()}),
            **({} if self.exchange is None else {"exchange": self.exchange.as_dict()}),
        }

    def lines(self) -> str:
        """For --verbose."""
        rounds = max(self.nodes.total(), 1)
        kinds = ", ".join(f"{kind} {count / rounds:.0%}" for kind, count in self.kinds.most_common())
        nodes = ", ".join(f"{n}: {self.nodes[n]}" for n in sorted(self.nodes))
        predicted = f"{self.predicted:.0f} predicted, {self.observed} observed"
        reads = "" if self.reads is None else f"\n{self.reads.line()}"
        exchange = "" if self.exchange is None else f"\n{self.exchange.line(rounds)}"
        return f"Rounds by kind: {kinds}\nRounds by nodes: {nodes}\nAccepted nodes: {predicted}{reads}{exchange}"

    def __repr__(self) -> str:
        kinds = ", ".join(f"{kind}={count}" for kind, count in self.kinds.most_common())
        return f"RoundStatistics({self.nodes.total()} rounds: {kinds})" if kinds else "RoundStatistics(0 rounds)"

    def _repr_html_(self) -> str:
        """For notebooks: rounds by what they accepted, by the size of their tree, by kind, with bars."""
        accepted = {nodes + 1: self.accepted[nodes] for nodes in sorted(self.accepted)}
        return side_by_side(
            bars_table("Tokens a round", "tokens", accepted),
            bars_table("Nodes of the draft tree", "nodes", dict(sorted(self.nodes.items()))),
            bars_table("Kind of round", "kind", dict(self.kinds.most_common())),
        )


@dataclass(repr=False)
class GenerationResponse:
    """One round's output; mlx-lm's fields, and the round's statistics.

    text: the next piece of text; may be empty.
    tokens: ids committed in this round, an end token included.
    token: the last of them.
    logprobs: (len(tokens), V), what the tokens were chosen from; computed when first used.
    from_draft: whether the drafter had proposed the first of them.
    acceptance_length: tokens this round emits unless the text ends: accepted nodes + 1.
    nodes, depth: size and depth of this round's draft tree, root excluded.
    rounds: rounds so far; the first token comes from the prompt's own forward and counts as none.
    kind: of this round: 'draft', 'lookup' (a copied continuation), 'forced' (only what a grammar leaves no choice
        about), 'plain', or 'tie' (a near tie that a row of its own decided).
    statistics: counts over the rounds so far.
    seconds: wall time by stage so far: prefill, draft, tree, verify, commit.
    compression: what the prompt has lost, where it was to be compressed or filtered.
    peak_memory: gigabytes.
    finish_reason: 'length', 'stop' or None.
    stopped_by: the stop string that has ended the text, where one has.
    round: the round itself, with its tree and the accepted path (`mlx_ddtree.draw_tree`).
    tokenizer: what wrote the text.

    A notebook shows a response as a line and its tree.
    """

    text: str
    tokens: list[int]
    prompt_tokens: int
    prompt_tps: float
    generation_tokens: int
    generation_tps: float
    peak_memory: float
    rounds: int
    statistics: RoundStatistics
    seconds: dict[str, float]
    round: Round
    finish_reason: str | None = None
    stopped_by: str | None = None
    compression: CompressionReport | None = None
    tokenizer: TokenizerWrapper | None = None

    # What follows from the round is computed when it is asked for: the device waits while a response is made.

    @property
    def token(self) -> int:
        return self.tokens[-1]

    @cached_property
    def logprobs(self) -> mx.array:
        logits = self.round.logits
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)

    @property
    def from_draft(self) -> bool:
        return self.round.accepted > 0

    @property
    def acceptance_length(self) -> int:
        return self.round.accepted + 1

    @property
    def nodes(self) -> int:
        return self.round.nodes

    @property
    def depth(self) -> int:
        return int(self.round.tree.depths.max())

    @property
    def kind(self) -> str:
        return self.round.kind

    @property
    def mean_acceptance_length(self) -> float:
        """tau: tokens per round so far."""
        return (self.generation_tokens - 1) / self.rounds if self.rounds else 1.0

    def __repr__(self) -> str:
        tokens = f"{len(self.tokens)} token{'s' if len(self.tokens) > 1 else ''}"
        how = f"{self.kind}, {tokens}, {self.nodes} drafted" if self.rounds else "the prompt's own token"
        end = f", finish_reason={self.finish_reason!r}" if self.finish_reason else ""
        return f"GenerationResponse(round {self.rounds}: {how}, text={self.text!r}{end})"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """For notebooks: the round's tree, where it drafted one."""
        if self.tokenizer is None or not self.nodes:
            return {"text/plain": repr(self)}
        return draw_tree(self)._repr_mimebundle_() | {"text/plain": repr(self)}


def summary(response: GenerationResponse) -> str:
    """mlx-lm's closing lines, and the acceptance length."""
    return (
        f"{'=' * 10}\n"
        f"Prompt: {response.prompt_tokens} tokens, {response.prompt_tps:.3f} tokens-per-sec\n"
        f"Generation: {response.generation_tokens} tokens, {response.generation_tps:.3f} tokens-per-sec\n"
        f"Rounds: {response.rounds}, acceptance length {response.mean_acceptance_length:.2f}\n"
        f"{response.statistics.lines()}\n"
        f"Peak memory: {response.peak_memory:.3f} GB"
        + (f"\n{response.compression.lines()}" if response.compression else "")
    )


class Meter:
    """Counts and times rounds.  Generation time starts when the first token is there, as in mlx-lm."""

    def __init__(self, target: Target, prompt_tokens: int, shortening: Shortening | None) -> None:
        self.clock = Clock()
        self._target = target
        self._exchanged = target.rank_traffic
        self._shortening = shortening
        self.rounds = -1
        self.tokens = 0
        self._tidied = 0
        self.statistics = RoundStatistics()
        self._prompt_tokens = prompt_tokens
        self._start = 0.0

    def response(self, done: Round, text: TextStream) -> GenerationResponse:
        """The round as callers see it."""
        if self.tokens // 256 > self._tidied:  # gives unused memory back, as mlx-lm does
            self._tidied = self.tokens // 256
            mx.clear_cache()
        self.rounds += 1
        self.tokens += len(done.token_ids)
        if self.rounds == 0:
            self._start = perf_counter()
            if self._shortening is not None:
                self._shortening.first_token(self.clock.seconds)
        else:
            self.statistics.add(done)
        if self._exchanged is not None and self._target.rank_traffic is not None:
            self.statistics.exchange = self._target.rank_traffic.since(self._exchanged)
        return GenerationResponse(
            text=text.take(),
            tokens=done.token_ids,
            prompt_tokens=self._prompt_tokens,
            prompt_tps=self._prompt_tokens / (self.clock.seconds["prefill"] + self.clock.seconds.get("score", 0.0)),
            generation_tokens=self.tokens,
            generation_tps=self.tokens / (perf_counter() - self._start),
            peak_memory=mx.get_peak_memory() / 1e9,
            rounds=self.rounds,
            statistics=self.statistics,
            seconds=dict(self.clock.seconds),
            round=done,
            finish_reason=text.finish_reason,
            stopped_by=text.stopped_by,
            compression=self._shortening.report if self._shortening else None,
            tokenizer=text.tokenizer,
        )
