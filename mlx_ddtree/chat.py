"""`python -m mlx_ddtree.chat`: the program in programs/chat.py."""

import sys

from mlx_ddtree.programs.chat import main

if __name__ == "__main__":
    sys.exit(main())
