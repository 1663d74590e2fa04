"""What a cache that is read in part keeps in reach, and how the rest is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mlx_ddtree.errors import OptionError
from mlx_ddtree.icecache import Formation

Select = Literal["root", "union", "node"]
"""Whose queries choose the pages that a draft tree reads."""
PageRanking = Literal["page_mean", "page_mass", "page_max", "tree"]
"""By what the pages are put in order."""

PUBLISHED = "published"
"""In place of a budget: the sizes, pages and ranking that the paper reports (arXiv 2604.10539), to compare with."""
PAGE = 8
"""Tokens of a page where nobody says."""
SMALL_PAGE = 4
SMALL_BUDGET = 128
"""Budgets of up to this many tokens have small pages: few large ones catch less (docs/icecache.md)."""


@dataclass(frozen=True)
class IceCacheOptions:
    """Which tokens of a long context a layer reads in a round.  Approximate: the others are left out.

    budget: context tokens that a layer may read: sinks, pages and window together; the rows of the draft tree come
        on top.  Contexts of up to so many tokens are read whole.
    page_size: tokens of a page; the window passes tokens on by whole pages.  0: 8, for budgets of up to 128 tokens 4.
    sinks: first tokens of the text, always read.
    window: most recent tokens, always read; None: a quarter of the budget.  Up to page_size - 2 more wait there.
    full_layers: layers at the bottom that read everything.
    reuse: layers that share a choice of pages, that of the first of them.
    formation: which tokens share a page (`make_pages`).
    ranking: pages by their mean key; by their attention mass, if their keys were normally distributed (`summary`);
        by their best key, which reads every key, though no value; or by a descent of the DCI tree, on the host.
    select: whose queries choose: the root's for the whole tree, all nodes' in turns, or every node its own.  The
        last equals plain decoding under the same budget and costs as much for every node.
    offload: folder for the keys and values of pages, which then are no longer in memory.
    """

    budget: int
    page_size: int = 0
    sinks: int = 4
    window: int | None = None
    full_layers: int = 2
    reuse: int = 1
    formation: Formation = "sequential"
    ranking: PageRanking = "page_mass"
    select: Select = "root"
    offload: str | Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.page_size == 0:
            default = SMALL_PAGE if self.budget <= SMALL_BUDGET else PAGE
            object.__setattr__(self, "page_size", default)
        for name, kinds in (("formation", Formation), ("ranking", PageRanking), ("select", Select)):
            if getattr(self, name) not in get_args(kinds):
                raise OptionError(f"unknown {name} {getattr(self, name)!r}; choose one of {', '.join(get_args(kinds))}")
        if self.page_size < 1 or self.reuse < 1:
            raise OptionError("page_size and reuse must be at least 1")
        if self.sinks < 0 or self.full_layers < 0 or self.recent < 1:
            raise OptionError("sinks and full_layers must be at least 0, window at least 1")
        if self.retrieved < self.page_size:
            raise OptionError(
                f"a KV budget of {self.budget} tokens has no room for a page: {self.sinks} sinks, a window of "
                f"{self.recent} and pages of {self.page_size} need {self._least_budget()} or more"
            )
        if self.ranking == "tree" and self.formation != "dci":
            raise OptionError(f"ranking 'tree' needs formation 'dci', not {self.formation!r}")
        self._check_offload()

    def _least_budget(self) -> int:
        """The smallest budget that holds the sinks, the window at its largest and one page."""
        beside_the_window = self.sinks + 2 * self.page_size - 2
        if self.window is not None:
            return beside_the_window + self.window
        return (4 * beside_the_window - 1) // 3  # the window takes a quarter of it

    def _check_offload(self) -> None:
        """Raises OptionError for a folder that is none, and for a ranking that needs the keys in memory."""
        if self.offload is None:
            return
        if self.ranking == "page_max":
            raise OptionError("ranking 'page_max' reads every key: use 'page_mean' with pages on disk")
        if not Path(self.offload).is_dir():
            raise OptionError(f"{self.offload} is no folder: create it, or choose another for the cache's pages")

    @classmethod
    def of(
        cls, budget: int | str | IceCacheOptions | None, page_size: int = 0, offload: str | Path | None = None
    ) -> IceCacheOptions | None:
        """Options from what a caller gave: a number of tokens, PUBLISHED, or options already; None is off.

        page_size, offload: of options that are made here.

        Raises OptionError.
        """
        if budget is None or isinstance(budget, IceCacheOptions):
            return budget
        if not isinstance(budget, str) and hasattr(budget, "__index__"):
            return cls(int(budget), page_size, offload=offload)
        if budget != PUBLISHED:
            raise OptionError(f"kv_budget is {budget!r}; use a number of tokens, or {PUBLISHED!r}")
        if page_size:
            raise OptionError(f"kv_budget {PUBLISHED!r} has pages of 16 tokens: leave out kv_page_size")
        return cls(256, 16, sinks=32, window=32, formation="dci", ranking="tree", offload=offload)

    @property
    def recent(self) -> int:
        """Tokens that the window holds at least, the row that reads included."""
        if self.window is None:
            return max(self.budget // 4, 1)
        return self.window

    @property
    def retrieved(self) -> int:
        """Tokens read from pages: what is left when the window is at its largest."""
        return self.budget - self.sinks - (self.recent + self.page_size - 2)

    def reads_all(self, start: int) -> bool:
        """Whether a row behind `start` tokens reads all of them."""
        return start <= self.budget

    def page_end(self, start: int) -> int:
        """Where pages end when a row at position `start` reads: they hold the tokens [sinks, page_end).

        Pages are whole; `recent` to recent + page_size - 1 tokens stand behind them, the row itself included.
        """
        left_the_window = max(start + 1 - self.recent - self.sinks, 0)
        return self.sinks + left_the_window // self.page_size * self.page_size

    def room(self, start: int) -> int:
        """Rows from position `start` on that read the same pages and the same way."""
        if self.reads_all(start):
            return self.budget + 1 - start
        return self.page_end(start) + self.recent + self.page_size - 1 - start
