"""`python -m mlx_ddtree.doctor`: the program in programs/doctor.py."""

import sys

from mlx_ddtree.programs.doctor import main

if __name__ == "__main__":
    sys.exit(main())
