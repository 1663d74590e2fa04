"""Train the demo pair's drafter in bf16 with torch: the recipe of mlx_ddtree.train, several times faster on AMX.

Usage: python train_drafter.py TARGET_DIR ANSWERS.jsonl OUT_DIR MINUTES [--layers 2] [--init DIR]

ANSWERS.jsonl is what answer_prompts.py (or mlx_ddtree.train) wrote.  Same blocks, mask, loss and
layout as mlx_ddtree/training; the differences are for speed: bf16 products, and a slot k enters the
loss with probability proportional to its weight exp(-(k - 1) / gamma) instead of being multiplied by it,
so that the head, which outweighs the drafter, computes fewer rows.  On Linux CPUs set the
variables that train_target.py names.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from train_target import CONFIG, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, Attention, Layer, Model, RMSNorm, rotate

MASK = 3
TAPS = (1, 2, 4, 6, 7)
SEQ = 1024


class Drafter(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.fc = nn.Linear(len(TAPS) * HIDDEN, HIDDEN, bias=False)
        self.hidden_norm = RMSNorm(HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.norm = RMSNorm(HIDDEN)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                out = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.02 / (math.sqrt(2 * layers) if out else 1))

    def forward(self, features: Tensor, block: Tensor, anchors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """features (S, n, taps * D), block (S, A, B, D), anchors (S, A) -> (S, A, B, D)."""
        context = self.hidden_norm(self.fc(features))
        places = anchors[..., None] + torch.arange(block.shape[2], device=block.device)
        own = (cos[places].flatten(0, 1)[:, None], sin[places].flatten(0, 1)[:, None])
        hidden_keys = torch.arange(features.shape[1], device=block.device) >= anchors[..., None]
        for layer in self.layers:
            block = block + attend(layer.self_attn, layer.input_layernorm(block), context, own, cos, sin, hidden_keys)
            block = block + layer.mlp(layer.post_attention_layernorm(block))
        return self.norm(block)


def attend(
    a: Attention, block: Tensor, context: Tensor, own: tuple[Tensor, Tensor], cos: Tensor, sin: Tensor, hidden: Tensor
) -> Tensor:
    """Each block sees its own context and itself; scores of both parts share one softmax."""
    (s, n, _), (_, count, size, _) = context.shape, block.shape

    def heads(x: Tensor, number: int, norm: nn.Module | None, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        """(N, rows, D) -> (N, number, rows, head_dim), normalised and rotated where asked."""
        x = x.view(*x.shape[:2], number, HEAD_DIM)
        x = (norm(x) if norm else x).transpose(1, 2)
        return rotate(x, *angles) if angles else x

    def grouped(x: Tensor) -> Tensor:
        """(S * A, heads, B, d) -> (S, KV heads, A, heads / KV heads * B, d)."""
        return x.reshape(s, count, KV_HEADS, -1, HEAD_DIM).transpose(1, 2)

    rows, far = block.flatten(0, 1), (cos[:n], sin[:n])
    q = grouped(heads(a.q_proj(rows), HEADS, a.q_norm, own)) * HEAD_DIM**-0.5
    k, v = grouped(heads(a.k_proj(rows), KV_HEADS, a.k_norm, own)), grouped(heads(a.v_proj(rows), KV_HEADS, None, None))
    ck, cv = heads(a.k_proj(context), KV_HEADS, a.k_norm, far), heads(a.v_proj(context), KV_HEADS, None, None)
    outside = (q.flatten(2, 3) @ ck.transpose(-1, -2)).view(s, KV_HEADS, count, -1, n)
    outside = outside.masked_fill(hidden[:, None, :, None], -math.inf)
    shares = torch.cat([outside, q @ k.transpose(-1, -2)], -1).float().softmax(-1).to(v.dtype)
    y = (shares[..., :n].flatten(2, 3) @ cv).view(q.shape) + shares[..., n:] @ v
    y = y.view(s, KV_HEADS, count, HEADS // KV_HEADS, size, HEAD_DIM).permute(0, 2, 4, 1, 3, 5)
    return a.o_proj(y.reshape(s, count, size, -1))


@torch.no_grad()
def target_features(model: Model, ids: Tensor) -> Tensor:
    x, taps = model.embed_tokens(ids), []
    for i, layer in enumerate(model.layers[: max(TAPS) + 1]):
        x = layer(x, model.cos[: ids.shape[1]], model.sin[: ids.shape[1]])
        if i in TAPS:
            taps.append(x)
    return torch.cat(taps, -1)


def batches(rows: list[tuple[list[int], int]], size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Endless epochs of `size` rows of similar length."""
    while True:
        order = sorted(rng.permutation(len(rows)).tolist(), key=lambda i: len(rows[i][0]) // 16)
        groups = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
        for i in rng.permutation(len(groups)):
            yield groups[i]


def make_batch(rows: list[tuple[list[int], int]], anchors: int, size: int, rng: np.random.Generator) -> tuple:
    """ids (S, n) padded, anchors (S, A), block ids (S, A, B), labels (S, A, L) with -1 past the end."""
    lengths = [len(ids) for ids, _ in rows]
    width = -(-max(lengths) // 64) * 64  # few shapes, so that torch.compile runs a few times only
    ids = np.zeros((len(rows), width + size), np.int64)
    for row, (tokens, _) in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    starts = np.stack([rng.integers(first - 1, len(tokens) - 1, anchors) for tokens, first in rows])
    places = starts[..., None] + np.arange(size)
    block = np.take_along_axis(ids[:, None], places, 2)
    labels = np.where(places < np.array(lengths)[:, None, None], block, -1)[..., 1:]
    block[..., 1:] = MASK
    return tuple(torch.from_numpy(x) for x in (ids[:, :width], starts, block, labels))


def evaluate(drafter: Drafter, model: Model, rows: list, size: int) -> dict:
    """Slot accuracies, and tau of the linear block, over random anchors of held-out answers."""
    rng, hits, seen, taus = np.random.default_rng(5), torch.zeros(size - 1), torch.zeros(size - 1), []
    with torch.no_grad(), torch.autocast(model.cos.device.type, torch.bfloat16):
        for i in range(0, len(rows), 16):
            ids, anchors, block, labels = (x.to(model.cos.device) for x in make_batch(rows[i : i + 16], 32, size, rng))
            hidden = drafter(target_features(model, ids), model.embed_tokens(block), anchors, model.cos, model.sin)
            right = (F.linear(hidden[:, :, 1:], model.embed_tokens.weight).argmax(-1) == labels).cpu()
            inside = labels.cpu() >= 0
            hits += (right & inside).sum((0, 1))
            seen += inside.sum((0, 1))
            taus.append(1 + right.float().cumprod(-1).sum(-1).mean().item())
    return {"accuracy": [round(x, 3) for x in (hits / seen).tolist()], "tau": round(sum(taus) / len(taus), 3)}


def save(drafter: Drafter, out: Path, size: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().to(torch.bfloat16).contiguous() for k, v in drafter.state_dict().items()}
    save_file(weights, str(out / "model.safetensors"), metadata={"format": "pt"})
    names = "hidden_size num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size hidden_act"
    shared = {name: CONFIG[name] for name in f"{names} rms_norm_eps max_position_embeddings rope_theta".split()}
    config = {
        "architectures": ["DFlashDraftModel"],
        "model_type": "qwen3",
        "dtype": "bfloat16",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "dflash_config": {"mask_token_id": MASK, "target_layer_ids": TAPS},
        "num_hidden_layers": len(drafter.layers),
        "layer_types": ["full_attention"] * len(drafter.layers),
        "block_size": size,
        "num_target_layers": CONFIG["num_hidden_layers"],
    }
    (out / "config.json").write_text(json.dumps(config | shared, indent=2) + "\n", encoding="utf-8")


def read_rows(paths: list[Path]) -> list[tuple[list[int], int]]:
    """(prompt + answer, length of the prompt) of every answer of two tokens or more."""
    records = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [(r["prompt_tokens"] + r["response_tokens"], len(r["prompt_tokens"])) for r in records]
    return [(ids[:SEQ], first) for ids, first in rows if len(ids) > first + 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("answers", type=Path, nargs="+")
    parser.add_argument("out", type=Path)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--init", type=Path, help="folder with model.safetensors to continue from")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--block-size", type=int, default=8)
    parser.add_argument("--anchors", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--gamma", type=float, default=3.0)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng, device = np.random.default_rng(args.seed), "cuda" if torch.cuda.is_available() else "cpu"
    model = Model(SEQ + 64).requires_grad_(False)
    state = load_file(str(args.target / "model.safetensors"))
    model.load_state_dict({k.removeprefix("model."): v.float() for k, v in state.items()})
    drafter = Drafter(args.layers)
    if args.init:
        drafter.load_state_dict({k: v.float() for k, v in load_file(str(args.init / "model.safetensors")).items()})
    model, drafter = model.to(device), drafter.to(device)
    rows = read_rows(args.answers)
    held, rows = rows[:128], rows[128:]
    optimizers = make_optimizers(drafter, args)
    head = model.embed_tokens.weight.to(torch.bfloat16)
    keep = torch.exp(-torch.arange(args.block_size - 1) / args.gamma).clamp(min=0.1)

    features_of, draft = torch.compile(target_features), torch.compile(drafter)

    @torch.compile(dynamic=True)
    def head_loss(hidden: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden, head).float(), labels)

    def loss_of(ids: Tensor, anchors: Tensor, block: Tensor, chosen: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            features = features_of(model, ids)
            hidden = draft(features, model.embed_tokens(block), anchors, model.cos, model.sin)[:, :, 1:]
            return head_loss(hidden.flatten(0, 2)[chosen].to(torch.bfloat16), labels)

    start, step, source = time.time(), 0, batches(rows, args.batch, rng)
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "log.jsonl", "w", encoding="utf-8") as log:
        while (progress := (time.time() - start) / (60 * args.minutes)) < 1:
            rate = min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
            ids, anchors, block, labels = make_batch(
                [rows[i] for i in next(source)], args.anchors, args.block_size, rng
            )
            chosen = ((torch.rand(labels.shape) < keep) & (labels >= 0)).flatten().nonzero()[:, 0]
            labels = labels.flatten()[chosen]
            loss = loss_of(*(x.to(device) for x in (ids, anchors, block, chosen, labels)))
            loss.backward()
            nn.utils.clip_grad_norm_(drafter.parameters(), 1.0)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * rate
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 100 == 0:
                record = {"step": step, "minutes": round((time.time() - start) / 60, 2), "loss": round(loss.item(), 4)}
                if step % 1000 == 0:
                    record |= evaluate(drafter, model, held, args.block_size)
                    save(drafter, args.out, args.block_size)
                print(json.dumps(record), file=log, flush=True)
        print(json.dumps({"step": step} | evaluate(drafter, model, held, args.block_size)), file=log)
    save(drafter, args.out, args.block_size)


def make_optimizers(drafter: Drafter, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in drafter.named_parameters() if p.dim() == 2]
    vectors = [p for n, p in drafter.named_parameters() if p.dim() != 2]
    adamw = {"betas": (0.9, 0.95), "weight_decay": 0.0, "fused": True}
    if args.optimizer == "muon":
        rest = {"params": vectors, "peak": args.lr / 5}
        hidden = {"params": matrices, "peak": args.lr}
        return [
            torch.optim.Muon([hidden], lr=args.lr, weight_decay=0.05),
            torch.optim.AdamW([rest], lr=args.lr, **adamw),
        ]
    return [torch.optim.AdamW([{"params": matrices + vectors, "peak": args.lr}], lr=args.lr, **adamw)]


if __name__ == "__main__":
    main()
