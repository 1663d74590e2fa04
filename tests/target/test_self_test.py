"""The test that decides whether an unknown family verifies trees: right targets pass, each planted fault is found."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_ddtree.target import PathTarget, PlainTarget, TreeTarget, make_target
from mlx_ddtree.target.anatomy import OwnHead
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.target.self_test import why_no_trees

from ..every_model import every_model, mute_model
from ..families import FAMILIES, tiny_model, tiny_target


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5", "gpt_oss", "kimi_k25"])
def test_listed_families_pass(name):
    assert why_no_trees(tiny_target(name)) is None


class Consecutive(TreeTarget):
    """Positions as if the rows were one text."""

    def forward_rows(self, token_ids, rows, cache):
        rows.__dict__["positions"] = rows.start + mx.arange(rows.count)[None]
        return super().forward_rows(token_ids, rows, cache)


class Causal(TreeTarget):
    """Every row sees all before it."""

    def forward_rows(self, token_ids, rows, cache):
        def mask(context, window=None, keep=0):
            return mx.tril(mx.ones((rows.count, context + rows.count), mx.bool_), k=context)

        rows.mask = mask
        return super().forward_rows(token_ids, rows, cache)


class OtherPath(TreeTarget):
    """The commit keeps the first rows instead of the path's."""

    def forward_rows(self, token_ids, rows, cache):
        hidden, features, pending = super().forward_rows(token_ids, rows, cache)
        commit = pending.commit
        pending.commit = lambda path: commit(list(range(len(path))))
        return hidden, features, pending


class Unscaled(TreeTarget):
    """A head that forgets what the model multiplies its logits by."""

    def unembed(self, hidden):
        return 2 * super().unembed(hidden)


@pytest.mark.parametrize("fault", [Consecutive, Causal, OtherPath, Unscaled])
def test_a_fault_is_found(fault):
    assert why_no_trees(fault(tiny_model(FAMILIES["llama, no groups"]))) is not None


@pytest.mark.parametrize("fault", [Causal, OtherPath])
def test_a_fault_in_a_recurrent_layer_is_found(fault):
    """A path's states are not another path's."""

    class Faulty(fault):
        def forward_rows(self, token_ids, rows, cache):
            if fault is Causal:  # all rows run as one text through the recurrences
                rows.__dict__["paths"] = (np.arange(rows.count)[None], np.arange(rows.count))
            return super().forward_rows(token_ids, rows, cache)

    assert why_no_trees(Faulty(every_model("mamba2"))) is not None


def test_a_model_without_differences_says_nothing():
    """Where all paths give the same, a wrong tree would pass: such a test counts for nothing."""
    assert "too coarse" in why_no_trees(TreeTarget(mute_model()))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("qwen2", TreeTarget), ("lfm2", TreeTarget), ("bailing_hybrid", TreeTarget), ("llama4", PathTarget)],
)
def test_unlisted_families_are_tried(name, kind):
    assert type(make_target(every_model(name))) is kind


def test_a_model_that_fails_decodes_plainly_and_says_why():
    target = make_target(mute_model())
    assert type(target) is PlainTarget
    assert "too coarse" in target.why and target.why in target.because


@pytest.mark.parametrize("name", ["granite", "minicpm", "cohere", "gemma2"])
def test_heads_that_scale_or_cap_give_the_models_logits(name):
    """Whatever a model does behind its norm: bit for bit what its own call gives."""
    model = every_model(name)
    ids = mx.array([[3, 1, 4, 1, 5]])
    want = np.array(model(ids))
    target = TreeTarget(model)
    hidden, _ = target.forward(ids, target.make_cache())
    np.testing.assert_array_equal(np.array(target.unembed(hidden)), want)


def test_a_stack_may_stand_inside_what_text_does_not_need():
    """As in Muse Spark, whose model holds its language model beside a tower for images."""
    model = every_model("qwen2")
    want = np.array(model(mx.array([[3, 1, 4]])))
    holder = nn.Module()
    holder.tower = nn.Linear(2, 2)
    holder.language_model = model.model
    model.model = holder

    class Nested(type(model)):
        def __call__(self, inputs, cache=None):
            return self.lm_head(self.model.language_model(inputs, cache))

        @property
        def layers(self):
            return self.model.language_model.layers

    model.__class__ = Nested
    target = make_target(model)
    assert type(target) is TreeTarget
    assert target.anatomy.name == "model.language_model"
    np.testing.assert_array_equal(
        np.array(OwnHead(target.anatomy)(target.forward(mx.array([[3, 1, 4]]), target.make_cache())[0])), want
    )


def test_rows_know_their_paths():
    """Every row stands in its own path behind its ancestors; padding rows stand where the root does."""
    rng = np.random.default_rng(2)
    from .test_families import random_tree

    for nodes in (0, 1, 5, 17):
        tree = random_tree(rng, nodes)
        paths, places = TreeRows(tree, 3, len(tree) + 2).paths
        for row in range(len(tree)):
            leaf, depth = divmod(int(places[row]), paths.shape[1])
            assert paths[leaf, : depth + 1].tolist() == tree.path_to(row)
        assert (places[len(tree) :] == 0).all()
