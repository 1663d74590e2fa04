"""Write training rows for a target that can look things up in a long text.

Usage: python studies/prompts/long_context_recall.py OUT_DIR TOKENIZER.json --seq 2048 --rows 2000

A row is seq + 1 tokens: real text with facts in it, then questions and answers about them, as a dialogue.  From a
few facts in much text to almost nothing but facts, so that looking up is learnt before finding.  Writes
recall.train.npy and recall.heldout.npy (rows, seq + 1), uint16, for demo_pair/train_target.py.
"""

import argparse
import random
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from mlx_ddtree.benchmarking.needles import KINDS, haystack, make_fact


def make_row(rng: random.Random, tokenizer: Tokenizer, seq: int) -> list[int]:
    kind = rng.choice(KINDS[:2] if rng.random() < 0.9 else KINDS)
    asked = rng.randint(2, min(10, seq // 120))  # a question and its answer take about 60 tokens, a fact 20
    facts = [make_fact(kind, rng) for _ in range(asked + rng.choice([0, 0, seq // 160]))]
    turns = [f"{fact.question}<|im_end|>\n<|im_start|>assistant\n{fact.answer}<|im_end|>\n" for fact in facts[:asked]]
    tail = tokenizer.encode("<|im_start|>user\n".join(turns)).ids
    characters = seq * rng.choice([0.5, 2, 4, 4])
    while True:
        pieces = haystack(kind, int(characters), rng)
        for fact in facts:
            pieces.insert(rng.randint(0, len(pieces)), fact.statement)
        ids = tokenizer.encode("<|im_start|>user\n" + "".join(pieces) + "\n").ids + tail
        if len(ids) <= seq + 1:
            return [0] * (seq + 1 - len(ids)) + ids
        characters *= 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("tokenizer")
    parser.add_argument("--seq", type=int, default=2048, help="512 or more")
    parser.add_argument("--rows", type=int, default=2000)
    args = parser.parse_args()
    tokenizer, rng = Tokenizer.from_file(args.tokenizer), random.Random(args.seq)
    args.out.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", args.rows), ("heldout", 64)):
        rows = [make_row(rng, tokenizer, args.seq) for _ in range(count)]
        np.save(args.out / f"recall.{part}.npy", np.array(rows, np.uint16))


if __name__ == "__main__":
    main()
