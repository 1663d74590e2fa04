"""`python -m mlx_ddtree.train`: the program in programs/train.py."""

import sys

from mlx_ddtree.programs.train import main

if __name__ == "__main__":
    sys.exit(main())
