"""`python -m mlx_ddtree.benchmark`: the program in programs/benchmark.py."""

import sys

from mlx_ddtree.programs.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
