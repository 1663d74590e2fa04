"""Gated delta layers (qwen3_next, qwen3_5) under a draft tree."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import qwen3_5, qwen3_next
from mlx_lm.models.gated_delta import normalize_qk

from mlx_ddtree.target.views import StateView

Projected = tuple[mx.array, mx.array, mx.array, mx.array]
"""(1, N, C) queries, keys and values before the convolution; z (1, N, Hv, Dv); b and a (1, N, Hv)."""


class _TreeDelta:
    """Mixed into one instance of mlx-lm's module: with a StateView for a cache it runs the tree's form, else
    the module's own code."""

    closed_form = True

    def __call__(self: Any, inputs: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
        if not isinstance(cache, StateView):
            return super().__call__(inputs, mask, cache)  # type: ignore[misc]
        count = inputs.shape[1]
        kernels = cache.kernels
        # 1. Projections, as in the module's own code.
        projected, z, b, a = self._project(inputs)
        # 2. The convolution along every row's own path, behind the window that the context has left.
        window, state = _initial(self, cache.base, projected)
        table = cache.rows.conv_table(self.conv_kernel_size)
        queries, keys, values = kernels.tree_conv_qkv(projected, window, self.conv1d.weight, table, self.key_dim)
        queries = queries.reshape(1, count, self.num_k_heads, self.head_k_dim)
        keys = keys.reshape(1, count, self.num_k_heads, self.head_k_dim)
        values = values.reshape(1, count, self.num_v_heads, self.head_v_dim)
        queries, keys = normalize_qk(queries, keys, inv_scale=self.head_k_dim**-0.5, eps=1e-6)
        # 3. The recurrence of all paths at once, from the context's state, which stays as it is.
        log_gates = -mx.exp(self.A_log.astype(mx.float32)) * nn.softplus(a + self.dt_bias)
        ancestors = cache.rows.bits.words if kernels.packed_ancestors else cache.rows.ancestors
        out, delta = kernels.tree_gated_delta(queries, keys, values, log_gates, mx.sigmoid(b), state, ancestors)
        cache.waiting = projected, delta
        # 4. The output, as in the module's own code.
        out = self.out_proj(self.norm(out, z).reshape(1, count, -1))
        group = getattr(self, "sharding_group", None)
        return out if group is None else mx.distributed.all_sum(out, group=group)


def _initial(module: Any, base: Any, projected: mx.array) -> tuple[mx.array, mx.array]:
    """The convolution's window and the state; zeros, put into the cache, where there is no context yet."""
    if base[0] is None:
        base[0] = mx.zeros((1, module.conv_kernel_size - 1, projected.shape[-1]), projected.dtype)
    if base[1] is None:
        base[1] = mx.zeros((1, module.num_v_heads, module.head_v_dim, module.head_k_dim), mx.float32)
    return base[0], base[1]


class _TreeQwen35(_TreeDelta, qwen3_5.GatedDeltaNet):
    def _project(self, inputs: mx.array) -> Projected:
        z = self.in_proj_z(inputs).reshape(*inputs.shape[:2], self.num_v_heads, self.head_v_dim)
        return self.in_proj_qkv(inputs), z, self.in_proj_b(inputs), self.in_proj_a(inputs)


class _TreeQwen3Next(_TreeDelta, qwen3_next.Qwen3NextGatedDeltaNet):
    def _project(self, inputs: mx.array) -> Projected:
        ordered = self.fix_query_key_value_ordering(self.in_proj_qkvz(inputs), self.in_proj_ba(inputs))
        queries, keys, values, z, b, a = ordered
        flat = [x.reshape(*inputs.shape[:2], -1) for x in (queries, keys, values)]
        return mx.concatenate(flat, axis=-1), z, b, a


_TREE_CLASSES: dict[type, type[Any]] = {
    qwen3_5.GatedDeltaNet: _TreeQwen35,
    qwen3_next.Qwen3NextGatedDeltaNet: _TreeQwen3Next,
}


def adapt_gated_delta(module: nn.Module) -> None:
    """Let this instance take StateViews; modules of other classes stay as they are."""
    module.__class__ = _TREE_CLASSES.get(type(module), type(module))
