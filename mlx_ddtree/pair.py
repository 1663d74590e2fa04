"""A target and the drafter that was trained for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.budget.chunks import ChunkPace
from mlx_ddtree.budget.memory import Memory
from mlx_ddtree.budget.profile import Profile
from mlx_ddtree.drafter.config import default_target_layer_ids
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.errors import PairError, UnsupportedModelError
from mlx_ddtree.grammar.vocabulary import Vocabulary
from mlx_ddtree.pictures.tables import facts_table
from mlx_ddtree.target import PlainTarget, Target, family_of


@dataclass(repr=False)
class Pair:
    """What `load` returns and every decoding function takes; `model, tokenizer = load(...)` works too.

    drafter: None copies from what was said before, and decodes plainly where nothing repeats itself.
    notes: how the pair was loaded (names, folders, revisions, 'adapter_folder' where there is an adapter), for
        --verbose and for the profile's key.
    kernels: 'auto' uses Metal kernels where they agree with MLX's operations and are faster here, 'on' wherever they
        agree, 'off' never.
    profile: what was measured of this pair on this machine, once a round needed it.
    memories: earlier answers that calls asked to be remembered, by file (generation/memory.py).
    openings: with what the chat template begins messages, by template (generation/turns.py).
    chunks: how long chunks of prompts have taken.
    told: whether the user was told what is used in place of a drafter that is missing.
    scorers: what has scored prompts of this pair, by name (pflash/scorers.py).
    vocabularies: the tokenizer as grammars see it, by the tokens that end an answer (generation/grammars.py).
    selections: what prompts and messages have kept, by their content, the last one used last (pflash/compress.py).
    """

    target: Target
    drafter: DFlashDrafter | None
    tokenizer: TokenizerWrapper
    notes: dict[str, Any] = field(default_factory=dict)
    kernels: str = "auto"
    profile: Profile | None = None
    scorers: dict[str, Any] = field(default_factory=dict)
    selections: dict[Any, Any] = field(default_factory=dict)
    memories: dict[str, Memory] = field(default_factory=dict)
    openings: dict[str, Sequence[tuple[int, ...]]] = field(default_factory=dict)
    vocabularies: dict[frozenset[int], Vocabulary] = field(default_factory=dict)
    chunks: ChunkPace = field(default_factory=ChunkPace)
    told: bool = False
    lock: RLock = field(default_factory=RLock, repr=False, compare=False)

    def __iter__(self) -> Iterator[Any]:
        """`model, tokenizer = load(...)` as with mlx-lm: the pair itself stands for the model."""
        yield self
        yield self.tokenizer

    def __post_init__(self) -> None:
        if self.drafter is not None:
            self.target.taps = check_pair(self.target, self.drafter)
            inherit_scales(self.target, self.drafter)

    @property
    def block_size(self) -> int:
        """Tokens of the longest block that is drafted, root included; 1 without a drafter."""
        return 1 if self.drafter is None else self.drafter.config.block_size

    def without_drafter(self) -> Pair:
        """This target alone; what was measured of the pair does not count for it."""
        notes = {key: note for key, note in self.notes.items() if not key.startswith("drafter")}
        return Pair(self.target, None, self.tokenizer, notes, self.kernels, told=True)

    def __repr__(self) -> str:
        """One line: what was loaded, without a word of the networks."""
        target = _name(self.notes.get("target")) or family_of(self.target.model)
        parts = [f"target={target!r}"]
        if self.drafter is None:
            parts.append("drafter=None")
        else:
            parts.append(f"drafter={_name(self.notes.get('drafter', type(self.drafter).__name__))!r}")
            parts.append(f"block_size={self.drafter.config.block_size}")
        if "adapter_folder" in self.notes:
            parts.append(f"adapter={self.notes['adapter_folder']!r}")
        return f"Pair({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """For notebooks: what was loaded, and what was measured of it here."""
        target = self.target
        facts = {"target": f"{_name(self.notes.get('target'))}, {family_of(target.model)}".lstrip(", ")}
        facts["drafter"] = "none: what the text repeats is copied and verified in trees"
        if self.drafter is not None:
            name = _name(self.notes.get("drafter", type(self.drafter).__name__))
            facts["drafter"] = f"{name}, {len(self.drafter.layers)} layers, blocks of {self.block_size} tokens"
        if "adapter_folder" in self.notes:
            facts["adapter"] = _name(self.notes["adapter_folder"])
        facts["context"] = "no limit that its configuration says"
        if target.max_context is not None:
            facts["context"] = f"{target.max_context:,} tokens"
        facts["measured here"] = "at the first answer"
        if self.profile is not None:
            facts["measured here"] = self.profile.cost.line()
        return facts_table("Pair", facts)


def _name(note: str | None) -> str:
    """A repository as it is; of a folder its last two parts."""
    return "/".join(Path(note).parts[-2:]) if note and Path(note).is_absolute() else note or ""


def check_pair(target: Target, drafter: DFlashDrafter) -> tuple[int, ...]:
    """The target layers that the drafter taps.  Raises PairError with the reason if they do not fit.

    The sizes of the two vocabularies may differ, as they do where a fine-tune has cut or added rows of its embedding: a
    drafter speaks through the target's embedding and head.  Only what is indexed by token has to reach as far: the
    mask token, the drafter's own embedding, and tables that score tokens by others.
    """
    if isinstance(target, PlainTarget):
        raise UnsupportedModelError(
            f"model type {target.model_type!r} verifies no drafts here{target.because}, so it takes no drafter; "
            "load it with draft=False for plain decoding"
        )
    config = drafter.config
    taps = config.target_layer_ids or default_target_layer_ids(target.num_layers, drafter.num_taps)
    problems = []
    if config.hidden_size != target.hidden_size:
        problems.append(f"hidden size {config.hidden_size}, but the target's is {target.hidden_size}")
    known = config.vocab_size or target.vocab_size
    if known < target.vocab_size and (drafter.scores_pairs or config.own_embedding):
        problems.append(f"tables for {known} tokens, but the target's vocabulary has {target.vocab_size}")
    if known > target.vocab_size and config.own_head:
        problems.append(f"a head for {known} tokens, but the target's vocabulary has {target.vocab_size}")
    if min(taps) < 0 or max(taps) >= target.num_layers:
        problems.append(f"taps layers {taps}, but the target has layers 0..{target.num_layers - 1}")
    if config.mask_token_id >= target.vocab_size:
        problems.append(f"mask token {config.mask_token_id} is outside the target's vocabulary")
    if problems:
        raise PairError(f"this drafter was not made for this target: {'; '.join(problems)}")
    return taps


def inherit_scales(target: Target, drafter: DFlashDrafter) -> None:
    """Give the drafter the target's embedding scale and logit soft cap where its config has none of its own.

    A drafter that speaks through the target's embedding and head was trained behind what scales them.  Heads that add
    to the logits were trained on the head's own (DeepSpec, SpecForge), and so were drafters with a head of theirs.
    """
    if isinstance(target, PlainTarget):
        return
    config = drafter.config
    if config.embed_scale == 1.0 and not config.own_embedding:
        drafter.config = replace(drafter.config, embed_scale=target.embed_scale)
    if config.logit_softcap is None and not config.own_head and config.markov is None and config.domino is None:
        drafter.config = replace(drafter.config, logit_softcap=target.logit_softcap)
