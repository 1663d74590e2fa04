"""`mlx_ddtree.generate --compare`: one prompt answered by every method."""

from __future__ import annotations

import json

from mlx_ddtree.benchmarking.compare import Comparison
from mlx_ddtree.terminal import table_text


def print_comparison(comparison: Comparison, as_json: bool) -> int:
    """Plain decoding's text and a table, or one JSON object."""
    if as_json:
        print(json.dumps({result.method: result.as_dict() for result in comparison.results}))
        return 0
    print(comparison.text)
    print(f"\n{table_text(comparison.rows())}")
    return 0
