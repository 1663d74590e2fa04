"""Every public layout's drafter straight from its formulas: numpy, float64, no cache, public tensor names.

Nothing here is shared with mlx_ddtree.drafter.  Positions: the context's token t stands at t, the block's row i at m + i.
"""

import numpy as np

from .layouts import HEAD_DIM, HEADS, LAYERS, MASK, TAPS, Layout


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class LayoutReference:
    """weights: public names -> float64.  embedding, head: the target's (V, D), for layouts without their own."""

    def __init__(self, layout: Layout, weights, embedding, head, eps, target_embed_scale=1.0):
        self.facts, self.eps = layout.facts, eps
        self.w = {name.removeprefix("logit_head."): value for name, value in weights.items()}
        self.embedding = self.w.get("embed_tokens.weight", embedding)
        self.head = self.w.get("lm_head.weight", head)
        self.target_embedding = embedding

    # The backbone.

    def hidden(self, root, features):
        """The root's token, features (m, taps * D) -> all rows of the block, (rows, D) normalised."""
        facts = self.facts
        x = self.embedding[[root] + [MASK] * (facts.rows - 1)] * facts.embed_scale
        if "log_snr_embed.fc1.weight" in self.w:
            x = x + self.levels()
        for i in range(LAYERS):
            at = f"layers.{i}"
            y = self.attention(i, self.norm(f"{at}.input_layernorm", x), self.context(i, features))
            if facts.gemma:
                x = x + self.norm(f"{at}.post_attention_layernorm", y)
                y = self.mlp(at, self.norm(f"{at}.pre_feedforward_layernorm", x), gelu_tanh)
                x = (x + self.norm(f"{at}.post_feedforward_layernorm", y)) * self.w[f"{at}.layer_scalar"]
            else:
                x = x + y
                x = x + self.mlp(at, self.norm(f"{at}.post_attention_layernorm", x), silu)
        return self.norm("norm", x)

    def levels(self):
        """Bonsai: the root is clean (t = 1000), masks are noise (t = 0)."""
        t = np.where(np.arange(self.facts.rows) == 0, 1000.0, 0.0)[:, None]
        angle = t * 10000.0 ** (-np.arange(64) / 64)
        return self.linear(
            "log_snr_embed.fc2", silu(self.linear("log_snr_embed.fc1", np.hstack([np.sin(angle), np.cos(angle)])))
        )

    def context(self, i, features):
        taps = np.split(features, len(TAPS), axis=-1)
        if "layer_fusion_weights" in self.w:  # DFlare
            shares = softmax(self.w["layer_fusion_weights"])[i]
            return self.norm("hidden_norm", sum(share * tap for share, tap in zip(shares, taps, strict=True)))
        if "aux_hidden_norms.0.weight" in self.w:  # Laguna
            joined = np.hstack([self.norm(f"aux_hidden_norms.{t}", tap) for t, tap in enumerate(taps)])
            return self.norm(f"layers.{i}.input_layernorm", self.norm("hidden_norm", joined @ self.w["fc.weight"].T))
        return self.norm("hidden_norm", features @ self.w["fc.weight"].T)

    def mlp(self, at, x, act):
        gate, up = self.linear(f"{at}.mlp.gate_proj", x), self.linear(f"{at}.mlp.up_proj", x)
        return self.linear(f"{at}.mlp.down_proj", act(gate) * up)

    def attention(self, i, block, context):
        facts, at = self.facts, f"layers.{i}.self_attn"
        m, rows = len(context), len(block)
        key_at = np.arange(m + rows)
        query_at = key_at[m:]
        seen = np.ones((rows, m + rows), bool)
        if facts.windows[i] is not None:
            seen &= query_at[:, None] - key_at < facts.windows[i]
        if facts.causal[i]:
            seen &= key_at <= query_at[:, None]
        queries, gates = self.queries(at, block)
        keys, values = self.keys_values(at, block, context)
        out = []
        for h in range(HEADS):
            kv = h * facts.kv_heads // HEADS
            q = self.rope(self.norm(f"{at}.q_norm", queries[:, h]), query_at)
            k = self.rope(self.norm(f"{at}.k_norm", keys[:, kv]), key_at)
            v = values[:, kv] * facts.value_scale
            if facts.gemma:
                v = v / np.sqrt((v * v).mean(-1, keepdims=True) + self.eps)
            scores = np.where(seen, q @ k.T * (1.0 if facts.gemma else HEAD_DIM**-0.5), -np.inf)
            if f"{at}.attention_sink_bias" in self.w:  # one more column, without a value
                sink = np.full((rows, 1), self.w[f"{at}.attention_sink_bias"][h])
                shares = softmax(np.hstack([scores, sink]))[:, :-1]
            else:
                shares = softmax(scores)
            out.append(shares @ v * gates[:, h])
        return self.linear(f"{at}.o_proj", np.hstack(out))

    def queries(self, at, block):
        """(rows, HEADS, HEAD_DIM), and what multiplies each head's output, (rows, HEADS, 1 or HEAD_DIM)."""
        ones = np.ones((len(block), HEADS, 1))
        if f"{at}.g_proj.weight" in self.w:  # Laguna: log(1 + e^g), one a head
            ones = np.log1p(np.exp(self.linear(f"{at}.g_proj", block)))[..., None]
        if f"{at}.qkv_proj.weight" in self.w:
            return (block @ self.fused(at, 0).T).reshape(len(block), HEADS, HEAD_DIM), ones
        queries = self.linear(f"{at}.q_proj", block).reshape(len(block), HEADS, -1)
        if queries.shape[-1] == 2 * HEAD_DIM:  # Qwen3.5: a head's gate stands behind its query
            return queries[..., :HEAD_DIM], sigmoid(queries[..., HEAD_DIM:])
        return queries, ones

    def keys_values(self, at, block, context):
        """(m + rows, kv_heads, HEAD_DIM) each."""
        if f"{at}.qkv_proj.weight" in self.w:
            rows = np.vstack([context, block])
            both = [rows @ self.fused(at, part).T for part in (1, 2)]
        elif f"{at}.k_proj_target.weight" in self.w:
            both = [
                np.vstack([self.linear(f"{at}.{s}_proj_target", context), self.linear(f"{at}.{s}_proj", block)])
                for s in "kv"
            ]
        else:
            rows = np.vstack([context, block])
            keys = self.linear(f"{at}.k_proj", rows)
            both = [keys, self.linear(f"{at}.v_proj", rows) if f"{at}.v_proj.weight" in self.w else keys]
        return [x.reshape(len(x), self.facts.kv_heads, HEAD_DIM) for x in both]

    def fused(self, at, part):
        sizes = [HEADS * HEAD_DIM, self.facts.kv_heads * HEAD_DIM]
        return np.split(self.w[f"{at}.qkv_proj.weight"], np.cumsum(sizes))[part]

    def rope(self, x, positions):
        """Pairs as complex numbers, turned by position * theta^(-2 j / channels)."""
        facts = self.facts
        if facts.interleaved:
            turn = np.exp(1j * positions[:, None] * facts.theta ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM))
            turned = (x[:, 0::2] + 1j * x[:, 1::2]) * turn
            return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)
        # Gemma's proportional RoPE turns the first pairs of the whole head, Qwen3.5's a head of rope_dims channels.
        width = HEAD_DIM if facts.gemma else facts.rope_dims
        speed = facts.theta ** (-np.arange(0, width, 2) / width)
        speed[facts.rope_dims // 2 :] = 0.0
        part, half = x[:, :width], width // 2
        turned = (part[:, :half] + 1j * part[:, half:]) * np.exp(1j * positions[:, None] * speed)
        return np.hstack([turned.real, turned.imag, x[:, width:]])

    # What stands on it.

    def logits(self, hidden):
        """(..., D) -> (..., tokens of the drafter's own vocabulary)."""
        logits = hidden @ self.head.T
        cap = self.facts.softcap
        return logits if cap is None else cap * np.tanh(logits / cap)

    def target_id(self, draft_id):
        return draft_id + int(self.w["d2t"][draft_id]) if "d2t" in self.w else draft_id

    def corrections(self, path, hidden):
        """path: the root and tokens behind it; hidden: (len(path), D), of the positions behind each of them.

        Returns what the head adds to each position's logits, (len(path), tokens).
        """
        facts, out = self.facts, []
        state = np.zeros(7 if facts.head == "domino" else len(self.w["markov_head.markov_w1.weight"][0]))
        for depth, (token, h) in enumerate(zip(path, hidden, strict=True)):
            if facts.head == "domino":
                state = self.gru(state, self.target_embedding[token])
                feature = silu(self.w["embed_proj.0.weight"] @ np.hstack([h, state]))
                out.append(self.w["embed_proj.2.weight"] @ feature * (depth >= facts.uncorrected))
                continue
            e = self.w["markov_head.markov_w1.weight"][token]
            if facts.head == "gated":
                e = sigmoid(self.linear("markov_head.gate_proj", np.hstack([h, e]))) * e
            if facts.head == "rnn":
                g, c, o = np.split(self.linear("markov_head.joint_proj", np.hstack([state, e, h])), 3)
                state, e = sigmoid(g) * state + (1 - sigmoid(g)) * np.tanh(c), np.tanh(o)
            out.append(self.w["markov_head.markov_w2.weight"] @ e)
        return np.array(out)

    def gru(self, state, x):
        """PyTorch's GRU, gates in the order reset, update, new."""
        r_x, z_x, n_x = np.split(self.w["prefix_gru.weight_ih_l0"] @ x, 3)
        r_s, z_s, n_s = np.split(self.w["prefix_gru.weight_hh_l0"] @ state, 3)
        z = sigmoid(z_x + z_s)
        return (1 - z) * np.tanh(n_x + sigmoid(r_x + r_s) * n_s) + z * state

    def log_probs(self, path, hidden):
        """Of every token after each of the path's, (len(path), tokens); hidden as `corrections` takes it."""
        logits = self.logits(hidden)
        if self.facts.head is not None:
            logits = logits + self.corrections(path, hidden)
        top = logits.max(-1, keepdims=True)
        return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))

    def greedy(self, root, hidden):
        """The published draft at temperature 0: argmax, token after token, by the target's ids."""
        rows = hidden[self.facts.start :]
        path = [root]
        for depth in range(len(rows)):
            best = int(self.log_probs(path, rows[: depth + 1])[-1].argmax())
            path.append(self.target_id(best))
        return path[1:]

    def confidence(self, path, hidden):
        """P(accepted) at each position, given that all before it were: sigmoid of a linear function of h and e."""
        e = self.w["markov_head.markov_w1.weight"][path]
        return sigmoid(self.linear("confidence_head.proj", np.hstack([hidden, e]))[:, 0])

    def linear(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0.0)

    def norm(self, name, x):
        weight = self.w[f"{name}.weight"] + self.facts.norm_offset
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * weight
