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
from mlx_ddtree.kernels import gated_delta_metal
from mlx_ddtree.kernels.attention_plan import plan_launch
from mlx_ddtree.kernels.choice import MLX, MOST_ROWS, KernelChoice, KernelSet
from mlx_ddtree.kernels.metal import launch_on_metal
from mlx_ddtree.kernels.quantized import tile_rows
from mlx_ddtree.kernels.registry import DRAFT, TOP_K, kernel_choice, options
from mlx_ddtree.tuning import agree, alone, candidates, choose, store
from mlx_ddtree.tuning.agree import checked_rows, examine
from mlx_ddtree.tuning.choose import choose_kernels, mode_of
from mlx_ddtree.tuning.measure import profile_of
from mlx_ddtree.tuning.rounds import filled
from mlx_ddtree.tuning.timings import OutOfTime, Timings

from .. import families, helpers
from ..kernels.test_guard import TEXTS as FAILING
from ..metal_host import HostLaunch, missing_compiler

pytestmark = pytest.mark.skipif(missing_compiler() is not None, reason=str(missing_compiler()))
ALWAYS = {"tree_attention", "head_topk", "gather_rows"}
PROMPT = [3, 14, 15, 9, 26, 5, 35]
TEXTS = FAILING | {"gather_rows": {"gather_rows"}}


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    monkeypatch.setattr(choose, "SIZES", (4, 8))
    monkeypatch.setattr(choose, "CONTEXT", 20)
    monkeypatch.setattr(agree, "CHECKED", (4, 8, 17))
    monkeypatch.setattr(alone, "TOGETHER", 1)
    monkeypatch.setattr(alone, "LONG_CONTEXT", 64)


def quantised_pair():
    return helpers.small_pair(bits=4)


def hybrid_pair():
    return families.tiny_pair("qwen3_5")


def with_seconds(monkeypatch, alone_by_part, whole=lambda names: 0.5 if names else 1.0):
    """Timings without a clock: of calls alone by part (kernel's, in MLX's), of verifications by the kernels' names."""

    def seconds_of(calls):
        call, _ = calls[0]
        long = call.how.get("context", 0) >= 60
        return {"kernel": alone_by_part("long" if long else call.part), "MLX": 1.0}

    monkeypatch.setattr(choose, "seconds_of", seconds_of)
    monkeypatch.setattr(candidates, "fastest", lambda sides: {"kernel": alone_by_part("top"), "MLX": 1.0})
    monkeypatch.setattr(choose, "timed", lambda run: whole(run.args[2].names))


def names_of(chosen):
    return {name.partition("@")[0] for names in chosen.values() for name in names}


@pytest.mark.parametrize(("make", "special"), [(quantised_pair, "verify_qmm"), (hybrid_pair, "tree_gated_delta")])
def test_all_that_a_model_has_agree(make, special):
    """And what it has not is neither called nor used."""
    chosen, findings = choose_kernels(make(), "on", HostLaunch("fast"))
    assert {rows: set(names) for rows, names in chosen.items()} == {
        4: ALWAYS | {special},
        8: ALWAYS | {special},
        DRAFT: {TOP_K},
    }
    for finding in findings:
        assert finding.agrees == (finding.error is not None) == (finding.name in {*ALWAYS, special, TOP_K})


@pytest.mark.parametrize(("seconds", "used"), [(0.5, True), (0.97, True), (0.99, False), (2.0, False)])
def test_kernels_are_used_where_they_win_alone_and_in_whole_verifications(monkeypatch, seconds, used):
    every = {*ALWAYS, "verify_qmm", TOP_K} if used else set()
    with_seconds(monkeypatch, lambda part: seconds)
    chosen, findings = choose_kernels(quantised_pair(), "auto", HostLaunch("fast"))
    assert names_of(chosen) == every
    assert all(s == pytest.approx(1 / seconds) for f in findings if f.name != "together" for s in f.speedup.values())
    with_seconds(monkeypatch, lambda part: 0.5, lambda names: seconds if names else 1.0)
    chosen, findings = choose_kernels(quantised_pair(), "auto", HostLaunch("fast"))
    assert names_of(chosen) == every | {TOP_K}


def test_products_are_chosen_by_the_shape_of_their_weights(monkeypatch):
    """k and v projections have too few columns to fill a GPU by this kernel."""
    with_seconds(monkeypatch, lambda part: 0.5 if part == "64x32" else 2.0)
    chosen, _ = choose_kernels(quantised_pair(), "auto", HostLaunch("fast"))
    assert chosen[4] == chosen[8] == ["verify_qmm@64x32"]


@pytest.mark.parametrize(("short", "long", "name"), [(0.5, 0.5, ""), (1.0, 0.5, "@4096"), (0.5, 1.0, None)])
def test_attention_is_chosen_by_context(monkeypatch, short, long, name):
    with_seconds(monkeypatch, lambda part: {"": short, "long": long}.get(part, 2.0))
    chosen, _ = choose_kernels(quantised_pair(), "auto", HostLaunch("fast"))
    attention = [n for n in chosen[8] if n.startswith("tree_attention")]
    assert attention == ([] if name is None else [f"tree_attention{name}"])


def test_what_wins_alone_and_loses_in_company_is_left_out(monkeypatch):
    """All together lose; one after the other, those that gain stay."""

    def whole(names):
        return 1.0 + sum({"tree_attention": 3.0, "gather_rows": -0.5}.get(name, 0.0) for name in names)

    with_seconds(monkeypatch, lambda part: 0.5, whole)
    chosen, findings = choose_kernels(quantised_pair(), "auto", HostLaunch("fast"))
    assert chosen[4] == ["gather_rows"]
    together = next(f for f in findings if f.name == "together")
    assert together.speedup == {4: 2.0, 8: 2.0}


def test_both_sides_are_timed():
    """The processor runs this kernel a thousand times slower than MLX's product."""
    pair, known = quantised_pair(), Timings(None)
    chosen, findings = choose_kernels(pair, "auto", HostLaunch("fast"), known)
    assert not any(name.startswith("verify_qmm") for name in chosen[8])
    product = next(f for f in findings if f.name == "verify_qmm")
    ours, mlx = (
        sum(taken for name, taken in known.seconds.items() if name.endswith(f"at 8 rows by {side}") and "qmm@" in name)
        for side in ("kernel", "MLX")
    )
    assert product.agrees and 0 < mlx < ours


def test_an_interrupted_choice_goes_on(monkeypatch):
    """What is known of a size is not measured again, and the outcome is the same."""
    pair, known = quantised_pair(), Timings(None)
    with_seconds(monkeypatch, lambda part: 0.5)
    first = choose_kernels(pair, "auto", HostLaunch("fast"), known)

    def never(*args, **how):
        raise AssertionError("measured again")

    again = Timings(None, 0.0, known.seconds)
    assert choose_kernels(pair, "auto", never, again) == first
    part = {name: number for name, number in known.seconds.items() if "17 rows" not in name}
    with pytest.raises(OutOfTime):
        choose_kernels(pair, "auto", never, Timings(None, 0.0, part))


@pytest.mark.parametrize("name", ["tree_attention", "verify_qmm", "head_topk", "gather_rows", "tree_gated_delta"])
def test_a_kernel_that_computes_something_else_is_not_used(name, caplog):
    host = HostLaunch("fast")
    files = TEXTS[name]

    def wrong(kernel, inputs, **how):
        outputs = host(kernel, inputs, **how)
        if kernel.name not in files:
            return outputs
        return [x * 1.2 if mx.issubdtype(x.dtype, mx.floating) else x + 1 for x in outputs]

    with caplog.at_level(logging.WARNING):
        chosen, findings = choose_kernels(hybrid_pair() if "delta" in name else quantised_pair(), "on", wrong)
    finding = next(f for f in findings if f.name == name)
    assert not finding.agrees and finding.error > 1e-3 and name not in names_of(chosen)
    assert len(names_of(chosen)) >= 3  # the others are as they were
    assert caplog.text.count(f"kernel {name} disagrees") == 1 and "doctor" in caplog.text


def test_a_kernel_that_does_not_run_is_not_used(caplog):
    """Without Metal none does; the verification that tried it leaves the caches as they were."""
    state = filled(quantised_pair(), 20)
    before = [np.array(x) for layer in state.caches.target for x in layer.keys_and_values()]
    found = examine(state, options(launch_on_metal), 8)
    if not mx.metal.is_available():
        assert not any(agreement.agrees for agreement in found.agreements.values())
    after = [np.array(x) for layer in state.caches.target for x in layer.keys_and_values()]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def above(rows, host, files, fault):
    """A launch whose kernels are at fault for more rows than that, which is another variant of them."""

    def launch(kernel, inputs, **how):
        outputs = host(kernel, inputs, **how)
        if kernel.name not in files or not any(size > rows for x in inputs for size in x.shape[:-1] if size < 32):
            return outputs
        return fault(outputs)

    return launch


def raises(outputs):
    raise RuntimeError("more threads than the pipeline grants\nand a long trace")


def thrice(outputs):
    """The first output wrong; where all are three times too large, a quotient of two of them is right again."""
    first, *rest = outputs
    return [first * 3 if mx.issubdtype(first.dtype, mx.floating) else first + 1, *rest]


@pytest.mark.parametrize("name", ["tree_attention", "verify_qmm", "head_topk", "gather_rows", "tree_gated_delta"])
@pytest.mark.parametrize("fault", [raises, thrice])
def test_a_fault_of_a_larger_variant_drops_the_kernel_and_ends_nothing(caplog, name, fault):
    """Checked at 13 rows alone these were chosen, and met while a text was decoded."""
    launch = above(16, HostLaunch("fast"), TEXTS[name], fault)
    pair = hybrid_pair() if name == "tree_gated_delta" else quantised_pair()
    with caplog.at_level(logging.WARNING):
        chosen, _ = choose_kernels(pair, "on", launch)
    assert name not in names_of(chosen) and len(names_of(chosen)) >= 3
    warnings = [record.message for record in caplog.records if f"kernel {name} " in record.message]
    assert len(warnings) == 1 and "\n" not in warnings[0]


def test_a_fault_while_timing_alone_drops_the_kernel(monkeypatch, caplog):
    def seconds_of(calls):
        call, _ = calls[0]
        if call.part:
            raise RuntimeError("no pipeline")
        return {"kernel": 0.5, "MLX": 1.0}

    with_seconds(monkeypatch, lambda part: 0.5)
    monkeypatch.setattr(choose, "seconds_of", seconds_of)
    with caplog.at_level(logging.WARNING):
        chosen, findings = choose_kernels(quantised_pair(), "auto", HostLaunch("fast"))
    assert "verify_qmm" not in names_of(chosen) and "tree_attention" in names_of(chosen)
    assert not next(f for f in findings if f.name == "verify_qmm").agrees


def test_a_fault_in_company_drops_the_kernel_everywhere(monkeypatch, caplog):
    with_seconds(monkeypatch, lambda part: 0.5)
    host, in_company = HostLaunch("fast"), []

    def launch(kernel, inputs, **how):
        if in_company and kernel.name in TEXTS["verify_qmm"]:
            raise RuntimeError("no pipeline")
        return host(kernel, inputs, **how)

    def timed(run):
        in_company.append(run)
        run()
        return 0.5 if run.args[2].names else 1.0

    monkeypatch.setattr(choose, "timed", timed)
    with caplog.at_level(logging.WARNING):
        chosen, findings = choose_kernels(quantised_pair(), "auto", launch)
    assert "verify_qmm" not in names_of(chosen) and "tree_attention" in names_of(chosen)
    assert not next(f for f in findings if f.name == "verify_qmm").agrees


def test_candidates_that_cannot_be_launched_come_from_mlx(caplog):
    def broken(kernel, inputs, **how):
        raise RuntimeError("no pipeline")

    with caplog.at_level(logging.WARNING):
        names, finding = candidates.choose_top_k(quantised_pair(), "on", broken)
    assert names == [] and not finding.agrees and "topk_logprobs cannot run here" in caplog.text


def test_candidates_that_are_wrong_come_from_mlx():
    host = HostLaunch("fast")
    names, finding = candidates.choose_top_k(quantised_pair(), "on", lambda *a, **how: thrice(host(*a, **how)))
    assert names == [] and not finding.agrees


@pytest.mark.parametrize("group", [1, 2, 3, 4, 5, 6, 7, 8, 12, 16])
@pytest.mark.parametrize(("columns", "itemsize"), [(64, 2), (80, 2), (96, 2), (128, 2), (192, 2), (256, 2), (256, 4)])
def test_every_variant_of_up_to_128_rows_is_checked(monkeypatch, group, columns, itemsize):
    monkeypatch.undo()

    def variants(rows):
        plan = plan_launch(rows * group, 8, 1024 + rows, columns, itemsize, 80)
        attention = (plan.rows,) if plan.few else (plan.blocks, plan.key_groups)
        return {("attention", *attention), ("delta", gated_delta_metal._capacity(rows))} | (
            {("product", tile_rows(rows))} if rows <= 32 else set()
        )

    checked = set().union(*(variants(rows) for rows in checked_rows(group)))
    assert set().union(*(variants(rows) for rows in range(2, MOST_ROWS + 1))) <= checked


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
