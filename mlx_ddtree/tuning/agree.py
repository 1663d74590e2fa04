"""Whether kernels compute what their references do, on the very arrays of a verification.

One verification examines all kernels: every call is computed by the reference, whose result goes on, and by the kernel,
whose result is compared.  So a kernel that is wrong, or does not run, changes nothing and hides no other one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.sampler import Sampler
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.verify import verify
from mlx_ddtree.kernels.agreement import TOLERANCE, arrays, difference
from mlx_ddtree.kernels.attention_plan import MATRIX
from mlx_ddtree.kernels.choice import MLX, KernelChoice, KernelSet
from mlx_ddtree.kernels.gated_delta import DeltaKernels
from mlx_ddtree.kernels.registry import ATTENTION, PRODUCT, Option
from mlx_ddtree.kernels.tree_attention import supports
from mlx_ddtree.tuning.sample_trees import bushy_tree

CHECKED = (4, 8, 16, 32, 48, 64, 96, 128)
"""Rows at which kernels must agree: between them all variants of 8 rows of attention and more are launched."""


@dataclass
class Agreement:
    """How a kernel did in one verification.

    error: the largest difference from the reference, relative to the reference's largest value.
    share: of what rounding allows that this is; above 1, or NaN, the kernel is wrong.
    failure: what it raised, if it did.
    """

    error: float = 0.0
    share: float = 0.0
    failure: Exception | None = None

    @property
    def agrees(self) -> bool:
        return self.failure is None and self.share <= 1  # a NaN is not

    def add(self, want: Any, got: Any, dtype: mx.Dtype) -> None:
        """Compare one result."""
        error = float(difference(want, got))
        self.error = float(np.maximum(self.error, error))  # a NaN stays
        self.share = float(np.maximum(self.share, error / TOLERANCE[dtype]))


@dataclass(frozen=True)
class Call:
    """One call of a kernel, which can be made again.

    part: of the kernel's calls that may be chosen by itself, as its name says it ('4096+1024+1024x4096'); '' for all.
    """

    part: str
    kernel: Callable[..., Any]
    reference: Callable[..., Any]
    args: tuple[Any, ...]
    how: dict[str, Any]


@dataclass
class Examined:
    """What one verification has shown.

    agreements: by kernel, of those that the model called.
    calls: by kernel and the shapes of the arguments: one call of them, and how many there were.
    """

    agreements: dict[str, Agreement] = field(default_factory=dict)
    calls: dict[str, dict[Any, tuple[Call, int]]] = field(default_factory=dict)


def checked_rows(group: int) -> list[int]:
    """Rows at which a model must be checked; group: query heads to a KV head.

    Fewer than 8 rows of attention (nodes times heads of a group) are a variant each, and up to 16 are one more.
    """
    few = [rows for rows in range(2, MATRIX) if rows * group < MATRIX]
    return sorted({2, *few, *CHECKED})


def examine(state: DecodeState, options: Sequence[Option], rows: int) -> Examined:
    """A verification of so many rows and its commit, undone again, in which all kernels are watched."""
    found = Examined()
    kernels = MLX
    for option in options:
        watched = {
            name: _watched(option.name, kernel, option.reference[name], found) for name, kernel in option.kernel.items()
        }
        kernels = replace(kernels, **watched)
    verification_and_commit(state, rows, kernels)
    return found


def verification_and_commit(state: DecodeState, rows: int, kernels: KernelSet) -> None:
    """Verify a bushy tree and commit the path to its last node, undone again."""
    target = state.pair.target
    known = target.kernels
    before, target.kernels = target.mark(state.caches.target), KernelChoice({rows: kernels})
    tree = bushy_tree(rows, state.root or 0)
    path = tree.path_to(rows - 1)
    try:
        verification = verify(state, tree, RoundPlan("ddtree", None, rows - 1, Sampler()))
        verification.pending.commit(path)
        mx.eval([layer.state for layer in state.caches.target], verification.features)
    finally:
        target.kernels = known
        target.rewind(state.caches.target, before)


def _watched(name: str, kernel: Any, reference: Any, found: Examined) -> Any:
    """A function that answers with the reference's result and compares the kernel's; for DeltaKernels one of such."""
    if isinstance(kernel, DeltaKernels):
        parts = [part for part in vars(kernel) if callable(getattr(kernel, part))]
        return replace(kernel, **{p: _watched(name, getattr(kernel, p), getattr(reference, p), found) for p in parts})

    def both(*args: Any, **how: Any) -> Any:
        want = reference(*args, **how)
        agreement = found.agreements.setdefault(name, Agreement())
        call = Call(_part(name, args), kernel, reference, args, how)
        known, times = found.calls.setdefault(name, {}).get(_shapes(call), (call, 0))
        found.calls[name][_shapes(call)] = (known, times + 1)
        try:
            if agreement.failure is None:
                _compare(agreement, call, want)
                if times == 0 and name == ATTENTION:
                    for other in _other_attention(call):
                        _compare(agreement, other, reference(*other.args, **other.how))
        except Exception as error:  # whatever the compiler or the driver raises
            agreement.failure = error
        return want

    return both


def _compare(agreement: Agreement, call: Call, want: Any) -> None:
    agreement.add(want, call.kernel(*call.args, **call.how), arrays(call.args[0])[0].dtype)


def _part(name: str, args: tuple[Any, ...]) -> str:
    return str(args[1].name) if name == PRODUCT else ""


def _shapes(call: Call) -> Any:
    """What tells calls apart that take another time."""
    shapes = tuple(_shapes_in(call.args))
    return call.part, getattr(call.kernel, "func", call.kernel), shapes, call.how.get("window")


def _shapes_in(x: Any) -> Iterator[tuple[int, ...]]:
    """Shapes of all arrays in nested sequences that hold other things too."""
    if isinstance(x, mx.array):
        yield tuple(x.shape)
    elif isinstance(x, list | tuple):
        for part in x:
            yield from _shapes_in(part)


def _other_attention(call: Call) -> list[Call]:
    """A call's attention under a window and over quantised keys, which options of a text ask for later."""
    queries, keys, values = call.args
    if call.how.get("window") is not None or not isinstance(keys, mx.array):
        return []
    others = [replace(call, how=call.how | {"window": max(call.how["context"] // 2, 8)})]
    for bits in (4, 8):
        if keys.shape[-1] % 64 == values.shape[-1] % 64 == 0:
            packed: list[Any] = [tuple(mx.quantize(x, 64, bits)) for x in (keys, values)]
            if supports(queries, *packed):
                others.append(replace(call, args=(queries, *packed)))
    return others
