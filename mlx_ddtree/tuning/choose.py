"""Which kernels verifications use on this machine: those that agree with MLX's operations and make rounds faster.

A kernel that wins alone can still lose in a whole verification, so whole verifications are what is timed, with
the commit that follows.  What is checked are the very arrays of such a verification: the kernel and its
reference get the same ones, layer by layer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import mlx.core as mx
import numpy as np
from tqdm import tqdm

from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.sampling import Sampler
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.verify import verify
from mlx_ddtree.errors import OptionError
from mlx_ddtree.kernels.agreement import TOLERANCE, arrays, difference
from mlx_ddtree.kernels.choice import MLX, KernelChoice, KernelSet
from mlx_ddtree.kernels.gated_delta import DeltaKernels
from mlx_ddtree.kernels.metal import Launch, launch_on_metal
from mlx_ddtree.kernels.registry import DRAFT, TOP_K, Option, TopKStart, options, set_of
from mlx_ddtree.kernels.topk import finish_top_k, start_top_k, topk_logprobs
from mlx_ddtree.tree import DraftTree

MODES = ("auto", "on", "off")
SIZES = (4, 8, 16, 32)
"""Rows that are timed; a verification uses what was chosen for the next larger one."""
REPEATS = 5
FASTER = 0.98
"""A kernel must bring a verification down to this share of its time, or it is not worth its risk."""


@dataclass
class Finding:
    """What was found of one kernel for the loaded pair.

    error: largest difference from the reference, relative to the reference's largest value; None: the model never
        called it.
    agrees: whether that is within rounding.
    speedup: a verification's time without it over with it, by rows.
    """

    name: str
    error: float | None = None
    agrees: bool = False
    speedup: dict[int, float] = field(default_factory=dict)


def mode_of(asked: str) -> str:
    """'auto', 'on' or 'off': $MLX_DDTREE_KERNELS overrules what was asked for.  Raises OptionError."""
    mode = os.environ.get("MLX_DDTREE_KERNELS", "").lower() or asked
    if mode not in MODES:
        raise OptionError(f"kernels={mode!r} is unknown; choose one of {', '.join(MODES)}")
    if mode == "on" and not mx.metal.is_available():
        raise OptionError("kernels='on' needs Metal, which this machine's MLX does not have; 'auto' does without")
    return mode if mx.metal.is_available() else "off"


def choose_kernels(
    state: DecodeState, mode: str = "auto", launch: Launch = launch_on_metal
) -> tuple[dict[int, list[str]], list[Finding]]:
    """Names of kernels by number of rows, and what was found of each.

    state: after some text, with caches of its own.
    mode: 'auto' takes those that agree and are faster, 'on' all that agree.
    """
    target, chosen, findings = state.pair.target, dict[int, list[str]](), list[Finding]()
    known, before = options(launch), target.kernels
    sizes = [n for n in SIZES if target.max_context is None or state.length + n < target.max_context]
    try:
        with tqdm(total=len(known) * len(sizes), desc="choosing kernels, once", leave=False, disable=None) as bar:
            usable = []
            for option in known:
                findings.append(check(state, option))
                if findings[-1].agrees:
                    usable.append((option, findings[-1]))
            for rows in sizes:
                chosen[rows] = []
                for option, finding in usable:
                    if mode == "on" or _is_faster(state, rows, option, finding, chosen[rows], known):
                        chosen[rows].append(option.name)
                    bar.update()
            chosen[DRAFT], finding = choose_top_k(state, mode, launch)
    finally:
        target.kernels = before
    return chosen, [*findings, finding]


def choose_top_k(state: DecodeState, mode: str, launch: Launch) -> tuple[list[str], Finding]:
    """The same for the candidates of a draft, alone: nothing else reads the drafter's logits."""
    target = state.pair.target
    hidden, _ = target.forward(mx.arange(15)[None], target.make_cache())
    logits = target.unembed(hidden[0])
    sides: dict[bool, TopKStart] = {False: start_top_k, True: partial(topk_logprobs, launch=launch)}
    finding, k = Finding(TOP_K), min(16, logits.shape[-1])
    (want_ids, want), (ids, got) = (finish_top_k(mx.array(side(logits, k)), k) for side in sides.values())
    finding.error = float(np.abs(want - got).max())
    finding.agrees = bool((want_ids == ids).all() and finding.error < 1e-3)
    seconds = _seconds({name: partial(_evaluate, side, logits, k) for name, side in sides.items()})
    finding.speedup[DRAFT] = seconds[False] / seconds[True]
    used = finding.agrees and (mode == "on" or 1 / finding.speedup[DRAFT] < FASTER)
    return [TOP_K] if used else [], finding


def _evaluate(top_k: TopKStart, logits: mx.array, k: int) -> None:
    mx.eval(top_k(logits, k))


def check(state: DecodeState, option: Option, rows: int = 13) -> Finding:
    """A verification and its commit in which the kernel and its reference compute everything that it is for."""
    finding, errors = Finding(option.name), list[tuple[mx.array, mx.Dtype]]()
    checked = {name: _checked(option.kernel[name], option.reference[name], errors) for name in option.kernel}
    try:
        verification_and_commit(state, rows, replace(MLX, **checked))
    except Exception as error:  # a kernel that does not even compile here must not stop anybody's work
        logging.getLogger(__name__).warning("kernel %s cannot run here and is not used: %s", option.name, error)
        return finding
    if errors:
        mx.eval([error for error, _ in errors])
        largest = np.array([np.asarray(error) for error, _ in errors])
        allowed = np.array([TOLERANCE[dtype] for _, dtype in errors])
        finding.error, finding.agrees = float(largest.max()), bool((largest <= allowed).all())  # no NaN is <=
        if not finding.agrees:
            logging.getLogger(__name__).warning(
                "kernel %s disagrees with MLX's operations here (relative error %.2g) and is not used; please report "
                "what `mlx_ddtree.doctor --json` says",
                *(option.name, finding.error),
            )
    return finding


def verification_and_commit(state: DecodeState, rows: int, kernels: KernelSet) -> None:
    """Of a bushy tree, undone again."""
    target = state.pair.target
    before, target.kernels = target.mark(state.target_cache), KernelChoice({rows: kernels})
    tree = bushy_tree(rows, state.root or 0)
    path = tree.path_to(rows - 1)
    try:
        verification = verify(state, tree, RoundPlan("ddtree", None, rows - 1, Sampler()))
        verification.pending.commit(path)
        mx.eval([layer.state for layer in state.target_cache], verification.features)
    finally:
        target.rewind(state.target_cache, before)


def bushy_tree(rows: int, token: int) -> DraftTree:
    """Every node has two children, as far as there are rows."""
    parents = ((np.arange(rows) - 1) // 2).astype(np.int32)
    depths = np.zeros(rows, np.int32)
    for node in range(1, rows):
        depths[node] = depths[parents[node]] + 1
    return DraftTree(np.full(rows, token, np.int32), parents, depths, np.zeros(rows, np.float32))


def _is_faster(
    state: DecodeState, rows: int, option: Option, finding: Finding, chosen: Sequence[str], known: Sequence[Option]
) -> bool:
    """Whether verifications take less time with the kernel beside those that are chosen already."""
    without = set_of(chosen, known)
    sides = {False: without, True: set_of([*chosen, option.name], known)}
    seconds = _seconds({w: partial(verification_and_commit, state, rows, kernels) for w, kernels in sides.items()})
    finding.speedup[rows] = seconds[False] / seconds[True]
    return 1 / finding.speedup[rows] < FASTER


def _seconds(sides: Mapping[bool, Callable[[], None]]) -> dict[bool, float]:
    """Medians, taken in turns so that all sides meet the same machine."""
    times: dict[bool, list[float]] = {side: [] for side in sides}
    for repeat in range(-1, REPEATS):  # the first ones compile and are not counted
        for side, run in sides.items():
            start = perf_counter()
            run()
            if repeat >= 0:
                times[side].append(perf_counter() - start)
    return {side: median(seconds) for side, seconds in times.items()}


def _checked(kernel: Any, reference: Any, errors: list[tuple[mx.array, mx.Dtype]]) -> Any:
    """A function that answers with the reference's result and notes how far the kernel's is from it; for
    DeltaKernels one of such functions."""
    if isinstance(kernel, DeltaKernels):
        names = [name for name in vars(kernel) if callable(getattr(kernel, name))]
        return replace(kernel, **{n: _checked(getattr(kernel, n), getattr(reference, n), errors) for n in names})

    def both(*args: Any, **how: Any) -> Any:
        want, got = reference(*args, **how), kernel(*args, **how)
        errors.append((difference(want, got), arrays(args[0])[0].dtype))
        return want

    return both
