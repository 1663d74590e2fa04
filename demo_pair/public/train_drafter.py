"""Train SmolLM2-135M-Instruct's drafter in bf16 with torch: the recipe of mlx_ddtree.train, faster where a CPU has AMX.

Usage: python train_drafter.py ANSWERS_DIR HELD_OUT_DIR TARGET_DIR START_DIR OUT_DIR MINUTES

ANSWERS_DIR and HELD_OUT_DIR are what answer_prompts.py wrote: answers with the target's tapped layers and final hidden
states; answers that arrive while this runs are learnt too.  START_DIR has a drafter to start from (its config.json says
the shape), such as `mlx_ddtree.train` saves before its first step.  A run that was stopped goes on from OUT_DIR.
Minutes are the processor's, of steps; one core takes about 500 anchors a second with AMX.
"""

import argparse
import json
import math
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FREQUENT, TAIL = 4096, 512


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    def __init__(self, c: dict) -> None:
        super().__init__()
        width, self.dim = c["hidden_size"], c["head_dim"]
        self.heads, self.kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        self.q_proj = nn.Linear(width, self.heads * self.dim, bias=False)
        self.k_proj = nn.Linear(width, self.kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(width, self.kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.dim, width, bias=False)
        self.q_norm = RMSNorm(self.dim, c["rms_norm_eps"])
        self.k_norm = RMSNorm(self.dim, c["rms_norm_eps"])

    def heads_of(self, x: Tensor, number: int) -> Tensor:
        return x.view(*x.shape[:2], number, self.dim).transpose(1, 2)

    def rotate(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        return x * angles[0] + torch.roll(x, self.dim // 2, -1) * angles[1]

    def keys_values(self, rows: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """(N, n, D) -> (N, KV heads, n, head_dim), twice."""
        keys = self.rotate(self.k_norm(self.heads_of(self.k_proj(rows), self.kv_heads)), angles)
        return keys, self.heads_of(self.v_proj(rows), self.kv_heads)

    def forward(self, rows: Tensor, context: tuple, angles: tuple, unseen: Tensor) -> Tensor:
        """Each block sees its own context and itself; scores of both parts share one softmax."""
        (s, count, n), size, dim = unseen.shape, rows.shape[1], self.dim

        def grouped(x: Tensor) -> Tensor:
            return x.reshape(s, count, self.kv_heads, -1, dim).transpose(1, 2)

        queries = self.rotate(self.q_norm(self.heads_of(self.q_proj(rows), self.heads)), angles)
        q = grouped(queries) * dim**-0.5
        k, v = map(grouped, self.keys_values(rows, angles))
        ck, cv = context
        outside = (q.flatten(2, 3) @ ck.transpose(-1, -2)).view(s, self.kv_heads, count, -1, n)
        outside = outside.masked_fill(unseen[:, None, :, None], -math.inf)
        shares = torch.cat([outside, q @ k.transpose(-1, -2)], -1).softmax(-1)
        y = (shares[..., :n].flatten(2, 3) @ cv).view(q.shape) + shares[..., n:] @ v
        y = y.view(s, self.kv_heads, count, self.heads // self.kv_heads, size, dim).permute(0, 2, 4, 1, 3, 5)
        return self.o_proj(y.reshape(s * count, size, -1))


class MLP(nn.Module):
    def __init__(self, c: dict) -> None:
        super().__init__()
        width, inner = c["hidden_size"], c["intermediate_size"]
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c: dict) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(c), MLP(c)
        self.input_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.post_attention_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])


class Drafter(nn.Module):
    """As mlx_ddtree/drafter/model.py, over features that are divided by their channels' rms."""

    def __init__(self, c: dict) -> None:
        super().__init__()
        taps = len(c["dflash_config"]["target_layer_ids"])
        self.fc = nn.Linear(taps * c["hidden_size"], c["hidden_size"], bias=False)
        self.hidden_norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        half = c["head_dim"] // 2
        angle = torch.arange(4096)[:, None] * c["rope_theta"] ** (-torch.arange(half) / half)[None]
        self.register_buffer("cos", torch.cat([angle.cos(), angle.cos()], -1).bfloat16(), persistent=False)
        self.register_buffer("sin", torch.cat([-angle.sin(), angle.sin()], -1).bfloat16(), persistent=False)

    def context(self, features: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Features (S, n, taps * D) -> every layer's keys and values (S, KV heads, n, head_dim)."""
        rows = self.hidden_norm(self.fc(features))
        far = self.cos[: rows.shape[1]], self.sin[: rows.shape[1]]
        return [layer.self_attn.keys_values(rows, far) for layer in self.layers]

    def forward(self, context: list, block: Tensor, anchors: Tensor) -> Tensor:
        """context as above, block (S, A, B, D), anchors (S, A) -> (S, A, B, D)."""
        places = anchors[..., None] + torch.arange(block.shape[2])
        angles = self.cos[places].flatten(0, 1)[:, None], self.sin[places].flatten(0, 1)[:, None]
        unseen = torch.arange(context[0][0].shape[2]) >= anchors[..., None]
        for layer, seen in zip(self.layers, context, strict=True):
            rows = block.flatten(0, 1)
            added = layer.self_attn(layer.input_layernorm(rows.bfloat16()), seen, angles, unseen)
            block = block + added.view(block.shape)
            block = block + layer.mlp(layer.post_attention_layernorm(block.bfloat16()))
        return self.norm(block.bfloat16())


class HeadLoss(torch.autograd.Function):
    """Mean over rows of half the cross-entropy against labels and half of that against the target's own softmax."""

    @staticmethod
    def forward(ctx, hidden, head, bias, labels, target, soft):  # type: ignore[no-untyped-def]
        share = torch.softmax((hidden @ head.T).float() + bias, -1)
        # log of the softmax at the label and under the target's distribution
        rows = torch.arange(len(labels))
        hard = -share[rows, labels].clamp_min(1e-30).log()
        gradient = share.bfloat16()
        gradient.sub_(target, alpha=soft)
        gradient[rows, labels] -= 1 - soft
        ctx.save_for_backward((gradient @ head) / len(labels))
        return hard.mean()

    @staticmethod
    def backward(ctx, out):  # type: ignore[no-untyped-def]
        return ctx.saved_tensors[0] * out, None, None, None, None, None


class Answers:
    """Sequences with features, in the order in which they were written; `look` finds those that came since."""

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        self.rows: list[tuple[list[int], int, Path, int]] = []  # tokens, first token of the answer, file, first row
        self.known = 0

    def look(self) -> None:
        files: dict[str, int] = {}
        self.rows = []
        for log in sorted(self.folder.glob("answers.*.jsonl")):
            for line in log.read_text().splitlines():
                row = json.loads(line)
                first = files.get(row["file"], 0)
                files[row["file"]] = first + row["rows"]
                tokens = row["prompt_tokens"] + row["tokens"]
                if len(row["tokens"]) >= 3:
                    self.rows.append((tokens, len(row["prompt_tokens"]), self.folder / row["file"], first))

    def features(self, index: int) -> np.ndarray:
        tokens, _, file, first = self.rows[index]
        return np.load(file, mmap_mode="r")[first : first + len(tokens) - 1]


def make_batch(answers: Answers, which: list[int], anchors: int, size: int, mask: int, rng) -> dict:
    """Padded features (S, n, F), anchors (S, A), blocks (S, A, B), labels (S, A, L), -1 past the end."""
    rows = [answers.rows[i] for i in which]
    lengths = np.array([len(tokens) for tokens, *_ in rows])
    n = lengths.max() - 1
    features = np.zeros((len(rows), n, answers.width), np.float16)
    ids = np.zeros((len(rows), n + 1 + size), np.int64)
    starts = []
    for k, (i, (tokens, first, *_)) in enumerate(zip(which, rows, strict=True)):
        features[k, : len(tokens) - 1] = answers.features(i)
        ids[k, : len(tokens)] = tokens
        places = np.arange(first - 1, len(tokens) - 1)
        starts.append(np.sort(rng.choice(places, anchors, replace=len(places) < anchors)))
    starts = np.stack(starts)
    places = starts[..., None] + np.arange(size)
    block = np.take_along_axis(ids[:, None], places, 2)
    labels = np.where(places < lengths[:, None, None], block, -1)[..., 1:]
    block[..., 1:] = mask
    found = {"features": features, "starts": starts, "block": block, "labels": labels}
    return {name: torch.from_numpy(x) for name, x in found.items()}


class Run:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.config = json.loads((args.start / "config.json").read_text())
        self.size = self.config["block_size"]
        self.mask = self.config["dflash_config"]["mask_token_id"]
        width = self.config["hidden_size"]
        self.embedding = load_file(str(args.target / "model.safetensors"))["model.embed_tokens.weight"].float()
        self.head = self.embedding.bfloat16()
        taps = len(self.config["dflash_config"]["target_layer_ids"])
        self.split = taps * width
        self.answers, self.held = Answers(args.answers, self.split + width), Answers(args.held_out, self.split + width)
        self.answers.look()
        self.held.look()
        self.rms = self.channel_rms()
        self.drafter = Drafter(self.config)
        state = {k: v.float() for k, v in load_file(str(args.start / "model.safetensors")).items()}
        state["fc.weight"] = state["fc.weight"] * self.rms
        self.drafter.load_state_dict(state)
        matrices = [p for p in self.drafter.parameters() if p.dim() == 2]
        vectors = [p for p in self.drafter.parameters() if p.dim() == 1]
        groups = [{"params": matrices, "weight_decay": args.decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), fused=True)
        self.step, self.seconds, self.anchors = 0, 0.0, 0
        self.checkpoint = args.out / "checkpoint.pt"
        if self.checkpoint.exists():
            kept = torch.load(self.checkpoint, weights_only=False)
            self.drafter.load_state_dict(kept["drafter"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.rms, self.step, self.seconds, self.anchors = (kept[k] for k in ("rms", "step", "seconds", "anchors"))
        self.keep = torch.exp(-torch.arange(self.size - 1) / args.gamma)
        self.frequent = self.frequent_tokens()

    def channel_rms(self) -> Tensor:
        """(taps * D,) over the answers' tokens; a prompt's first token is left out, whose features are huge."""
        total, count = np.zeros(self.split), 0
        for i in range(0, len(self.answers.rows), max(1, len(self.answers.rows) // 100)):
            x = self.answers.features(i)[self.answers.rows[i][1] :, : self.split].astype(np.float64)
            total, count = total + (x * x).sum(0), count + len(x)
        return torch.from_numpy(np.sqrt(total / count)).float().clamp_min(1e-3)

    def frequent_tokens(self) -> np.ndarray:
        counts = Counter(token for tokens, first, *_ in self.answers.rows for token in tokens[first:])
        return np.array([token for token, _ in counts.most_common(FREQUENT)])

    def vocabulary(self, labels: np.ndarray, rng) -> tuple[Tensor, Tensor]:
        """The head's rows of a step, sorted, and what is added to their logits: sampled ones stand for the tail."""
        sure = np.union1d(self.frequent, labels)
        tail = rng.choice(len(self.head), TAIL, replace=False)
        tail = np.setdiff1d(tail, sure)
        bias = math.log((len(self.head) - len(sure)) / len(tail))
        ids = np.concatenate([sure, tail])
        return torch.from_numpy(ids), torch.cat([torch.zeros(len(sure)), torch.full((len(tail),), bias)])

    def context(self, batch: dict) -> list[tuple[Tensor, Tensor]]:
        return self.drafter.context((batch["features"][..., : self.split].float() / self.rms).bfloat16())

    def hidden(self, context: list, batch: dict) -> Tensor:
        """The drafter's slots (S, A, L, D)."""
        return self.drafter(context, self.embedding[batch["block"]], batch["starts"])[:, :, 1:].contiguous()

    def loss(self, batch: dict, rng) -> Tensor:
        labels = batch["labels"]
        chosen = ((torch.from_numpy(rng.random(labels.shape)) < self.keep) & (labels >= 0)).flatten().nonzero()[:, 0]
        own, teacher = self.hidden(self.context(batch), batch), batch["features"][..., self.split :]
        ids, bias = self.vocabulary(np.unique(labels[labels >= 0].numpy()), rng)
        sure = int((bias == 0).sum())
        head = self.head[ids]
        label = labels.flatten()[chosen]
        wanted = torch.searchsorted(ids[:sure], label)
        # the target's softmax at every position once; slot k of anchor a reads position a + k - 1
        s, n, _ = teacher.shape
        places = batch["starts"][..., None] + torch.arange(self.size - 1)
        flat = (places.clamp_max(n - 1) + n * torch.arange(s)[:, None, None]).flatten()[chosen]
        used, where = torch.unique(flat, return_inverse=True)
        logits = (teacher.reshape(s * n, -1)[used].bfloat16() @ head.T).float() + bias
        target = torch.softmax(logits, -1).bfloat16()[where]
        return HeadLoss.apply(own.flatten(0, 2)[chosen], head, bias, wanted, target, self.args.soft)

    @torch.no_grad()
    def evaluate(self, most: int = 48) -> dict:
        """Held-out answers: loss and accuracy at fixed anchors over the whole head, and tau of rounds as decoding runs."""
        rng = np.random.default_rng(5)
        hits, seen, nll = torch.zeros(self.size - 1), torch.zeros(self.size - 1), torch.zeros(self.size - 1)
        tokens, rounds = 0, 0
        with torch.autocast("cpu", torch.bfloat16):
            for first in range(0, min(most, len(self.held.rows)), 8):
                which = list(range(first, min(first + 8, len(self.held.rows))))
                batch = make_batch(self.held, which, 16, self.size, self.mask, rng)
                context = self.context(batch)
                logits = (self.hidden(context, batch) @ self.head.T).float()
                labels, inside = batch["labels"], batch["labels"] >= 0
                picked = logits.gather(-1, labels.clamp_min(0)[..., None])[..., 0] - logits.logsumexp(-1)
                nll -= (picked * inside).sum((0, 1))
                hits += ((logits.argmax(-1) == labels) & inside).sum((0, 1))
                seen += inside.sum((0, 1))
                new_tokens, new_rounds = self.walk(which, context)
                tokens, rounds = tokens + new_tokens, rounds + new_rounds
        weights = self.keep
        return {
            "loss": round(float((nll * weights).sum() / (seen * weights).sum()), 4),
            "accuracy": [round(x, 3) for x in (hits / seen).tolist()],
            "tau": round(tokens / rounds, 3),
        }

    def walk(self, which: list[int], context: list) -> tuple[int, int]:
        """(tokens, rounds) of drafting through held-out answers as decoding does, side by side."""
        rows = [self.held.rows[i] for i in which]
        at = torch.tensor([[first - 1] for _, first, *_ in rows])
        last = torch.tensor([len(tokens) - 1 for tokens, *_ in rows])
        ids = torch.zeros(len(rows), int(last.max()) + 2 * self.size, dtype=torch.long)
        for row, (tokens, *_) in zip(ids, rows, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        emitted, rounds, slots = int((last - at[:, 0]).sum()), 0, torch.arange(1, self.size)
        while (going := at[:, 0] < last).any():
            rounds += int(going.sum())
            block = torch.full((len(rows), 1, self.size), self.mask)
            block[:, 0, 0] = ids.gather(1, at)[:, 0]
            draft = (self.hidden(context, {"starts": at, "block": block})[:, 0] @ self.head.T).argmax(-1)
            right = (draft == ids.gather(1, at + slots)) & (at + slots <= last[:, None])
            at[:, 0] += torch.where(going, right.long().cumprod(-1).sum(-1) + 1, 0)
        return emitted, rounds

    def save(self) -> None:
        weights = {k: v.detach().clone() for k, v in self.drafter.state_dict().items()}
        weights["fc.weight"] /= self.rms
        save_file(
            {k: v.bfloat16().contiguous() for k, v in weights.items()},
            str(self.args.out / "model.safetensors"),
            metadata={"format": "mlx"},
        )
        (self.args.out / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")
        state = {
            "drafter": self.drafter.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rms": self.rms,
            "step": self.step,
            "seconds": self.seconds,
            "anchors": self.anchors,
        }
        torch.save(state, self.checkpoint.with_suffix(".new"))
        self.checkpoint.with_suffix(".new").replace(self.checkpoint)

    def shuffled(self, rng: np.random.Generator) -> list[int]:
        """The answers in batches of like lengths, in any order: padding costs time."""
        order = rng.permutation(len(self.answers.rows)).tolist()
        size = self.args.batch
        alike: list[int] = []
        for first in range(0, len(order), 16 * size):
            alike += sorted(order[first : first + 16 * size], key=lambda i: len(self.answers.rows[i][0]))
        groups = [alike[first : first + size] for first in range(0, len(alike) - size + 1, size)]
        return [i for number in rng.permutation(len(groups)) for i in groups[number]]

    def rate(self) -> float:
        done = self.seconds / (60 * self.args.minutes)
        return (
            self.args.lr * min(1.0, (self.step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, done))))
        )

    def train(self) -> None:
        args, stop = self.args, []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.append(1))
        evaluated = time.time()
        losses, clock, seen = [], time.process_time(), 0
        with open(args.out / "log.jsonl", "a", encoding="utf-8") as log:

            def tell(row: dict) -> None:
                print(
                    json.dumps(
                        {"step": self.step, "minutes": round(self.seconds / 60, 2), "anchors": self.anchors, **row}
                    ),
                    file=log,
                    flush=True,
                )

            order: list[int] = []
            while self.seconds < 60 * args.minutes and not stop:
                began = time.process_time()
                rng = np.random.default_rng([args.seed, self.step])
                if len(order) < args.batch:
                    self.answers.look()
                    self.frequent = self.frequent_tokens()
                    order = self.shuffled(rng)
                which, order = order[: args.batch], order[args.batch :]
                batch = make_batch(self.answers, which, args.anchors, self.size, self.mask, rng)
                with torch.autocast("cpu", torch.bfloat16):
                    loss = self.loss(batch, rng)
                loss.backward()
                nn.utils.clip_grad_norm_(self.drafter.parameters(), 1.0)
                for group in self.optimizer.param_groups:
                    group["lr"] = self.rate()
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                self.step += 1
                self.anchors += args.batch * args.anchors
                seen += args.batch * args.anchors
                self.seconds += time.process_time() - began
                losses.append(float(loss.detach()))
                if self.step % 50 == 0:
                    tell(
                        {
                            "train": round(sum(losses) / len(losses), 4),
                            "a_cpu_second": round(seen / (time.process_time() - clock)),
                        }
                    )
                    losses, clock, seen = [], time.process_time(), 0
                if time.time() - evaluated > args.evaluate_every:
                    tell(self.evaluate() | {"answers": len(self.answers.rows)})
                    self.save()
                    evaluated, clock, seen = time.time(), time.process_time(), 0
            tell(self.evaluate(200) | {"finished": not stop})
        self.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("answers", "held_out", "target", "start", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--anchors", type=int, default=48)
    parser.add_argument("--gamma", type=float, default=4.0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.01)
    parser.add_argument("--soft", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate-every", type=float, default=120.0, metavar="SECONDS")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    Run(args).train()


if __name__ == "__main__":
    main()
