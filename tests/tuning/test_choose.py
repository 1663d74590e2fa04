"""Kernels are used where they agree with MLX's operations and are faster, and rounds with them emit the same tokens.

Here every kernel's own text runs on the processor, through the same launches that a Mac's GPU would get.
"""

import logging

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.generate import stream_generate as stock

from mlx_ddtree import load, stream_generate
from mlx_ddtree.errors import OptionError
from mlx_ddtree.kernels.choice import MLX, KernelChoice, KernelSet
from mlx_ddtree.kernels.metal import launch_on_metal
from mlx_ddtree.kernels.registry import DRAFT, TOP_K, kernel_choice, options
from mlx_ddtree.tuning import choose, measure, store
from mlx_ddtree.tuning.choose import check, choose_kernels, mode_of
from mlx_ddtree.tuning.measure import profile_of

from .. import families, helpers
from ..metal_host import HostLaunch, missing_compiler

pytestmark = pytest.mark.skipif(missing_compiler() is not None, reason=str(missing_compiler()))
ALWAYS = {"tree_attention", "head_topk", "gather_rows"}
PROMPT = [3, 14, 15, 9, 26, 5, 35]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    monkeypatch.setattr(choose, "SIZES", (4, 8))
    monkeypatch.setattr(choose, "CHECKED", (4, 13))


def quantised_pair():
    return helpers.small_pair(bits=4)


def hybrid_pair():
    return families.tiny_pair("qwen3_5")


def state_of(pair, length=20):
    return measure._filled(pair, length)


@pytest.mark.parametrize(("make", "special"), [(quantised_pair, "verify_qmm"), (hybrid_pair, "tree_gated_delta")])
def test_all_that_a_model_has_agree(make, special):
    """And what it has not is neither called nor used."""
    chosen, findings = choose_kernels(state_of(make()), "on", HostLaunch("fast"))
    assert {rows: set(names) for rows, names in chosen.items()} == {
        4: ALWAYS | {special},
        8: ALWAYS | {special},
        DRAFT: {TOP_K},
    }
    for finding in findings:
        assert finding.agrees == (finding.error is not None) == (finding.name in {*ALWAYS, special, TOP_K})


@pytest.mark.parametrize(("seconds", "used"), [(0.5, True), (0.97, True), (0.99, False), (2.0, False)])
def test_kernels_are_used_where_whole_verifications_are_faster(monkeypatch, seconds, used):
    monkeypatch.setattr(choose, "fastest", lambda sides: {False: 1.0, True: seconds})
    chosen, findings = choose_kernels(state_of(quantised_pair()), "auto", HostLaunch("fast"))
    every = {*ALWAYS, "verify_qmm"} if used else set()
    assert set(chosen[4]) == set(chosen[8]) == every and chosen[DRAFT] == ([TOP_K] if used else [])
    assert {s for f in findings for s in f.speedup.values()} == {1 / seconds}


def test_both_sides_are_timed():
    """The processor runs this kernel a thousand times slower than MLX's product."""
    state, option = state_of(quantised_pair()), options(HostLaunch("fast"))[1]
    finding = check(state, option)
    assert not choose._is_faster(state, 8, option, finding, [], [option])
    assert 0 < finding.speedup[8] < 1


@pytest.mark.parametrize("name", ["tree_attention", "verify_qmm", "head_topk", "gather_rows"])
def test_a_kernel_that_computes_something_else_is_not_used(name, caplog):
    host = HostLaunch("fast")

    def wrong(kernel, inputs, **how):
        return [x * 1.01 if mx.issubdtype(x.dtype, mx.floating) else x + 1 for x in host(kernel, inputs, **how)]

    option = next(o for o in options(wrong) if o.name == name)
    with caplog.at_level(logging.WARNING):
        finding = check(state_of(quantised_pair()), option)
    assert not finding.agrees and finding.error > 1e-3
    assert f"kernel {name} disagrees" in caplog.text and "doctor" in caplog.text


def test_a_kernel_that_does_not_run_is_not_used(caplog):
    """Without Metal none does; the verification that tried it leaves the caches as they were."""
    state = state_of(quantised_pair())
    before = [np.array(x) for layer in state.target_cache for x in layer.keys_and_values()]
    with caplog.at_level(logging.WARNING):
        findings = [check(state, option) for option in options(launch_on_metal)]
    if not mx.metal.is_available():
        assert not any(finding.agrees for finding in findings)
        assert "cannot run here" in caplog.text
    after = [np.array(x) for layer in state.target_cache for x in layer.keys_and_values()]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def above(rows, host, fault):
    """A launch whose kernels are at fault when one of their arrays has more than `rows` rows, which is another variant."""

    def launch(kernel, inputs, **how):
        outputs = host(kernel, inputs, **how)
        return fault(outputs) if any(size > rows for x in inputs[:1] for size in x.shape[:-1]) else outputs

    return launch


def raises(outputs):
    raise RuntimeError("more threads than the pipeline grants\nand a long trace")


@pytest.mark.parametrize("name", ["verify_qmm", "head_topk"])
@pytest.mark.parametrize("fault", [raises, lambda outputs: [x * 3 if x.dtype != mx.uint32 else x for x in outputs]])
def test_a_fault_of_a_larger_variant_drops_the_kernel_and_ends_nothing(monkeypatch, caplog, name, fault):
    """Checked at 13 rows alone these were chosen, and met while a text was decoded."""
    monkeypatch.setattr(choose, "CHECKED", (8, 17))
    launch = above(16, HostLaunch("fast"), fault)
    with caplog.at_level(logging.WARNING):
        chosen, _ = choose_kernels(state_of(quantised_pair()), "on", launch)
    assert name not in {kernel for names in chosen.values() for kernel in names}
    warnings = [record.message for record in caplog.records if f"kernel {name} " in record.message]
    assert len(warnings) == 1 and "\n" not in warnings[0]


def test_a_fault_while_timing_drops_the_kernel_everywhere(monkeypatch, caplog):
    calls = []

    def broken(sides):
        calls.append(1)
        if len(calls) == 5:  # the first kernel at the second size
            raise RuntimeError("no pipeline")
        return {False: 1.0, True: 0.5}

    monkeypatch.setattr(choose, "fastest", broken)
    with caplog.at_level(logging.WARNING):
        chosen, findings = choose_kernels(state_of(quantised_pair()), "auto", HostLaunch("fast"))
    assert "tree_attention" not in [*chosen[4], *chosen[8]] and "verify_qmm" in chosen[8]
    assert not next(f for f in findings if f.name == "tree_attention").agrees


def test_candidates_that_cannot_be_launched_come_from_mlx(caplog):
    def broken(kernel, inputs, **how):
        raise RuntimeError("no pipeline")

    with caplog.at_level(logging.WARNING):
        names, finding = choose.choose_top_k(state_of(quantised_pair()), "on", broken)
    assert names == [] and not finding.agrees and "topk_logprobs cannot run here" in caplog.text


def test_the_environment_overrules_what_is_asked_for(monkeypatch):
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    assert [mode_of(mode) for mode in ("auto", "on", "off")] == ["auto", "on", "off"]
    monkeypatch.setenv("MLX_DDTREE_KERNELS", "off")
    assert mode_of("on") == "off"
    monkeypatch.setenv("MLX_DDTREE_KERNELS", "sometimes")
    with pytest.raises(OptionError, match="sometimes"):
        mode_of("auto")


def test_without_metal_there_is_nothing_to_choose(monkeypatch):
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    assert mode_of("auto") == "off"
    with pytest.raises(OptionError, match="needs Metal"):
        mode_of("on")
    pair = quantised_pair()
    assert profile_of(pair).kernels == {} and pair.target.kernels.of(8) is MLX


def test_a_size_uses_what_was_chosen_for_the_next_larger_one():
    four, sixteen = KernelSet(product=print), KernelSet(product=repr)
    known = KernelChoice({4: four, 16: sixteen})
    assert [known.of(n) for n in (1, 4, 5, 16, 64)] == [four, four, sixteen, sixteen, sixteen]


def test_the_choice_is_kept_with_the_profile(tmp_path):
    profile = profile_of(quantised_pair())
    profile.path, profile.kernels = tmp_path / "profile.json", {4: ["verify_qmm"], DRAFT: [TOP_K]}
    store.save(profile)
    again = store.load(profile.path, profile.block_size)
    assert again.kernels == profile.kernels
    choice = kernel_choice(again.kernels, HostLaunch("fast"))
    assert choice.of(3).product is not None and choice.of(3).attention is None
    assert kernel_choice({4: ["a kernel of another version"]}).of(4) == MLX


def said(pair, ids, count, **how):
    return [t for r in stream_generate(pair, ids, count, **how) for t in r.tokens]


def with_kernels(pair, launch):
    profile_of(pair)
    pair.target.kernels = kernel_choice({8: [o.name for o in options(launch)], DRAFT: [TOP_K]}, launch)
    return pair


@pytest.mark.parametrize("make", [quantised_pair, hybrid_pair])
@pytest.mark.parametrize("how", [{"tree_budget": 6}, {"tree_budget": 6, "parity": "off"}])
def test_rounds_by_kernels_emit_the_same_tokens(make, how):
    launch = HostLaunch("fast")
    want = said(make(), PROMPT, 16, method="ar")
    assert said(with_kernels(make(), launch), PROMPT, 16, **how) == want
    ran = {x.kernel for x in launch.launches}
    assert {"topk_logprobs", "head_topk_dense" if make is hybrid_pair else "head_topk"} <= ran
    assert ran & {"tree_attention", "few_rows_attention"} and ran & {"verify_qmm", "tree_gated_delta"}


def test_logits_can_still_be_looked_at():
    """The LM head's kernel writes none; they are computed for who asks."""
    plain, ours = quantised_pair(), with_kernels(quantised_pair(), HostLaunch("fast"))
    for a, b in zip(
        stream_generate(plain, PROMPT, 8, tree_budget=6), stream_generate(ours, PROMPT, 8, tree_budget=6), strict=True
    ):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)


@pytest.mark.slow
def test_the_embedded_pair_by_kernels_says_what_mlx_lm_says():
    pair = load()
    messages = [{"role": "user", "content": "Write a function that reverses a string."}]
    ids = list(pair.tokenizer.apply_chat_template(messages, add_generation_prompt=True))
    want = [r.token for r in stock(pair.target.model, pair.tokenizer, ids, max_tokens=48)]
    launch = HostLaunch("fast")
    assert said(with_kernels(pair, launch), ids, 48, tree_budget=12) == want
    assert {x.kernel for x in launch.launches} == {
        *("tree_attention", "merge_attention", "head_topk_dense", "topk_merge", "topk_logprobs", "gather_rows")
    }
