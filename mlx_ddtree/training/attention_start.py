"""The attention that a drafter starts with: heads that read the bonus token, and heads that read the newest context
row.

Keys are normalised a head, so a projection onto one direction leaves a key's sign alone: it says of which kind a row
is. A head's keys lie in rotary pairs that turn slowly where distance must not matter, and in pairs of all speeds where
the nearest row should win.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.drafter.model import DFlashAttention

Array = NDArray[np.floating[Any]]
SHARPNESS = 2.5
"""The norm of queries: scores of a row of the right kind and of a wrong one lie 2 * sqrt(head_dim) * SHARPNESS
apart."""
BONUS, CONTEXT = 0, 1
"""The kinds of rows that are read."""
NOISE = 0.1
"""Of the random weights that remain in the projections, so that a head can learn other directions."""


@dataclass(frozen=True)
class Rows:
    """What the first layer sees and should say.

    bonus (n, D), context (n, D): the two rows that matter for n places.  mask (D,): the rows that ask.  All normalised.
    wanted (n, D): what the attention should add, the target's final state before its norm's gains.
    prompts (m, D): context rows of every kind, which no head may take for a bonus row.
    root_asks: whether the bonus row asks like a mask, as the first of a block's rows that predict.
    """

    bonus: Array
    context: Array
    mask: Array
    wanted: Array
    prompts: Array
    root_asks: bool = False


def start_attention(attention: DFlashAttention, rows: Rows, metric: Array, ridge: float) -> None:
    """Write queries, keys, values and output; metric (D, D) is the head's, ridge the penalty's share."""
    dim = attention.q_norm.weight.shape[0]
    heads_a_group = attention.heads // attention.kv_heads
    detectors = [detector(rows, BONUS), detector(rows, CONTEXT)]
    places = [slow_coordinates(attention, dim), near_coordinates(attention, dim)]
    ask = asking(rows)

    # 1. Random projections, faint, and no output.
    queries = NOISE * np.array(attention.q_proj.weight)
    keys = NOISE * np.array(attention.k_proj.weight)
    values = np.array(attention.v_proj.weight)
    outputs = np.zeros_like(np.array(attention.o_proj.weight))

    # 2. Every group's keys say what a row is, its values what the row foretells; its heads ask for one kind each.
    for group, (kinds, values_here, outputs_here) in enumerate(
        reduced_maps(attention.kv_heads, rows, metric, dim, ridge)
    ):
        own = slice(group * dim, (group + 1) * dim)
        values[own] = values_here
        for kind in kinds:
            keys[own] += np.outer(places[kind], detectors[kind])
        asked = [kinds[offset * len(kinds) // heads_a_group] for offset in range(heads_a_group)]
        for offset, kind in enumerate(asked):
            head = group * heads_a_group + offset
            place = slice(head * dim, (head + 1) * dim)
            queries[place] += np.outer(places[kind], ask)
            outputs[:, place] = outputs_here[kinds.index(kind)].T / asked.count(kind)
    attention.q_proj.weight = mx.array(queries.astype(np.float32))
    attention.k_proj.weight = mx.array(keys.astype(np.float32))
    attention.v_proj.weight = mx.array(values.astype(np.float32))
    attention.o_proj.weight = mx.array(outputs.astype(np.float32))
    attention.q_norm.weight = mx.full((dim,), SHARPNESS)


def asking(rows: Rows) -> Array:
    """(D,): its product with a row that asks is about 1."""
    if not rows.root_asks:
        return rows.mask / np.square(rows.mask).sum()
    inputs = np.concatenate([rows.bonus, np.tile(rows.mask, (len(rows.bonus), 1))]).astype(np.float64)
    return solve_ridge(inputs, np.ones((len(inputs), 1)), 0.01)[:, 0].astype(np.float32)


def reduced_maps(
    groups: int, rows: Rows, metric: Array, dim: int, ridge: float
) -> list[tuple[tuple[int, ...], Array, list[Array]]]:
    """For every group of heads: the kinds of rows it reads, its values (dim, D), and by kind what they add, (dim, D).

    The maps of a ridge regression are reduced to the rank that values have, so that logits lose least; groups that read
    the same kind share its directions out, and one group alone serves both kinds with common values.
    """
    maps = ridge_maps(rows, ridge)
    root = matrix_root(metric)
    if groups == 1:
        left, _, _ = np.linalg.svd(np.concatenate([maps[BONUS] @ root, maps[CONTEXT] @ root], axis=1))
        basis = left[:, :dim]
        return [((BONUS, CONTEXT), basis.T, [basis.T @ maps[BONUS], basis.T @ maps[CONTEXT]])]
    inverse = np.linalg.inv(root)
    found: list[tuple[tuple[int, ...], Array, list[Array]]] = []
    bonus_groups = max(1, groups // 3)
    for kind, count in ((BONUS, bonus_groups), (CONTEXT, groups - bonus_groups)):
        said = (rows.bonus, rows.context)[kind] @ maps[kind] @ root
        directions = np.linalg.eigh(said.T @ said)[1][:, ::-1]
        for number in range(count):
            best = directions[:, number * dim : (number + 1) * dim]
            found.append(((kind,), (maps[kind] @ root @ best).T, [best.T @ inverse]))
    return found


def ridge_maps(rows: Rows, ridge: float) -> list[Array]:
    """The two (D, D) maps whose sum over bonus and context rows comes nearest to what is wanted."""
    inputs = np.concatenate([rows.bonus, rows.context], axis=1).astype(np.float64)
    solved = solve_ridge(inputs, rows.wanted.astype(np.float64), ridge)
    width = rows.bonus.shape[1]
    return [solved[:width], solved[width:]]


def solve_ridge(inputs: Array, wanted: Array, ridge: float) -> Array:
    """argmin over W of |inputs W - wanted|^2 with a penalty of `ridge` times the inputs' mean square."""
    products = inputs.T @ inputs / len(inputs)
    products += ridge * np.trace(products) / len(products) * np.eye(len(products))
    return np.linalg.solve(products, inputs.T @ wanted / len(inputs))


def detector(rows: Rows, kind: int) -> Array:
    """(D,): its product with a row is about +1 for rows of the kind and -1 for others, MASK rows included."""
    count = len(rows.bonus)
    masks = np.tile(rows.mask, (count // 4 + 1, 1))
    inputs = np.concatenate([rows.bonus, rows.context, rows.prompts, masks]).astype(np.float64)
    signs = np.full((len(inputs), 1), -1.0)
    signs[kind * count : (kind + 1) * count] = 1.0
    if kind == CONTEXT:
        signs[2 * count : 2 * count + len(rows.prompts)] = 1.0
    return solve_ridge(inputs, signs, 0.01)[:, 0].astype(np.float32)


def matrix_root(metric: Array) -> Array:
    """The symmetric square root of a positive semidefinite (D, D), its smallest directions raised so that it
    inverts."""
    sizes, directions = np.linalg.eigh(metric.astype(np.float64))
    return (directions * np.sqrt(np.maximum(sizes, 1e-4 * sizes.max()))) @ directions.T


def turns(attention: DFlashAttention, dim: int) -> Array:
    """(dim,): the angle by which a step of one position turns each coordinate, found by turning; 0 where nothing
    turns."""
    turned = np.array(attention.rope(mx.eye(dim)[None, :, None], offset=1))[0, :, 0]
    return np.arccos(np.clip(np.diagonal(turned), -1.0, 1.0)).astype(np.float32)


def slow_coordinates(attention: DFlashAttention, dim: int) -> Array:
    """(dim,): a unit vector in the coordinates that hardly turn over a text."""
    return unit_on(np.argsort(turns(attention, dim), kind="stable")[: max(2, dim // 4)], dim)


def near_coordinates(attention: DFlashAttention, dim: int) -> Array:
    """(dim,): a unit vector whose product with itself falls with the distance, fast at first and without coming
    back."""
    speeds = turns(attention, dim)
    wanted = np.flatnonzero((speeds > 0.01) & (speeds < 1.1))
    return unit_on(wanted if len(wanted) > 1 else np.arange(dim), dim)


def unit_on(places: NDArray[np.int64], dim: int) -> Array:
    """(dim,): equal numbers at `places`, of length 1 together."""
    vector = np.zeros(dim, np.float32)
    vector[places] = 1.0 / np.sqrt(len(places))
    return vector
