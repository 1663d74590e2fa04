"""The drafters that come with the package: found by their targets' names, loaded strictly, and small enough to ship."""

from pathlib import Path

import pytest

from mlx_ddtree import load, stream_generate
from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.hub.names import BROUGHT, EMBEDDED, local_folder
from mlx_ddtree.hub.registry import DRAFTERS, find_drafter

NAME = "embedded/SmolLM2-135M-Instruct-DFlash"
SHIPPED = 15 << 20
"""Bytes of one drafter."""


@pytest.mark.parametrize(
    "target",
    [
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "mlx-community/SmolLM2-135M-Instruct",
        "mlx-community/SmolLM2-135M-Instruct-4bit",
        "pypi/SmolLM2-135M-Instruct",
        "./models/SmolLM2-135M-Instruct",
    ],
)
def test_it_is_found_by_its_targets_names(target):
    assert find_drafter(target) == NAME


def test_what_the_registry_says_is_brought_is_here_and_all_that_is_here_is_known():
    known = {d.repository for drafters in DRAFTERS.values() for d in drafters if d.repository.startswith(BROUGHT)}
    assert known == {f"{BROUGHT}{folder.name}" for folder in EMBEDDED.iterdir() if folder.is_dir()}


def test_it_loads_and_is_small():
    folder = local_folder(NAME)
    drafter = load_drafter(folder)
    assert (drafter.config.block_size, drafter.config.num_hidden_layers) == (8, 2)
    assert sum(file.stat().st_size for file in Path(folder).iterdir()) < SHIPPED


def test_the_public_pair_says_what_stock_says_and_drafts(smollm2):
    """Token for token, by a tree of fixed size, and more than one token a round."""
    from mlx_lm import stream_generate as stock_stream_generate
    from mlx_lm.utils import load_model

    pair = load(str(smollm2), NAME)
    chat = [{"role": "user", "content": "Count from 1 to 10."}]
    prompt = list(pair.tokenizer.apply_chat_template(chat, add_generation_prompt=True))
    stock, _ = load_model(smollm2)
    want = [r.token for r in stock_stream_generate(stock, pair.tokenizer, prompt, max_tokens=16)]
    responses = list(stream_generate(pair, prompt, max_tokens=16, tree_budget=6, parity="off"))
    assert [token for r in responses for token in r.tokens] == want
    assert responses[-1].mean_acceptance_length > 1.2
