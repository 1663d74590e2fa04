"""Let the demo target answer prompts in large batches, with torch; same rows as mlx_ddtree.train writes.

Usage: python answer_prompts.py TARGET_DIR PROMPTS.jsonl OUT.jsonl [--batch 128] [--max-tokens 240]

On a CPU this is several times faster than MLX's batched generation.  Prompts of equal length
share a batch, so nothing is padded; a quarter of the batches is sampled at temperature 0.7.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from train_target import HEADS, KV_HEADS, Model, rotate

END = 2


@torch.no_grad()
def step(model, ids, start, keys, values):
    """Run `ids` (b, n) at positions start..; returns the last position's logits."""
    x = model.embed_tokens(ids)
    n = ids.shape[1]
    cos, sin = model.cos[start : start + n], model.sin[start : start + n]
    for i, layer in enumerate(model.layers):
        a, h = layer.self_attn, layer.input_layernorm(x)
        b = h.shape[0]
        q = a.q_norm(a.q_proj(h).view(b, n, HEADS, -1)).transpose(1, 2)
        k = a.k_norm(a.k_proj(h).view(b, n, KV_HEADS, -1)).transpose(1, 2)
        keys[i][:, :, start : start + n] = rotate(k, cos, sin)
        values[i][:, :, start : start + n] = a.v_proj(h).view(b, n, KV_HEADS, -1).transpose(1, 2)
        k, v = (c[i][:, :, : start + n] for c in (keys, values))
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), k, v, is_causal=n > 1, enable_gqa=True)
        x = x + a.o_proj(y.transpose(1, 2).reshape(b, n, -1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return F.linear(model.norm(x[:, -1]), model.embed_tokens.weight)


def answer(model, prompts, max_tokens, temperature):
    b, n = len(prompts), len(prompts[0])
    layers = len(model.layers)
    keys, values = ([torch.zeros(b, KV_HEADS, n + max_tokens, 64) for _ in range(layers)] for _ in range(2))
    logits = step(model, torch.tensor(prompts), 0, keys, values)
    going, answers = list(range(b)), [[] for _ in range(b)]
    for i in range(max_tokens):
        if temperature == 0:
            token = logits.argmax(-1)
        else:
            token = torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0]
        for index, t in zip(going, token.tolist(), strict=True):
            if END not in answers[index][-1:]:
                answers[index].append(t)
        if i % 16 == 15:  # go on with the unfinished ones only
            kept = [row for row, index in enumerate(going) if answers[index][-1] != END]
            going, token = [going[row] for row in kept], token[kept]
            keys, values = ([c[kept] for c in cache] for cache in (keys, values))
        if not going or i == max_tokens - 1:
            break
        logits = step(model, token[:, None], n + i, keys, values)
    return answers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), help="I N: every N-th batch from I")
    parser.add_argument("--max-tokens", type=int, default=240)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = Model(1024)
    state = load_file(str(args.target / "model.safetensors"))
    model.load_state_dict({k.removeprefix("model."): v.float() for k, v in state.items()})
    tokenizer = Tokenizer.from_file(str(args.target / "tokenizer.json"))
    by_length = defaultdict(list)
    for line in args.prompts.read_text().splitlines():
        text = f"<|im_start|>user\n{json.loads(line)['prompt']}<|im_end|>\n<|im_start|>assistant\n"
        ids = tokenizer.encode(text).ids
        by_length[len(ids)].append(ids)
    batches = [g[i : i + args.batch] for g in by_length.values() for i in range(0, len(g) - args.batch + 1, args.batch)]
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(0)).tolist()
    with args.out.open("w") as out:
        for i, index in enumerate(order[args.part[0] : args.batches : args.part[1]]):
            temperature = 0.7 if i % 4 == 3 else 0.0
            prompts = batches[index]
            for prompt, row in zip(prompts, answer(model, prompts, args.max_tokens, temperature), strict=True):
                record = {"prompt_tokens": prompt, "response_tokens": row, "temperature": temperature}
                out.write(json.dumps(record) + "\n")
            out.flush()
            print(i, len(prompts), flush=True)


if __name__ == "__main__":
    main()
