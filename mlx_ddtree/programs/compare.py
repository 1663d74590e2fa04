"""`mlx_ddtree.generate --compare`: one prompt answered by every method."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mlx_ddtree.benchmarking.compare import RUNNING_ORDER, compare
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs.race_bars import RaceBars
from mlx_ddtree.terminal import is_lively
from mlx_ddtree.tuning.measure import profile_of


def print_comparison(pair: Pair, prompt: Sequence[int], options: GenerationOptions, as_json: bool) -> int:
    """Compare, and print one JSON object; or plain decoding's text, and a table, or bars at a terminal."""
    if as_json:
        comparison = compare(pair, prompt, options=options)
        print(json.dumps({result.method: result.as_dict() for result in comparison.results}))
    elif is_lively():
        profile_of(pair)  # has a bar of its own where it is measured now
        with RaceBars(list(RUNNING_ORDER), options.max_tokens) as bars:
            comparison = compare(pair, prompt, options=options, watcher=bars)
        print(comparison.text)
    else:
        comparison = compare(pair, prompt, options=options)
        print(f"{comparison.text}\n\n{comparison}")
    return 0
