"""`python -m mlx_ddtree.convert`: the program in programs/convert.py."""

import sys

from mlx_ddtree.programs.convert import main

if __name__ == "__main__":
    sys.exit(main())
