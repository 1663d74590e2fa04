"""The DFlash drafter in plain numpy (float64), from its description: DESIGN terms, no caches, no MLX.

Everything is recomputed from the features of all committed tokens every time.
"""

import numpy as np


def rms_norm(x, weight, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def rotate(x, positions, theta):
    """x (n, heads, d): rotates the pairs (i, i + d/2) by position * theta^(-2i/d)."""
    half = x.shape[-1] // 2
    angle = positions[:, None, None] * theta ** (-np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], -1)


def attention(w, prefix, config, layer, block, context):
    """block (B, D) and context (P, D) rows, normalised; the block stands at positions P..P+B-1."""
    heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    total = len(context) + len(block)
    positions = np.arange(total)

    def project(name, rows, count):
        out = rows @ w[f"{prefix}.{name}.weight"].T + w.get(f"{prefix}.{name}.bias", 0.0)
        return out.reshape(len(rows), count, dim)

    rows = np.concatenate([context, block])
    queries = rms_norm(project("q_proj", block, heads), w[f"{prefix}.q_norm.weight"], config.rms_norm_eps)
    keys = rms_norm(project("k_proj", rows, kv_heads), w[f"{prefix}.k_norm.weight"], config.rms_norm_eps)
    values = project("v_proj", rows, kv_heads)
    queries = rotate(queries, positions[len(context) :], config.rope_theta)
    keys = rotate(keys, positions, config.rope_theta)
    out = np.zeros_like(queries)
    for i in range(len(block)):
        query = len(context) + i
        visible = np.ones(total, bool)
        if config.causal[layer]:
            visible &= positions <= query
        if config.windows[layer] is not None:
            visible &= positions > query - config.windows[layer]
        for head in range(heads):
            group = head * kv_heads // heads
            scores = keys[visible, group] @ queries[i, head] / np.sqrt(dim)
            weights = np.exp(scores - scores.max())
            out[i, head] = weights / weights.sum() @ values[visible, group]
    flat = out.reshape(len(block), -1)
    return flat @ w[f"{prefix}.o_proj.weight"].T + w.get(f"{prefix}.o_proj.bias", 0.0)


def draft_hidden(w, config, embeddings, features):
    """embeddings (B, D) of [bonus, MASK, ...]; features (P, taps * D) of all committed tokens before."""
    context = rms_norm(features @ w["fc.weight"].T, w["hidden_norm.weight"], config.rms_norm_eps)
    hidden = embeddings * config.embed_scale
    for layer in range(config.num_hidden_layers):
        name = f"layers.{layer}"
        normed = rms_norm(hidden, w[f"{name}.input_layernorm.weight"], config.rms_norm_eps)
        hidden = hidden + attention(w, f"{name}.self_attn", config, layer, normed, context)
        normed = rms_norm(hidden, w[f"{name}.post_attention_layernorm.weight"], config.rms_norm_eps)
        gate = normed @ w[f"{name}.mlp.gate_proj.weight"].T
        up = normed @ w[f"{name}.mlp.up_proj.weight"].T
        hidden = hidden + (gate / (1 + np.exp(-gate)) * up) @ w[f"{name}.mlp.down_proj.weight"].T
    return rms_norm(hidden, w["norm.weight"], config.rms_norm_eps)
