"""`python -m mlx_ddtree.generate`: the program in programs/generate.py.

As in mlx-lm, `mlx_ddtree.generate` is a function of the package as well.  Whoever imports this file as a module gets
that function, so that the import does not hide it.
"""

import sys
from typing import Any

if __name__ == "__main__":
    from mlx_ddtree.programs.generate import main

    sys.exit(main())
else:
    from mlx_ddtree.generation.stream import generate

    modules: dict[str, Any] = sys.modules
    modules[__name__] = generate
