"""Recall@10 of prioritised DCI by the share of points that it compares, for sizes of the index.

Usage: python studies/pages/dci_recall.py [--points 4096]

4,096 points in 64 dimensions: 64 Gaussian clusters whose spread is 0.6 or 1 times their distance, and points beside a
subspace of 4 or 8 dimensions.  32 queries beside points.
"""

import argparse

import numpy as np

from mlx_ddtree.icecache.index.dci import PrioritizedDci

DIM = 64
K = 10
SHARES = (0.05, 0.1, 0.2)


def clusters(count, spread):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(64, DIM))
    return centres[rng.integers(0, 64, count)] + spread * rng.normal(size=(count, DIM))


def subspace(count, dim):
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(DIM, dim)))[0]
    return rng.normal(size=(count, dim)) @ plane.T + 0.01 * rng.normal(size=(count, DIM))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=4096)
    count = parser.parse_args().points
    data = {
        "clusters 0.6": clusters(count, 0.6),
        "clusters 1.0": clusters(count, 1.0),
        "subspace 4": subspace(count, 4),
        "subspace 8": subspace(count, 8),
    }
    print("| points | metric | m x L | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |")
    print("|---|---|---|" + "---|" * len(SHARES))
    for name, points in data.items():
        rng = np.random.default_rng(9)
        queries = points[rng.choice(count, 32)] + 0.3 * points.std() * rng.normal(size=(32, DIM))
        for metric in ("distance", "inner_product"):
            for m, simple in ((1, 1), (2, 7), (3, 10), (4, 15)):
                index = PrioritizedDci(DIM, composites=m, simple=simple, metric=metric)
                index.insert(points)
                exact = index.search(queries, K)[0].tolist()
                cells = []
                for share in SHARES:
                    found = index.search(queries, K, visit=int(share * count))[0].tolist()
                    cells.append(np.mean([len(set(a) & set(b)) / K for a, b in zip(exact, found, strict=True)]))
                print(f"| {name} | {metric} | {m} x {simple} | " + " | ".join(f"{x:.2f}" for x in cells) + " |")


if __name__ == "__main__":
    main()
