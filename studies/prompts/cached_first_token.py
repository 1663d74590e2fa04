"""Time to the first token of a long prompt, most of which was there before: processed, in memory, or in files.

    python studies/prompts/cached_first_token.py [--tokens 16384] [--new 300] [--targets embedded qwen3_5] [--json]

A first request is a prompt's beginning, a second one the whole prompt, whose last `new` tokens are new: as an agent's requests
are.  The second one is sent to a server's sessions that have nothing, to those that have answered the first one, and to
those of a server that was started since with the same folder.  `ratio` is the time without any cache over the time with it,
all in one process, in its processor seconds, which a busy machine changes less.  `embedded` is the embedded pair (told that it has positions enough: what it says does not matter here);
others are tiny random targets of tests/families.py.

The files come from the system's cache where it has them, as they would on a machine that has just written them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np

from mlx_ddtree import load
from mlx_ddtree.generation.stored.folder import StoredFolder
from mlx_ddtree.generation.stored.prefixes import StoredPrefixes
from mlx_ddtree.pair import Pair
from mlx_ddtree.server.sessions import Sessions
from mlx_ddtree.terminal import table_text

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.families import tiny_pair  # noqa: E402

POSITIONS = 1 << 20
"""That a model is told to have."""
BYTES = 8 << 30
"""Of caches in memory, and of files."""


def pair_of(name: str) -> Pair:
    """The embedded pair, or a tiny one of a family, with positions enough."""
    pair = load() if name == "embedded" else tiny_pair(name)
    pair.target.args.max_position_embeddings = POSITIONS
    return pair


def text_of(pair: Pair, tokens: int, seed: int) -> list[int]:
    """Token ids of a text that does not repeat itself."""
    known = [i for i in range(5, pair.target.vocab_size) if i not in pair.tokenizer.eos_token_ids]
    ids: list[int] = np.random.default_rng(seed).choice(known, tokens).tolist()
    return ids


def first_token(sessions: Sessions, ids: list[int]) -> tuple[float, str, int]:
    """Processor seconds to the first token, where the prompt's beginning was, and how many tokens were processed."""
    started = process_time()
    session = sessions.take(ids)
    stream: Any = session.stream(ids, 2, tree_budget=4, parity="off")
    next(stream)
    seconds = process_time() - started
    list(stream)
    sessions.trim()
    return seconds, session.found_in, len(ids) - session.reused


def measured(pair: Pair, beginning: list[int], tails: list[list[int]]) -> list[dict[str, Any]]:
    """A row for every way to the second request's first token."""
    with TemporaryDirectory() as folder:

        def server() -> Sessions:
            return Sessions(pair, 10, BYTES, StoredPrefixes(pair, StoredFolder(Path(folder), BYTES)))

        nothing = Sessions(pair, 10, BYTES)
        first_token(nothing, tails[0][:64])  # compiles what is compiled once
        without = first_token(nothing, [*beginning, *tails[0]])
        before = server()
        first_token(before, beginning)
        going_on = first_token(before, [*beginning, *tails[1]])
        before.close()
        after = server()
        restarted = first_token(after, [*beginning, *tails[2]])
        after.close()
        rows = []
        for way, (seconds, found, processed) in (
            ("no cache", without),
            ("the same server", going_on),
            ("after a restart", restarted),
        ):
            figures = {"found in": found, "processed": processed, "ratio": f"{without[0] / seconds:.1f}x"}
            rows.append({"second request to": way, **figures})
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16384, help="of the prompt")
    parser.add_argument("--new", type=int, default=300, help="of these that are new in the second request")
    parser.add_argument("--targets", nargs="+", default=["embedded", "qwen3_5"])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    rows = []
    for name in args.targets:
        pair = pair_of(name)
        beginning = text_of(pair, args.tokens - args.new, 0)
        tails = [text_of(pair, args.new, seed) for seed in (1, 2, 3)]
        rows += [{"target": name, **row} for row in measured(pair, beginning, tails)]
    print(json.dumps({"tokens": args.tokens, "rows": rows}) if args.json else table_text(rows))


if __name__ == "__main__":
    main()
