"""The options of mlx_ddtree.benchmark race."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlx_ddtree.benchmarking.race.entrants import PEERS
from mlx_ddtree.programs import arguments

OWN_PROMPTS = Path(__file__).parents[1] / "benchmarking" / "race" / "prompts.jsonl"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `race`."""
    who = parser.add_argument_group("who races")
    arguments.add_model_names(who)
    who.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help=f"the Python that has one of {', '.join(PEERS)} (default: this one); for another program "
        "NAME=PYTHON,ADAPTER.py (docs/benchmark.md); may be repeated",
    )
    who.add_argument("--entrants", nargs="+", default=[], metavar="NAME", help="only these (stock mlx_lm always races)")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--data", nargs="+", default=[str(OWN_PROMPTS)], metavar="NAME", help='as for `run`; rows may have a "kind"'
    )
    how.add_argument(
        "--count", type=arguments.positive, metavar="N", help="of the prompts, the first N of a fixed draw"
    )
    how.add_argument(
        "--max-tokens", "-m", type=arguments.positive, default=96, metavar="N", help="of an answer (%(default)s)"
    )
    how.add_argument("--temp", type=float, default=0.0, metavar="T", help="temperature (0)")
    how.add_argument("--repeats", type=arguments.positive, default=1, metavar="N", help="turns of every prompt (1)")
    how.add_argument("--threads", type=arguments.positive, metavar="N", help="of every program's BLAS")
    how.add_argument(
        "--limit", type=float, default=120.0, metavar="S", help="seconds after which a program is stopped (%(default)s)"
    )
    arguments.add_template_arguments(how, {"enable_thinking": False})
    how.add_argument("--output", type=Path, metavar="RACE.jsonl", help="keep the turns; repeated, the command goes on")
    arguments.add_json(how)
