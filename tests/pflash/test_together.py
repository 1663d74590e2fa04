"""What shortens a prompt and what reads its cache in part work on one another's results."""

import numpy as np
import pytest

from mlx_ddtree import stream_generate
from mlx_ddtree.icecache.options import IceCacheOptions
from mlx_ddtree.pflash.compress import PrefillCompression

from ..families import tiny_pair

PROMPT = np.random.default_rng(0).integers(4, 64, 400).tolist()
COMPRESSION = PrefillCompression("always", keep_ratio=0.6, scorer="lexical", chunk=8, least=100)
SHORTER = {
    "compression": {"compression": COMPRESSION},
    "filter": {"kv_keep_ratio": 0.5},
    "both": {"compression": COMPRESSION, "kv_keep_ratio": 0.6},
}


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5"])
@pytest.mark.parametrize("how", SHORTER)
def test_a_budget_on_a_shortened_prompt_says_what_plain_decoding_says(family, how):
    """Each node chooses its own pages, so drafts change nothing; and both reports tell what was left out."""
    pair = tiny_pair(family)
    budget = IceCacheOptions(48, page_size=4, select="node", full_layers=0)
    texts, last = [], None
    for method in ("ar", "ddtree"):
        tokens = []
        for last in stream_generate(
            pair, PROMPT, 40, method=method, tree_budget=6, parity="rows", kv_budget=budget, **SHORTER[how]
        ):
            tokens += last.tokens
        texts.append(tokens)
        assert last.compression.ratio < 0.7 or last.compression.kv_rows[1] < last.compression.kv_rows[0]
        if method == "ar":  # the nodes of a tree read a set of pages each
            assert last.statistics.reads.tokens < last.statistics.reads.context / 3
    assert texts[0] == texts[1]
