"""`python -m mlx_ddtree.benchmark`: the program in programs/benchmark.py.

`mlx_ddtree.benchmark` is a function of the package as well.  Whoever imports this file as a module gets that function,
so that the import does not hide it.
"""

import sys
from typing import Any

from mlx_ddtree.benchmarking.from_python import benchmark
from mlx_ddtree.programs.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
else:
    modules: dict[str, Any] = sys.modules
    modules[__name__] = benchmark
