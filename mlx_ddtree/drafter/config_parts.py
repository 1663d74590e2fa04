"""What some drafters have beside the layers that all share; each has its own reading in config_heads.py."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DFlash2Config:
    """What DFlash 2 adds: the convolutions' taps and channels a group, the selector's rank and candidates.

    selector_vocab_size: the first token id that the selector's tables say nothing of; None where they know all.
    """

    conv_kernel_size: int = 2
    conv_group_size: int = 16
    selector_rank: int = 256
    selector_top_k: int = 16
    selector_vocab_size: int | None = None


@dataclass(frozen=True)
class MarkovConfig:
    """A DSpark drafter's head that scores a token by the ones before it (arXiv 2607.05147).

    kind: 'vanilla', 'gated' or 'rnn'.
    """

    kind: str
    rank: int


@dataclass(frozen=True)
class ConfidenceConfig:
    """A head that says how probably a draft is accepted at each depth, given that all before it were.

    with_markov: whether it reads the Markov head's embedding of the token before.
    temperatures: one a depth, that its logits are divided by; none where the file has none.
    """

    with_markov: bool
    temperatures: tuple[float, ...] = ()


@dataclass(frozen=True)
class DominoConfig:
    """A recurrent cell over the drafted path, whose state corrects the logits (arXiv 2605.29707).

    bottleneck: channels between the cell's state and the vocabulary.  uncorrected: depths from 1 that stay as they are.
    """

    cell_size: int
    bottleneck: int
    uncorrected: int
