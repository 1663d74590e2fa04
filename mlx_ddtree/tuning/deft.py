"""Let a pair's verifications attend by a DeFT plan."""

from __future__ import annotations

from dataclasses import replace

from mlx_ddtree.deft.attention import BLOCK, DeftAttention
from mlx_ddtree.deft.plans import PlanKind
from mlx_ddtree.kernels.choice import MLX
from mlx_ddtree.pair import Pair
from mlx_ddtree.tuning.measure import profile_of


def use_deft(pair: Pair, kind: PlanKind = "flatten", *, block: int = BLOCK, cap: int | None = None) -> None:
    """From now on trees of any size attend by such a plan (see `make_plan`), in MLX's operations.

    Exact, and no faster by itself: for measurements, and beside the Metal kernel, which is 'flatten' on a GPU.
    """
    if pair.drafter is not None:
        profile_of(pair)  # it chooses kernels when first asked, and is not asked again
    attention, known = DeftAttention(kind, block=block, cap=cap), pair.target.kernels
    sets = known.sets or {1: MLX}
    pair.target.kernels = replace(known, sets={n: replace(kernels, attention=attention) for n, kernels in sets.items()})
