"""`python -m mlx_ddtree.benchmark`: the program in programs/benchmark.py.

`mlx_ddtree.benchmark` is a function of the package as well.  Whoever imports this file as a module gets that function,
so that the import does not hide it.
"""

import sys
from typing import Any

if __name__ == "__main__":
    from mlx_ddtree.programs.benchmark import main

    sys.exit(main())
else:
    from mlx_ddtree.benchmarking.from_python import benchmark

    modules: dict[str, Any] = sys.modules
    modules[__name__] = benchmark
