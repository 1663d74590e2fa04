"""Whatever layout a drafter has, the tokens are the target's own."""

import pytest

from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.pair import Pair

from ..drafter.layouts import LAYOUTS, random_tensors, save
from ..helpers import small_target
from ..training.tiny import make_tokenizer
from .test_lossless import PROMPT, our_tokens, stock_tokens, without_end


@pytest.mark.parametrize("name", LAYOUTS)
def test_greedy_tokens_equal_mlx_lm(name, tmp_path):
    save(tmp_path / "drafter", LAYOUTS[name], random_tensors(LAYOUTS[name]))
    pair = without_end(Pair(small_target(layers=3), load_drafter(tmp_path / "drafter"), make_tokenizer()))
    expected = stock_tokens(pair, PROMPT, 24)
    for how in ({"method": "dflash"}, {"method": "dflash", "block_size": 2}, {"tree_budget": 12}):
        assert our_tokens(pair, PROMPT, 24, **how) == expected
