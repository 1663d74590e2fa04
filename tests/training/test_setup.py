"""A drafter can be set up for every family of targets."""

import pytest

from mlx_ddtree import stream_generate
from mlx_ddtree.pair import Pair
from mlx_ddtree.training.setup import default_config, new_drafter

from ..families import FAMILIES, tiny_target
from .tiny import make_tokenizer


@pytest.mark.parametrize("name", FAMILIES)
def test_a_drafter_for_every_family(name):
    """With its target's own sizes it drafts; through the target's scaled embedding and capped head, once each."""
    target = tiny_target(name)
    drafter = new_drafter(default_config(target, 63, layers=1, taps=2, block_size=4), target, 0)
    pair = Pair(target, drafter, make_tokenizer())
    assert drafter.config.embed_scale == (target.hidden_size**0.5 if "gemma4" in name else 1.0)
    assert drafter.config.logit_softcap == (30.0 if "gemma4" in name else None)
    ours = [t for r in stream_generate(pair, [5, 9, 23], 16, method="dflash") for t in r.tokens]
    assert ours == [t for r in stream_generate(pair, [5, 9, 23], 16, method="ar") for t in r.tokens]
