"""Which kernels verifications use on this machine: those that agree with MLX's operations and make rounds faster.

A kernel that wins alone can still lose in a whole verification, so whole verifications are what is timed, with
the commit that follows.  What is checked are the very arrays of such a verification: the kernel and its
reference get the same ones, layer by layer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
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
from mlx_ddtree.tuning.sample_trees import bushy_tree
from mlx_ddtree.tuning.stopwatch import fastest

MODES = ("auto", "on", "off")
SIZES = (4, 8, 16, 32)
"""Rows that are timed; a verification uses what was chosen for the next larger one."""
CHECKED = (*SIZES, 13, 48, 128)
"""Rows at which kernels must agree: other numbers of rows compile other variants, and all can be launched later."""
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
                    if finding.agrees and (
                        mode == "on" or _is_faster(state, rows, option, finding, chosen[rows], known)
                    ):
                        chosen[rows].append(option.name)
                    bar.update()
            failed = {finding.name for finding in findings if not finding.agrees}
            for rows in sizes:  # also the sizes that were decided before a kernel failed at a larger one
                chosen[rows] = [name for name in chosen[rows] if name not in failed]
            chosen[DRAFT], finding = choose_top_k(state, mode, launch)
    finally:
        target.kernels = before
    return chosen, [*findings, finding]


def choose_top_k(state: DecodeState, mode: str, launch: Launch) -> tuple[list[str], Finding]:
    """Whether a draft's candidates come from the kernel, timed alone: nothing else reads the drafter's logits."""
    finding = Finding(TOP_K)
    try:
        used = _examine_top_k(state, mode, launch, finding)
    except Exception as error:  # whatever the compiler or the driver raises
        _drop(finding, error)
        return [], finding
    return [TOP_K] if used else [], finding


def _examine_top_k(state: DecodeState, mode: str, launch: Launch, finding: Finding) -> bool:
    target = state.pair.target
    hidden, _ = target.forward(mx.arange(15)[None], target.make_cache())
    logits = target.unembed(hidden[0])
    k = min(16, logits.shape[-1])
    kernel = partial(topk_logprobs, launch=launch)
    want_ids, want = finish_top_k(mx.array(start_top_k(logits, k)), k)
    ids, got = finish_top_k(mx.array(kernel(logits, k)), k)
    finding.error = float(np.abs(want - got).max())
    finding.agrees = bool((want_ids == ids).all() and finding.error < 1e-3)
    if not finding.agrees:
        return False
    sides = {False: partial(_evaluate, start_top_k, logits, k), True: partial(_evaluate, kernel, logits, k)}
    seconds = fastest(sides)
    finding.speedup[DRAFT] = seconds[False] / seconds[True]
    return mode == "on" or 1 / finding.speedup[DRAFT] < FASTER


def _drop(finding: Finding, error: Exception) -> None:
    """A kernel that cannot run here stops nobody's work: one line, and MLX's operations take its place."""
    finding.agrees = False
    first = (str(error).splitlines() or [type(error).__name__])[0]
    logging.getLogger(__name__).warning("kernel %s cannot run here and is not used: %s", finding.name, first)


def _evaluate(top_k: TopKStart, logits: mx.array, k: int) -> None:
    mx.eval(top_k(logits, k))


def check(state: DecodeState, option: Option) -> Finding:
    """Verifications and commits of every variant, in which the kernel and its reference compute all that it is for."""
    finding = Finding(option.name)
    limit = state.pair.target.max_context
    for rows in sorted(n for n in CHECKED if limit is None or state.length + n < limit):
        try:
            error, agrees = _agreement(state, option, rows)
        except Exception as failed:  # a variant that does not even compile here
            _drop(finding, failed)
            return finding
        if error is None:
            continue
        finding.error = max(error, finding.error or 0.0)
        finding.agrees = agrees
        if not agrees:
            logging.getLogger(__name__).warning(
                "kernel %s disagrees with MLX's operations at %d rows here (relative error %.2g) and is not used; "
                "please report what `mlx_ddtree.doctor --json` says",
                *(option.name, rows, error),
            )
            return finding
    return finding


def _agreement(state: DecodeState, option: Option, rows: int) -> tuple[float | None, bool]:
    """The kernel's largest error against its reference, None where the model never called it; whether that is rounding.

    Kernel and reference get the very arrays of a verification, layer by layer.
    """
    errors = list[tuple[mx.array, mx.Dtype]]()
    checked = {name: _checked(option.kernel[name], option.reference[name], errors) for name in option.kernel}
    verification_and_commit(state, rows, replace(MLX, **checked))
    if not errors:
        return None, False
    mx.eval([error for error, _ in errors])
    largest = np.array([np.asarray(error) for error, _ in errors])
    allowed = np.array([TOLERANCE[dtype] for _, dtype in errors])
    return float(largest.max()), bool((largest <= allowed).all())  # no NaN is <=


def verification_and_commit(state: DecodeState, rows: int, kernels: KernelSet) -> None:
    """Verify a bushy tree and commit the path to its last node, undone again."""
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


def _is_faster(
    state: DecodeState, rows: int, option: Option, finding: Finding, chosen: Sequence[str], known: Sequence[Option]
) -> bool:
    """Whether verifications take less time with the kernel beside those that are chosen already."""
    without = set_of(chosen, known)
    sides = {False: without, True: set_of([*chosen, option.name], known)}
    try:
        seconds = fastest({w: partial(verification_and_commit, state, rows, kernels) for w, kernels in sides.items()})
    except Exception as error:
        _drop(finding, error)
        return False
    finding.speedup[rows] = seconds[False] / seconds[True]
    return 1 / finding.speedup[rows] < FASTER


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
