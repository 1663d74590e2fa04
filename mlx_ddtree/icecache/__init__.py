"""IceCache: keys in pages of what belongs together, of which a query reads the best few (arXiv 2604.10539)."""

from __future__ import annotations

from typing import Literal, get_args

from mlx_ddtree.errors import OptionError
from mlx_ddtree.icecache.index.dci_tree import DciTree
from mlx_ddtree.icecache.index.pages import GreedyPages, PageIndex, SequentialPages
from mlx_ddtree.icecache.index.ranking import IndexRanking

Formation = Literal["dci", "greedy", "sequential"]


def make_pages(formation: Formation, ranking: IndexRanking, dim: int, page_size: int = 16, seed: int = 0) -> PageIndex:
    """An empty index over keys (n, dim).

    formation: which tokens share a page.
    ranking: page_mean by the page's mean key, page_max by its best key, tree by the best keys that a descent meets.
    Raises OptionError for a name that is not known and a ranking that the formation does not have.
    """
    for name, value, known in (("formation", formation, Formation), ("ranking", ranking, IndexRanking)):
        if value not in get_args(known):
            raise OptionError(f"unknown page {name} {value!r}; choose from {', '.join(get_args(known))}")
    if page_size < 1:
        raise OptionError(f"a page size of {page_size} holds no token; give 1 or more")
    if ranking == "tree" and formation != "dci":
        raise OptionError(f"ranking 'tree' needs pages of formation 'dci', not {formation!r}")
    if formation == "dci":
        return DciTree(dim, page_size, ranking, seed)
    if formation == "greedy":
        return GreedyPages(dim, page_size, ranking)
    return SequentialPages(dim, page_size, ranking)


__all__ = ["Formation", "IndexRanking", "PageIndex", "make_pages"]
