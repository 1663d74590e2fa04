"""How much of dense attention's mass do the key blocks hold that block-sparse attention keeps?

Usage: python studies/prompts/block_mass.py MODEL [--characters 8000] [--kind prose]

MODEL is a target's folder or repository, or "demo".  The text goes through all of its layers of full attention, whose
queries and keys are then compared block by block, over the second half of the text.
"""

import argparse

import mlx_ddtree  # isort: skip  (before MLX, for its BLAS)
import mlx.core as mx
import numpy as np

from mlx_ddtree.benchmarking.needles import KINDS, needle_case
from mlx_ddtree.pflash.block_sparse import BlockSparseAttention
from mlx_ddtree.pflash.scoring import TailAttentionScorer
from mlx_ddtree.terminal import table_text


class Recording(BlockSparseAttention):
    """Dense attention, with what it was given."""

    def __call__(self, queries, keys, values, scale, length=None):
        self.seen = [*getattr(self, "seen", []), (queries, keys, scale)]
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask="causal")


def mass_kept(queries, keys, scale, kept, block) -> float:
    """Share of dense attention on the kept blocks (H, M, N), mean over heads and the second half of the rows."""
    heads, size = keys.shape[1], queries.shape[2]
    shares = []
    for head in range(queries.shape[1]):
        kv = head * heads // queries.shape[1]
        logits = queries[0, head] @ keys[0, kv].T * scale
        weights = mx.softmax(mx.where(mx.tril(mx.ones((size, size), mx.bool_)), logits, -mx.inf), axis=-1)
        by_block = np.add.reduceat(np.array(weights), np.arange(0, size, block), axis=1)
        shares.append((by_block * kept[kv, np.arange(size) // block]).sum(axis=1)[size // 2 :].mean())
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--characters", type=int, default=8000)
    parser.add_argument("--kind", choices=KINDS, default="prose")
    options = parser.parse_args()
    pair = mlx_ddtree.load(None if options.model == "demo" else options.model, draft=False)
    ids = pair.tokenizer.encode(needle_case(options.kind, options.characters, 0.5, 1).prompt)
    recording = Recording()
    step = -(-len(ids) // recording.block) * recording.block
    scorer = TailAttentionScorer(pair.target, layers=pair.target.num_layers, step=step, sparse=recording, sparse_from=1)
    scorer(ids)
    rows = []
    for alpha in (0.05, 0.12, 0.3, 0.6, 1.0):
        sparse, masses = BlockSparseAttention(alpha=alpha, last=0), []
        for queries, keys, scale in recording.seen:
            grouped = queries.reshape(keys.shape[1], -1, *queries.shape[2:])
            scores = np.array(sparse.block_scores(grouped, keys, scale))
            masses.append(mass_kept(queries, keys, scale, sparse._choose(scores, 0, scores.shape[2]), sparse.block))
        worst, mean = f"{min(masses):.3f}", f"{np.mean(masses):.3f}"
        rows.append({"alpha": alpha, "blocks kept": f"{sparse.kept_fraction:.0%}", "worst layer": worst, "mean": mean})
    print(f"{len(ids)} tokens, {len(recording.seen)} layers", table_text(rows), sep="\n\n")


if __name__ == "__main__":
    main()
