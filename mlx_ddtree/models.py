"""`python -m mlx_ddtree.models`: the program in programs/models.py."""

import sys

from mlx_ddtree.programs.models import main

if __name__ == "__main__":
    sys.exit(main())
