"""A round's draft tree as text for the terminal, and as a picture for notebooks.

>>> for response in stream_generate(pair, messages):
...     print(draw_tree(response))  # in a notebook: display(draw_tree(response))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import mlx.core as mx
import numpy as np

from mlx_ddtree.decoding.round import Round
from mlx_ddtree.pictures.letters import PAGE_WIDTH, cells
from mlx_ddtree.pictures.picture import Picture
from mlx_ddtree.pictures.tree_svg import Box, tree_svg

HINT = "Point at a box: its probabilities, and what the model says there."
LONGEST_LABEL = 22
GREEN, GREY, YELLOW = "\x1b[1;32m", "\x1b[2m", "\x1b[1;33m"
RESET = "\x1b[0m"


class Decoder(Protocol):
    """Any tokenizer."""

    def decode(self, token_ids: list[int], /) -> str: ...


class HasRound(Protocol):
    """What `stream_generate` yields: a round, its number, and what writes its tokens."""

    round: Round
    rounds: int

    @property
    def tokenizer(self) -> Decoder | None: ...


@dataclass(frozen=True)
class TreeDrawing:
    """A draft tree with what became of it; `print` it, or let a notebook show it.

    labels: (N,) the nodes' tokens as they are written, root first.
    parents, depths: (N,) as in DraftTree.
    probabilities: (N,) of a node after its parent, as the drafter (corrected, with tree_budget='auto') has it.
    log_weights: (N,) natural logarithm of the probability of the whole path; root 0.
    path: the accepted nodes, root first.
    target: the target's own token after the last of them.
    title: one line about the round.
    said: (N,) the target's choice after every node, or empty.
    chances: the target's own probability, at temperature 1, of the nodes behind the path, by node; -1 is `target`.
    """

    labels: list[str]
    parents: list[int]
    depths: list[int]
    probabilities: list[float]
    log_weights: list[float]
    path: list[int]
    target: str
    title: str
    said: list[str] = field(default_factory=list)
    chances: dict[int, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text()

    def text(self, color: bool = False) -> str:
        """One line a node: branches, token, probability after its parent, log-probability of its path.

        Accepted nodes have a tick; the arrow is the target's token where it left the tree.
        """

        def paint(style: str, text: str) -> str:
            return f"{style}{text}{RESET}" if color and text else text

        rows = list(self._rows())
        width = max(len(branches) + 2 + cells(label) for branches, _, label, _ in rows)
        lines = [paint(GREY, self.title)]
        for branches, mark, label, figures in rows:
            style = {"✓": GREEN, "→": YELLOW}.get(mark, "")
            space = " " * (width - len(branches) - 2 - cells(label))
            text = paint(style, f"{mark} {label}") if style else f"{mark} {label}"
            lines.append(f"{branches}{text}{space}  {paint(GREY, figures)}".rstrip())
        return "\n".join(lines)

    def _rows(self) -> Iterator[tuple[str, str, str, str]]:
        """(branches, mark, label, figures) of every node and of the target's token, parents before children."""
        accepted, children = set(self.path), self.children
        stack: list[tuple[int, str, str]] = [(0, "", "")]  # (node, what stands before it, before its children)
        while stack:
            node, before, below = stack.pop()
            if node == -1:
                yield before, "→", self.target, "the target's own"
                continue
            figures = f"{self.probabilities[node]:4.2f} {self.log_weights[node]:7.2f}" if node else ""
            yield before, "✓" if node in accepted else "·", self.labels[node], figures
            following = [*children[node], *([-1] if node == self.path[-1] else [])]
            for i, child in reversed(list(enumerate(following))):
                last = i == len(following) - 1
                stack.append((child, below + ("└╴" if last else "├╴"), below + ("  " if last else "│ ")))

    @cached_property
    def children(self) -> list[list[int]]:
        """(N,) every node's children, the most probable first."""
        found: list[list[int]] = [[] for _ in self.parents]
        for node in sorted(range(1, len(self.parents)), key=lambda node: -self.log_weights[node]):
            found[self.parents[node]].append(node)
        return found

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """For notebooks: a picture that answers the mouse, the same as a plain picture, and text."""
        return Picture(self.svg(), self.title, HINT)._repr_mimebundle_() | {"text/plain": self.text()}

    def svg(self, width: float = PAGE_WIDTH) -> str:
        """A picture: time runs to the right, the accepted path is green and bold and has ticks, the target's
        token is dashed.  Dark where the reader's pages are.

        width: pixels; what does not fit goes on below.
        """
        # The nodes in the order of `_rows`, and the target's token as one more box.
        own = len(self.labels)
        order: list[int] = []
        stack = [0]
        while stack:
            node = stack.pop()
            order.append(node)
            if node != own:
                stack += [own] if node == self.path[-1] else []
                stack += reversed(self.children[node])
        place = {node: i for i, node in enumerate(order)}
        parents, depths = [*self.parents, self.path[-1]], [*self.depths, self.depths[self.path[-1]] + 1]
        return tree_svg(
            [self._box(node) for node in order],
            [place[parents[node]] if node else -1 for node in order],
            [depths[node] for node in order],
            self.title,
            width,
        )

    def _box(self, node: int) -> Box:
        """What stands in a node's box, or, one behind the nodes, in the target's."""
        if node == len(self.labels):
            return Box("target", f"→ {self.target}", f"{self.target}: the model's own token{self._chance(-1)}")
        kind, mark = ("accepted", "✓ ") if node in self.path else ("drafted", "")
        figure = f" {self.probabilities[node]:.2f}" if node else ""
        return Box(kind, f"{mark}{self.labels[node]}{figure}", self._about(node))

    def _about(self, node: int) -> str:
        """The tooltip of a node: its probabilities, what became of it, the target's choice."""
        label, said = self.labels[node], self.said
        after = f"; after it the model says {said[node]}" if said else ""
        if node == 0:
            return f"{label}: decided before this draft{after}"
        whole = float(np.exp(self.log_weights[node]))
        drafted = f"drafted with probability {self.probabilities[node]:.3f} ({whole:.3f} for the whole path)"
        if node in self.path:
            became = f"accepted{self._chance(node)}"
        elif self.parents[node] in self.path:
            became = f"not taken{self._chance(node)}" + (f", the model said {said[self.parents[node]]}" if said else "")
        else:
            became = "not reached"
        return f"{label}: {drafted}; {became}{after}"

    def _chance(self, node: int) -> str:
        return f" (the model's probability {self.chances[node]:.3f})" if node in self.chances else ""


def draw_tree(done: HasRound | Round, tokenizer: Decoder | None = None) -> TreeDrawing:
    """The draft tree of one round, to `print` or to let a notebook show.

    done: what `stream_generate` yields.
    tokenizer: the pair's; a response knows it.
    """
    number = ""
    if not isinstance(done, Round):
        number = f"round {done.rounds}: "
        tokenizer = tokenizer or done.tokenizer
        done = done.round
    assert tokenizer is not None, "a round alone does not know its tokenizer"
    tree = done.tree
    weights = tree.log_weights.astype(np.float64)
    with np.errstate(invalid="ignore"):
        steps = np.where(np.isneginf(weights), 0.0, np.exp(weights - weights[np.maximum(tree.parents, 0)]))
    return TreeDrawing(
        labels=[label(tokenizer, int(token)) for token in tree.token_ids],
        parents=tree.parents.tolist(),
        depths=tree.depths.tolist(),
        probabilities=np.clip(steps, 0.0, 1.0).tolist(),
        log_weights=weights.tolist(),
        path=list(done.path),
        target=label(tokenizer, done.chosen[-1]),
        title=f"{number}{done.kind}, {done.nodes} nodes, {done.accepted} accepted",
        said=[label(tokenizer, token) for token in done.said],
        chances=_chances(done),
    )


def _chances(done: Round) -> dict[int, float]:
    """The target's probabilities of what stands behind the path, by node; -1 is its own token.

    Logits are there for the nodes whose choice was emitted; none where they were given up (Answer).
    """
    if not done.logits.size:
        return {}
    behind = {node: i for i, node in enumerate(done.path[: len(done.token_ids)])}
    asked = {
        n: (behind[p], int(done.tree.token_ids[n])) for n, p in enumerate(done.tree.parents.tolist()) if p in behind
    }
    if len(behind) == len(done.path):
        asked[-1] = behind[done.path[-1]], done.chosen[-1]
    if not asked:
        return {}
    rows, tokens = zip(*asked.values(), strict=True)
    logits = done.logits.astype(mx.float32)
    logs = logits[mx.array(rows), mx.array(tokens)] - mx.logsumexp(logits, axis=-1)[mx.array(rows)]
    return dict(zip(asked, mx.exp(logs).tolist(), strict=True))  # type: ignore[arg-type]


def label(tokenizer: Decoder, token_id: int) -> str:
    """A token in quotes; what does not print is escaped, what is long is cut."""
    if token_id < 0:  # a step of plain decoding has no root's token
        return "(start)"
    text = repr(tokenizer.decode([token_id]))
    return text if cells(text) <= LONGEST_LABEL else _cut(text, LONGEST_LABEL - 2) + "…" + text[-1]


def _cut(text: str, width: int) -> str:
    while cells(text) > width:
        text = text[:-1]
    return text
