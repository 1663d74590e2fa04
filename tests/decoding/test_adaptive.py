"""tree_budget='auto': whatever it chooses, the text is the target's; and it does choose."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mlx_ddtree import load, make_prompt_cache, make_sampler, stream_generate
from mlx_ddtree.budget.planner import Planner
from mlx_ddtree.decoding.adaptive import _Prepared
from mlx_ddtree.errors import OptionError
from mlx_ddtree.tuning import store
from mlx_ddtree.tuning.costs import measure_costs
from mlx_ddtree.tuning.measure import profile_of

from ..helpers import small_pair
from .test_lossless import PROMPT, our_tokens, stock_tokens, without_end


def constantly(pair, *, draft=1e-6, step=1.0, verify=1.0):
    """A machine where drafts cost `draft`, any verification `verify` and plain decoding `step` seconds, for
    good; that rounds really take milliseconds is a matter of pace."""
    cost = profile_of(pair).cost
    rows = [[verify] * len(cost.rows) for _ in cost.contexts]
    drafts = dict.fromkeys(cost.draft, draft)
    cost.become(replace(cost, draft=drafts, verify=rows, chain=rows, plain=[step for _ in cost.contexts]))
    for name in ("saw_verification", "saw_step", "saw_draft", "saw_rest"):
        setattr(cost, name, lambda *args: None)
    cost.saw_round = lambda seconds, promised: seconds / promised  # a machine of another pace
    return pair


def last_of(pair, count=64, **options):
    *_, last = stream_generate(pair, PROMPT, count, **options)
    return last


@pytest.mark.parametrize("machine", [{}, {"verify": 0.1}, {"draft": 5.0}, {"step": 1e-5}])
@pytest.mark.parametrize("method", ["ddtree", "dflash"])
def test_tokens_are_plain_decodings_on_every_machine(machine, method):
    pair = constantly(without_end(small_pair()), **machine)
    assert our_tokens(pair, PROMPT, 90, method=method) == stock_tokens(pair, PROMPT, 90)


def test_free_rows_give_large_trees():
    sizes = last_of(constantly(without_end(small_pair()), verify=0.1)).statistics.nodes
    assert max(sizes) > 30


def test_fast_plain_decoding_parks_the_drafter():
    """Where no round can be as fast as plain decoding, nearly all of the text is decoded plainly."""
    last = last_of(constantly(without_end(small_pair()), step=1e-5), 120)
    assert last.statistics.kinds["plain"] > 0.8 * last.rounds


def test_a_repeating_text_is_copied():
    """Dear drafts and cheap rows: a text that repeats itself is decoded by rounds that only copy."""
    pair = without_end(small_pair())
    for prompt in ([5, 9, 23], [1, 2], [40, 41, 42]):
        tokens = stock_tokens(pair, prompt, 60)
        if tokens[-20:-10] == tokens[-10:]:
            break
    else:
        pytest.skip("no loop in these texts")
    pair = constantly(pair, draft=2.0, verify=1.0)
    *_, last = stream_generate(pair, prompt, 200, parity="off")
    assert last.statistics.kinds["lookup"] > 0
    assert last.mean_acceptance_length > 2


def test_linear_rounds_choose_a_block_and_never_branch():
    pair = constantly(without_end(small_pair()), verify=0.5)
    for response in stream_generate(pair, PROMPT, 64, method="dflash"):
        assert response.nodes == response.depth
        assert response.kind in ("draft", "plain")


def test_a_sampled_seed_does_not_depend_on_the_machine():
    runs = []
    for machine in ({"step": 1e-5}, {"verify": 0.1}, {"draft": 5.0}):
        pair = constantly(without_end(small_pair()), **machine)
        runs.append(our_tokens(pair, PROMPT, 60, sampler=make_sampler(0.9, seed=5)))
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("stop_after", [1, 4, 9])
def test_closing_early_leaves_a_usable_cache(stop_after):
    """Also in the middle of a pause, whose steps run ahead."""
    pair = constantly(without_end(small_pair()), step=1e-5)
    cache, seen = make_prompt_cache(pair), []
    stream = stream_generate(pair, PROMPT, 60, prompt_cache=cache)
    for _ in range(stop_after):
        seen += next(stream).tokens
    stream.close()
    assert {c.offset for c in cache} == {len(PROMPT) + len(seen)}
    assert our_tokens(pair, [8, 3], 20, prompt_cache=cache) == stock_tokens(pair, [*PROMPT, *seen, 8, 3], 20)


def test_statistics_say_what_happened():
    last = last_of(without_end(small_pair()))
    numbers = last.statistics.as_dict()
    assert sum(numbers["nodes"].values()) == sum(numbers["accepted"].values()) == last.rounds
    assert sum(numbers["kinds"].values()) == pytest.approx(1, abs=1e-3)
    assert json.loads(json.dumps(numbers)) == numbers


def test_a_measured_table_has_every_size_once():
    cost = measure_costs(small_pair())
    assert cost.rows[0] == 1 and cost.rows == sorted(set(cost.rows))
    assert {2, 4, 8} <= set(cost.draft)
    assert np.array(cost.verify).shape == (len(cost.contexts), len(cost.rows))
    assert min(min(row) for row in cost.verify) > 0


def test_the_profile_is_measured_once_and_kept(monkeypatch, tmp_path):
    """The second process (here: a second load) reads what the first one measured and learned."""
    monkeypatch.setenv("MLX_DDTREE_CACHE", str(tmp_path))
    first = load()
    list(stream_generate(first, PROMPT, 1))
    cost = profile_of(first).cost
    plain = [1.0 for _ in cost.contexts]  # so that it drafts, however fast this machine is
    cost.become(replace(cost, plain=plain))
    list(stream_generate(first, PROMPT, 40))
    store.save(profile_of(first))
    second = profile_of(load())
    now = [seconds * cost.pace.factor for seconds in cost.verification(64)]
    assert second.cost.verification(64) == pytest.approx(now)
    learned = Planner(profile_of(first), greedy=True).calibration
    assert learned.expected.sum() > 0
    np.testing.assert_allclose(Planner(second, greedy=True).calibration.expected, learned.expected, atol=1e-2)
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_unknown_budgets_are_refused():
    for budget in ("many", 1.5, None):
        with pytest.raises(OptionError, match="auto"):
            our_tokens(small_pair(), PROMPT, 4, tree_budget=budget)


@pytest.mark.parametrize(("handed_out", "counted"), [(0.002, 0.002), (0.9, 0.005)])
def test_what_a_caller_takes_counts_as_long_as_the_device_drafts(handed_out, counted):
    """A slow terminal makes no draft dear; what it hides of one is no gift either."""
    prepared = _Prepared(began=1.0, sent=1.001, asked=1.001 + handed_out)
    assert prepared.preparing(drafting=0.005) == pytest.approx(0.001 + counted)
