"""A round's draft tree as text for the terminal and as SVG for notebooks.

>>> for response in stream_generate(pair, messages):
...     print(draw_tree(response, pair.tokenizer))  # in a notebook: display(draw_tree(...))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Protocol
from unicodedata import east_asian_width

import numpy as np

from mlx_ddtree.decoding.round import Round
from mlx_ddtree.generation.response import GenerationResponse

LONGEST_LABEL = 22
GREEN, GREY, YELLOW = "\x1b[1;32m", "\x1b[2m", "\x1b[1;33m"
RESET = "\x1b[0m"

# SVG: pixels, and colours of Okabe and Ito, which stay apart for every kind of colour vision.
ROW, BOX, GAP, CHARACTER, PADDING = 28, 22, 22, 7.3, 6
ACCEPTED, DRAFTED, TARGET = "#007A5A", "#767676", "#B34700"


class Decoder(Protocol):
    """Any tokenizer."""

    def decode(self, token_ids: list[int], /) -> str: ...


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
    """

    labels: list[str]
    parents: list[int]
    depths: list[int]
    probabilities: list[float]
    log_weights: list[float]
    path: list[int]
    target: str
    title: str

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

    def _repr_svg_(self) -> str:
        return self.svg()

    def svg(self) -> str:
        """A picture: time runs to the right, the accepted path is green and bold and has ticks, the target's
        token is dashed."""
        columns, rows = self._places()
        width, height = columns[-1], ROW * (max(rows) + 1) + 30
        edges = [self._edge(node, columns, rows) for node in range(1, len(self.labels))]
        boxes = [self._box(node, columns, rows) for node in range(len(self.labels))]
        left = columns[self.depths[self.path[-1]] + 1]
        start = columns[self.depths[self.path[-1]]] + self._widths[self.path[-1]]
        middle, end = _middle(rows[self.path[-1]]), _middle(rows[-1])
        edges.append(_curve(start, middle, left, end, f'stroke="{TARGET}" stroke-dasharray="4 3" stroke-width="2"'))
        boxes.append(_rectangle(left, rows[-1], f"→ {self.target}", TARGET, "the target's own token", "target", True))
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
                f'viewBox="0 0 {width:.0f} {height}" role="img" aria-label="{escape(self.title)}" '
                f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12">',
                f'<rect width="{width:.0f}" height="{height}" fill="#ffffff"/>',
                f'<text x="8" y="18" fill="#333333">{escape(self.title)}</text>',
                *edges,
                *boxes,
                "</svg>",
            ]
        )

    def _places(self) -> tuple[list[float], list[int]]:
        """(left edge of every depth's column and the width of all, row of every node and of the target's token)

        A node stands in its first child's row, so the drafter's best path is a straight line.
        """
        children, last = self.children, self.path[-1]
        rows, free = [0] * (len(self.labels) + 1), 0
        stack = [0]
        while stack:  # depth first; a node that opens a row of its own is no first child
            node = stack.pop()
            parent = self.parents[node] if node > 0 else last
            first = node == 0 or (node > 0 and node == children[parent][0]) or (node == -1 and not children[last])
            if node != 0:
                if not first:
                    free += 1
                rows[node] = rows[parent] if first else free
            if node >= 0:
                stack += [-1] if node == last else []
                stack += children[node][::-1]
        widths = self._widths
        widest = [0.0] * (max(*self.depths, self.depths[last] + 1) + 1)
        for node, depth in enumerate([*self.depths, self.depths[last] + 1]):
            widest[depth] = max(widest[depth], widths[node])
        return [8.0 + float(sum(widest[:i])) + GAP * i for i in range(len(widest) + 1)], rows

    @cached_property
    def _widths(self) -> list[float]:
        """Widths of the nodes' boxes and of the target's."""
        labels = [*(self._written(node) for node in range(len(self.labels))), f"→ {self.target}"]
        return [cells(label) * CHARACTER + 2 * PADDING for label in labels]

    def _written(self, node: int) -> str:
        mark = "✓ " if node in self.path else ""
        return f"{mark}{self.labels[node]}" + (f" {self.probabilities[node]:.2f}" if node else "")

    def _edge(self, node: int, columns: list[float], rows: list[int]) -> str:
        parent = self.parents[node]
        accepted = node in self.path
        style = f'stroke="{ACCEPTED if accepted else DRAFTED}" stroke-width="{3 if accepted else 1}"'
        start = columns[self.depths[parent]] + self._widths[parent]
        return _curve(start, _middle(rows[parent]), columns[self.depths[node]], _middle(rows[node]), style)

    def _box(self, node: int, columns: list[float], rows: list[int]) -> str:
        accepted = node in self.path
        figures = f"probability {self.probabilities[node]:.4f}, path {self.log_weights[node]:.3f} (log)"
        about = figures if node else "the token before the draft"
        color = ACCEPTED if accepted else DRAFTED
        kind = "accepted" if accepted else "drafted"
        return _rectangle(columns[self.depths[node]], rows[node], self._written(node), color, about, kind, False)


def draw_tree(done: GenerationResponse | Round, tokenizer: Decoder) -> TreeDrawing:
    """The draft tree of one round, to `print` or to let a notebook show.

    done: what `stream_generate` yields.
    tokenizer: the pair's.
    """
    number = f"round {done.rounds}: " if isinstance(done, GenerationResponse) else ""
    done = done.round if isinstance(done, GenerationResponse) else done
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
    )


def label(tokenizer: Decoder, token_id: int) -> str:
    """A token in quotes; what does not print is escaped, what is long is cut."""
    if token_id < 0:  # a step of plain decoding has no root's token
        return "(start)"
    text = repr(tokenizer.decode([token_id]))
    return text if cells(text) <= LONGEST_LABEL else _cut(text, LONGEST_LABEL - 2) + "…" + text[-1]


def cells(text: str) -> int:
    """Columns that `text` takes in a terminal."""
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def _cut(text: str, width: int) -> str:
    while cells(text) > width:
        text = text[:-1]
    return text


def _middle(row: int) -> float:
    return 30 + ROW * row + BOX / 2


def _curve(x0: float, y0: float, x1: float, y1: float, style: str) -> str:
    bend = (x0 + x1) / 2
    path = f"M{x0:.1f} {y0:.1f}C{bend:.1f} {y0:.1f} {bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
    return f'<path d="{path}" fill="none" {style}/>'


def _rectangle(x: float, row: int, text: str, color: str, about: str, kind: str, dashed: bool) -> str:
    y, width = 30 + ROW * row, cells(text) * CHARACTER + 2 * PADDING
    bold = kind != "drafted"
    line = f'stroke="{color}" stroke-width="{2 if bold else 1}"' + (' stroke-dasharray="4 3"' if dashed else "")
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<g class="{kind}"><title>{escape(about)}</title>'
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BOX}" rx="5" fill="#ffffff" {line}/>'
        f'<text x="{x + PADDING:.1f}" y="{y + 15}" fill="{color if bold else "#333333"}"{weight} '
        f'xml:space="preserve">{escape(text)}</text></g>'
    )
