"""The demo pair's training tasks: the same from the same seed, for ever, and every answer passes its checks."""

import hashlib
import sys
from dataclasses import astuple
from importlib import import_module
from pathlib import Path
from random import Random

import pytest

DEMO_PAIR = Path(__file__).parents[2] / "demo_pair"
DRAWN = "b82302da91735d3f900c2952b7b32d2df2e0c49c878bafb1a5fb2e0d41178188"


@pytest.fixture(scope="module")
def families():
    """From a module and a family's name to the family, in the order that build_corpus.py draws them."""
    before = set(sys.modules)
    sys.path.insert(0, str(DEMO_PAIR))
    try:
        modules = [import_module(path.stem) for path in sorted(DEMO_PAIR.glob("tasks_*.py"))]
        yield {(module.__name__, name): family for module in modules for name, family in module.FAMILIES.items()}
    finally:
        sys.path.remove(str(DEMO_PAIR))
        for name in set(sys.modules) - before:
            if str(DEMO_PAIR) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def draws(families, seeds):
    for name, family in families.items():
        for seed in seeds:
            yield name, family(Random(seed))


def test_a_seed_gives_the_tasks_that_the_pair_was_trained_on(families):
    digest = hashlib.sha256()
    for name, task in draws(families, range(5)):
        digest.update(repr((name, astuple(task))).encode())
    assert len(families) == 376
    assert digest.hexdigest() == DRAWN


def test_every_family_passes_its_own_checks(families):
    for _, task in draws(families, [0]):
        task.verify()


def test_what_is_held_out_is_never_trained_on(families):
    build_corpus = import_module("build_corpus")
    parts, heldout = build_corpus.synthetic_tasks(2 * len(families), Random(0))
    assert heldout
    assert all(build_corpus.is_heldout(row["key"]) for row in heldout)
    assert not set(parts["tasks.train"]) & set(parts["tasks.heldout"])
