"""DFlash's forward pass straight from its definition: numpy, float64, no cache, one head at a time.

Everything is written by positions: the context's token t stands at position t, the block's slot i at
position m + i, where m is the number of context tokens.  A key is visible to a query by its position
alone.  Nothing here is shared with mlx_ddtree.drafter.
"""

from dataclasses import dataclass

import numpy as np


@dataclass
class Reference:
    """weights: the checkpoint's names -> float64 arrays; windows and causal: one entry a layer."""

    weights: dict[str, np.ndarray]
    heads: int
    kv_heads: int
    windows: list[int | None]
    causal: list[bool]
    theta: float
    eps: float
    interleaved: bool = False
    embed_scale: float = 1.0
    group_size: int = 0
    """Channels that share a correction of DFlash 2's convolutions."""

    def __call__(self, block: np.ndarray, features: np.ndarray, at: np.ndarray | None = None) -> np.ndarray:
        """block (B, D), all features so far (m, taps * D) -> (B, D); at: where tokens and slots (m + B,) stand."""
        self.at = np.arange(len(features) + len(block)) if at is None else at
        context = self.norm("hidden_norm", features @ self.weights["fc.weight"].T)
        x = block * self.embed_scale
        for layer in range(len(self.windows)):
            name = f"layers.{layer}"
            y = self.norm(f"{name}.input_layernorm", x)
            before, behind = self.kernels(f"{name}.attention_conv", y)
            x = x + convolve(self.attention(layer, convolve(y, before), context), behind)
            y = self.norm(f"{name}.post_attention_layernorm", x)
            before, behind = self.kernels(f"{name}.mlp_conv", y)
            z = convolve(y, before)
            gate, up = self.linear(f"{name}.mlp.gate_proj", z), self.linear(f"{name}.mlp.up_proj", z)
            x = x + convolve(self.linear(f"{name}.mlp.down_proj", gate / (1 + np.exp(-gate)) * up), behind)
        return self.norm("norm", x)

    def kernels(self, name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x (B, D) -> for either side of the sublayer, the weight of the t-th row back, (B, taps, D)."""
        if f"{name}.base_kernel" not in self.weights:
            return np.ones((len(x), 1, 1)), np.ones((len(x), 1, 1))
        base = self.weights[f"{name}.base_kernel"]
        change = self.linear(f"{name}.kernel_projection", x).reshape(len(x), *base.shape[:2], -1)
        change = np.repeat(change, self.group_size, axis=-1)
        return base[0] + change[:, 0], base[1] + change[:, 1]

    def edge(self, parent: int, child: int, hidden: np.ndarray) -> float:
        """DFlash 2: what `child` gains at a position with `hidden` (D,) from following `parent`."""
        books = (self.weights[f"candidate_selector.{side}_codebook.weight"] for side in ("predecessor", "successor"))
        p, s = next(books)[parent], next(books)[child]
        return float((p * self.linear("candidate_selector.hidden_projection", hidden) * s).sum())

    def attention(self, layer: int, block: np.ndarray, context: np.ndarray) -> np.ndarray:
        name = f"layers.{layer}.self_attn"
        seen = np.concatenate([context, block])
        query_at, key_at = self.at[len(context) :], self.at
        visible = self.visible(layer, query_at[:, None], key_at[None])
        out = []
        for head in range(self.heads):
            kv_head = head * self.kv_heads // self.heads
            q = self.head(f"{name}.q_proj", block, head, self.heads)
            k = self.head(f"{name}.k_proj", seen, kv_head, self.kv_heads)
            v = self.head(f"{name}.v_proj", seen, kv_head, self.kv_heads)
            q = self.rope(self.norm(f"{name}.q_norm", q), query_at)
            k = self.rope(self.norm(f"{name}.k_norm", k), key_at)
            scores = np.where(visible, q @ k.T / np.sqrt(q.shape[-1]), -np.inf)
            p = np.exp(scores - scores.max(-1, keepdims=True))
            out.append(p / p.sum(-1, keepdims=True) @ v)
        return self.linear(f"{name}.o_proj", np.concatenate(out, axis=-1))

    def visible(self, layer: int, query_at: np.ndarray, key_at: np.ndarray) -> np.ndarray:
        """A window of w holds the query's own position and the w - 1 before it, and what follows it
        in the block unless the layer is causal."""
        window, seen = self.windows[layer], np.broadcast_to(True, np.broadcast_shapes(query_at.shape, key_at.shape))
        if window is not None:
            seen = seen & (query_at - key_at < window)
        if self.causal[layer]:
            seen = seen & (key_at <= query_at)
        return seen

    def head(self, name: str, x: np.ndarray, head: int, heads: int) -> np.ndarray:
        return np.split(self.linear(name, x), heads, axis=-1)[head]

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.weights[f"{name}.weight"]

    def rope(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Pairs of numbers as points in the plane, turned by position * theta^(-2j / head_dim)."""
        half = x.shape[-1] // 2
        turn = np.exp(1j * positions[:, None] * self.theta ** (-np.arange(half) / half))
        if self.interleaved:
            turned = (x[:, 0::2] + 1j * x[:, 1::2]) * turn
            return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)
        turned = (x[:, :half] + 1j * x[:, half:]) * turn
        return np.concatenate([turned.real, turned.imag], axis=-1)


def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Row i of (B, D): the sum over t of kernel[i, t] * x[i - t], nothing before the first row."""
    out = np.zeros_like(x)
    for i in range(len(x)):
        for t in range(min(i + 1, kernel.shape[1])):
            out[i] += kernel[i, t] * x[i - t]
    return out
