"""Train the demo target: a small Qwen3-architecture language model, in bf16 on a CPU or a GPU.

Usage: python train_target.py CORPUS_DIR OUT_DIR MINUTES [--init DIR] [--mix code=2,docs=2,tasks=6]

CORPUS_DIR is what build_corpus.py wrote.  Needs torch, which the package itself does not: plain
torch trains this size about five times faster on a CPU than MLX does.  On Linux CPUs set
  MALLOC_MMAP_THRESHOLD_=34359738368 MALLOC_TRIM_THRESHOLD_=34359738368 MALLOC_TOP_PAD_=1073741824
or page faults make it ten times slower.  Writes OUT_DIR in the Hugging Face layout that
mlx_lm.load reads, without the tokenizer, and a log, log.jsonl.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 10,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 8192,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 2,
}
HEAD_DIM = CONFIG["head_dim"]


class RMSNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), CONFIG["rms_norm_eps"])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        hidden = CONFIG["hidden_size"]
        self.heads, self.kv_heads = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]
        self.q_proj = nn.Linear(hidden, self.heads * HEAD_DIM, bias=False)
        self.k_proj = nn.Linear(hidden, self.kv_heads * HEAD_DIM, bias=False)
        self.v_proj = nn.Linear(hidden, self.kv_heads * HEAD_DIM, bias=False)
        self.o_proj = nn.Linear(self.heads * HEAD_DIM, hidden, bias=False)
        self.q_norm, self.k_norm = RMSNorm(HEAD_DIM), RMSNorm(HEAD_DIM)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(b, t, self.heads, HEAD_DIM)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(b, t, self.kv_heads, HEAD_DIM)).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.kv_heads, HEAD_DIM).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (a.repeat_interleave(self.heads // self.kv_heads, 1) for a in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(), MLP()
        hidden = CONFIG["hidden_size"]
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(hidden), RMSNorm(hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Model(nn.Module):
    def __init__(self, seq: int) -> None:
        super().__init__()
        layers = CONFIG["num_hidden_layers"]
        self.embed_tokens = nn.Embedding(CONFIG["vocab_size"], CONFIG["hidden_size"])
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.norm = RMSNorm(CONFIG["hidden_size"])
        for name, p in self.named_parameters():
            if p.dim() == 2:
                out = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.02 / (math.sqrt(2 * layers) if out else 1))
        half = HEAD_DIM // 2
        angle = torch.arange(seq)[:, None] * CONFIG["rope_theta"] ** (-torch.arange(half) / half)[None]
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return F.linear(self.norm(x), self.embed_tokens.weight)


class Corpus:
    """Random windows of `seq` tokens, or whole rows, each from one of the streams, chosen by weight."""

    def __init__(self, folder: Path, mix: dict[str, float], seq: int, seed: int) -> None:
        self.seq, self.rng = seq, np.random.default_rng(seed)
        self.names, self.weights = list(mix), np.array(list(mix.values())) / sum(mix.values())
        self.data = {(n, p): np.load(folder / f"{n}.{p}.npy") for n in mix for p in ("train", "heldout")}

    def windows(self, part: str, count: int, name: str | None = None) -> Tensor:
        rows = []
        for _ in range(count):
            stream = self.data[name or self.rng.choice(self.names, p=self.weights), part]
            if stream.ndim == 2:  # rows that are to stay whole
                rows.append(stream[self.rng.integers(len(stream)), : self.seq + 1].astype(np.int64))
                continue
            start = self.rng.integers(0, len(stream) - self.seq - 1)
            rows.append(stream[start : start + self.seq + 1].astype(np.int64))
        return torch.from_numpy(np.stack(rows))


def loss_of(forward: nn.Module, window: Tensor) -> Tensor:
    with torch.autocast(window.device.type, torch.bfloat16):
        logits = forward(window[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), window[:, 1:].flatten())


def save(model: Model, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    weights = {f"model.{k}": v.detach().to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    save_file(weights, str(out / "model.safetensors"), metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(CONFIG, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--init", type=Path, help="folder with model.safetensors to continue from")
    parser.add_argument("--config", type=json.loads, default={}, help='other sizes, e.g. {"num_hidden_layers": 3}')
    parser.add_argument("--mix", default="code=2,docs=2,tasks=6")
    parser.add_argument("--lr", type=float, default=0.01, help="Muon's; AdamW on the rest gets a tenth")
    parser.add_argument("--final-lr", type=float, default=0.02, help="share of the rate that is left at the end")
    parser.add_argument("--seq", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    CONFIG.update(args.config)
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mix = {k: float(v) for k, v in (item.split("=") for item in args.mix.split(","))}
    corpus = Corpus(args.corpus, mix, args.seq, args.seed)
    model = Model(args.seq).to(device)
    if args.init:
        state = load_file(str(args.init / "model.safetensors"))
        model.load_state_dict({k.removeprefix("model."): v.float() for k, v in state.items()})
    hidden = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(hidden, lr=args.lr, weight_decay=0.05),
        torch.optim.AdamW(rest, lr=args.lr / 10, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    forward = torch.compile(model)
    start, step = time.time(), 0
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "log.jsonl", "w", encoding="utf-8") as log:
        while (progress := (time.time() - start) / (60 * args.minutes)) < 1:
            decay = args.final_lr + (1 - args.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))
            for optimizer, lr in zip(optimizers, (args.lr, args.lr / 10), strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = lr * min(1, (step + 1) / 100) * decay
            loss = loss_of(forward, corpus.windows("train", args.batch).to(device))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 20 == 0:
                row = {"step": step, "tokens": step * args.batch * args.seq, "loss": round(loss.item(), 4)}
                row["minutes"] = round((time.time() - start) / 60, 2)
                if step % 200 == 0:
                    with torch.no_grad():
                        for name in mix:
                            window = corpus.windows("heldout", args.batch, name).to(device)
                            row[f"heldout_{name}"] = round(loss_of(forward, window).item(), 4)
                    save(model, args.out)
                print(row, flush=True)
                log.write(json.dumps(row) + "\n")
    save(model, args.out)


if __name__ == "__main__":
    main()
