"""`python -m mlx_ddtree.generate`: the program in programs/generate.py.

As in mlx-lm, `mlx_ddtree.generate` is a function of the package as well.  Whoever imports this file as a module gets
that function, so that the import does not hide it.
"""

import sys
from typing import Any

from mlx_ddtree.generation.stream import generate
from mlx_ddtree.programs.generate import main

if __name__ == "__main__":
    sys.exit(main())
else:
    modules: dict[str, Any] = sys.modules
    modules[__name__] = generate
