"""From the name of a scorer to the scorer; a pair keeps those it has used."""

from __future__ import annotations

from mlx_ddtree.errors import OptionError, UnsupportedModelError
from mlx_ddtree.hub.load_target import load_target
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.bridge import BridgedScorer
from mlx_ddtree.pflash.lexical import LexicalScorer
from mlx_ddtree.pflash.scoring import Scorer, TailAttentionScorer, closing_tokens
from mlx_ddtree.target import PlainTarget


def scorer_of(pair: Pair, scorer: str | Scorer) -> Scorer:
    """'self', 'lexical', the folder or repository of a model, or a scorer already.  Raises what loading raises."""
    if not isinstance(scorer, str):
        if not callable(scorer):
            raise OptionError(f"{scorer!r} is no scorer: give 'self', 'lexical', a model or a function of token ids")
        return scorer
    if scorer not in pair.scorers:
        pair.scorers[scorer] = _make(pair, scorer)
    return pair.scorers[scorer]


def _make(pair: Pair, name: str) -> Scorer:
    closing = closing_tokens(pair.tokenizer)
    if name == "self":
        pair.target.on_one_machine("scoring prompts by the target's own layers (--prefill-scorer self, not lexical)")
        if isinstance(pair.target, PlainTarget):
            raise UnsupportedModelError(
                f"model type {pair.target.model_type!r} cannot score its own prompts; give another model as the scorer "
                "(--prefill-scorer), or 'lexical'"
            )
        return TailAttentionScorer(pair.target, closing=closing)
    if name == "lexical":
        return LexicalScorer(closing=closing)
    loaded = load_target(name)
    model = loaded.target.model
    if loaded.tokenizer.get_vocab() == pair.tokenizer.get_vocab():
        return TailAttentionScorer(model, closing=closing)
    return BridgedScorer(TailAttentionScorer(model), loaded.tokenizer, pair.tokenizer, closing=closing)
