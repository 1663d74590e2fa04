"""IceCache (arXiv 2604.10539): a key-value cache of which a row reads sinks, some pages, the recent window, the tree.

Positions are true and all keys are kept; what is approximate is which of them a row of decoding looks at.  Prompts
are read as always.  In unified memory nothing has to move for that: pages are lists of positions, and a choice of
pages is one gather.  Only committed tokens are ever in pages, because those of the window are not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from mlx_ddtree.icecache.options import IceCacheOptions
from mlx_ddtree.icecache.select import PageSet
from mlx_ddtree.icecache.store import ColdRows
from mlx_ddtree.kernels.tree_attention import KeysOrValues
from mlx_ddtree.target.attention import AttendingCache, scaled_dot_product_attention
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.target.views import AppendView


@dataclass
class Reads:
    """What one paged layer read, of the forwards of decoding so far, per KV head.

    forwards, context: their number, and the context tokens that they had in all.
    tokens: context tokens that were read: sinks, pages, window.
    ranked: rows that choosing looked at (summaries of pages, or keys), averaged over the layers.
    layers: how many layers are read in part; full: how many attention layers are not.
    """

    layers: int = 0
    full: int = 0
    forwards: int = 0
    context: int = 0
    tokens: int = 0
    ranked: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Averages of a forward."""
        n = max(self.forwards, 1)
        return {
            "approximate": True,
            "paged_layers": self.layers,
            "full_layers": self.full,
            "context_tokens": round(self.context / n, 1),
            "read_tokens": round(self.tokens / n, 1),
            "ranked_rows": round(self.ranked / n, 1),
        }

    def line(self) -> str:
        mean = self.as_dict()
        return (
            f"KV cache read in part (approximate): {mean['read_tokens']:.0f} of {mean['context_tokens']:.0f} tokens in "
            f"{self.layers} layers, all in {self.full}"
        )


@dataclass
class Reader:
    """What the layers of one sequence share.

    active: whether rows of decoding read in part now.
    """

    options: IceCacheOptions
    active: bool = False
    reads: Reads = field(default_factory=Reads)

    def reads_part(self, start: int) -> bool:
        return self.active and not self.options.reads_all(start)


class IceLayer(AttendingCache, KVCache):
    """One layer.  Prompts, and everything while the reader rests, are read in full.

    pages: of this layer's keys, or with `leads` False of the layer whose choice this one reads.
    gone: tokens behind the sinks that are not in memory but in `cold`; the arrays close up over them.
    """

    def __init__(self, base: KVCache, reader: Reader, pages: PageSet, leads: bool, first: bool) -> None:
        super().__init__()
        self.keys, self.values, self.offset = base.keys, base.values, base.offset
        self.reader, self.pages, self.leads, self.first = reader, pages, leads, first
        self.gone = 0
        self.cold: ColdRows | None = None

    @property
    def nbytes(self) -> int:
        return super().nbytes + (self.pages.nbytes if self.leads else 0)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        if keys.shape[2] == 1 and self.reader.reads_part(self.offset):
            self.turn_pages(self.offset)
        else:
            self.restore()
        return self.append(keys, values)

    def append(self, keys: mx.array, values: mx.array) -> Any:
        """`update_and_fetch` of the arrays as they are."""
        self.offset -= self.gone
        try:
            return super().update_and_fetch(keys, values)
        finally:
            self.offset += self.gone

    def attend(
        self,
        queries: mx.array,
        keys: KeysOrValues,
        values: KeysOrValues,
        scale: float,
        mask: Any,
        sinks: mx.array | None,
    ) -> mx.array:
        if queries.shape[2] == 1 and self.reader.reads_part(self.offset - 1):
            return self.attend_rows(queries, scale, sinks, self.offset - 1)
        return super().attend(queries, keys, values, scale, mask, sinks)

    def turn_pages(self, start: int) -> None:
        """Before a row at position `start` reads: pages hold what has left the window, and nothing else."""
        options, end = self.reader.options, self.reader.options.page_end(start)
        if min(end, self.pages.end) < options.sinks + self.gone:
            self.restore()
        if self.leads:
            if end < self.pages.end:
                self.pages.reset()
            if end > self.pages.end:
                self.pages.extend(self._rows(self.pages.end, end)[0][0], self._keys_at)
        if options.offload is not None and self.pages.end > options.sinks + self.gone:
            self._put_away(self.pages.end)

    def restore(self) -> None:
        """Everything back into memory, as far as the text still goes."""
        if self.cold is None:
            return
        first = self.reader.options.sinks
        count = min(self.gone, max(self.offset - first, 0))
        held, cold = self.offset - count, [x[:, :, :count] for x in self.cold.everything()]
        parts = zip(self._resident(0, first), cold, self._resident(first, held), strict=True)
        whole = [mx.concatenate([*three], axis=2) for three in parts]
        (self.keys, self.values), self.gone, self.cold = whole, 0, None

    def attend_rows(
        self, queries: mx.array, scale: float, sinks: mx.array | None, start: int, view: IceView | None = None
    ) -> mx.array:
        """Attention of queries (1, Hq, N, D), which stand behind `start` tokens and whose own keys are in place.

        view: of a tree's rows; None: one row.
        """
        count, per_node = queries.shape[2], view is not None and self.reader.options.select == "node"
        if self.leads:
            self.pages.chosen = self._choose(queries, len(view.rows.tree) if view is not None else 1, scale)
        chosen = self.pages.chosen
        assert chosen is not None
        keys, values = self._gather(chosen, start, start + count)
        context = keys.shape[2] - count
        self._count(start, context + (chosen.shape[1] - 1) * chosen.shape[2])
        if view is None:
            return scaled_dot_product_attention(queries, keys, values, None, scale, None, sinks)
        if per_node:
            mask = view.rows.mask(context)[:, None, None]
            apart = queries.transpose(2, 1, 0, 3)
            return scaled_dot_product_attention(apart, keys, values, None, scale, mask, sinks).transpose(2, 1, 0, 3)
        whole = view.rows.attention_mask(view.kernels.attention, context)
        return scaled_dot_product_attention(queries, keys, values, None, scale, whole, sinks)

    def _choose(self, queries: mx.array, nodes: int, scale: float) -> mx.array:
        """(H, 1 or N, retrieved) positions, by the rule of the options; padding rows choose only where every row
        does."""
        assert self.keys is not None
        heads, select = self.keys.shape[1], self.reader.options.select
        grouped = queries.reshape(heads, -1, *queries.shape[2:])  # (H, G, N, D)
        if select == "root":
            asking = grouped[:, None, :, 0]
        elif select == "union":
            asking = grouped[:, :, :nodes].swapaxes(1, 2).reshape(heads, 1, -1, queries.shape[3])
        else:
            asking = grouped.swapaxes(1, 2)
        return self.pages.choose(asking * scale, self.keys[0])

    def _gather(self, chosen: mx.array, start: int, stop: int) -> tuple[mx.array, mx.array]:
        """Sinks, the tokens `chosen` (H, B, n), and those from the window on up to `stop`: (B, H, ..., D)."""
        first, sets = self.reader.options.sinks, chosen.shape[1]
        if self.cold is None:
            paged = self._take(self.keys, chosen), self._take(self.values, chosen)
        else:
            paged = self.cold.take(chosen - first)
        recent = self._rows(self.pages.end, stop)
        sinks = self._resident(0, first)
        parts = zip(sinks, paged, recent, strict=True)
        keys, values = (
            mx.concatenate([mx.repeat(a, sets, 0), b, mx.repeat(c, sets, 0)] if sets > 1 else [a, b, c], axis=2)
            for a, b, c in parts
        )
        return keys, values

    @staticmethod
    def _take(x: mx.array | None, places: mx.array) -> mx.array:
        """x (1, H, n, D) at places (H, B, m) -> (B, H, m, D); whole rows at a time."""
        assert x is not None
        heads, length = x.shape[1:3]
        flat = places + (mx.arange(heads) * length)[:, None, None]
        return mx.take(x.reshape(heads * length, -1), flat, axis=0).swapaxes(0, 1)

    def _rows(self, first: int, stop: int) -> tuple[mx.array, mx.array]:
        """Keys and values (1, H, n, D) of positions behind those that are gone."""
        return self._resident(first - self.gone, stop - self.gone)

    def _resident(self, first: int, stop: int) -> tuple[mx.array, mx.array]:
        """The same by places in the arrays."""
        assert self.keys is not None and self.values is not None
        return self.keys[:, :, first:stop], self.values[:, :, first:stop]

    def _keys_at(self, places: mx.array) -> mx.array:
        """places (H, n), all in pages or about to be -> keys (H, n, D)."""
        if self.gone == 0:
            return self._take(self.keys, places[:, None])[0]
        assert self.cold is not None
        first, known = self.reader.options.sinks, self.reader.options.sinks + self.gone
        cold = self.cold.take(mx.clip(places[:, None] - first, 0, self.gone - 1))[0][0]
        warm = self._take(self.keys, mx.maximum(places - self.gone, 0)[:, None])[0]
        return mx.where((places < known)[..., None], cold, warm)

    def _put_away(self, end: int) -> None:
        """The rows up to position `end` go to the file and leave the arrays."""
        first = self.reader.options.sinks
        rows = self._rows(first + self.gone, end)
        left = zip(self._resident(0, first), self._rows(end, self.offset), strict=True)
        kept = [mx.concatenate([*two], axis=2) for two in left]
        mx.eval(kept)
        if self.cold is None:
            self.cold = ColdRows(self.reader.options.offload or "", *rows)
        elif self.cold.count > self.gone:  # an interrupt came between the two steps below
            self.cold.truncate(self.gone)
        self.cold.append(*rows)
        (self.keys, self.values), self.gone = kept, end - first

    def _count(self, start: int, tokens: int) -> None:
        reads = self.reader.reads
        if self.first:
            reads.forwards += 1
            reads.context += start
            reads.tokens += tokens
        if self.leads:
            reads.ranked += self.pages.ranked_rows / reads.layers


class IceView(AppendView):
    """A layer under a draft tree."""

    base: IceLayer
    rows: TreeRows

    @property
    def gone(self) -> int:
        return self.base.gone

    @property
    def room(self) -> int | None:
        """Every node its own pages: those behind a turn of the pages would have chosen from others."""
        reader = self.base.reader
        return reader.options.room(self.rows.start) if reader.active and reader.options.select == "node" else None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        self.waiting = keys, values
        if self.base.reader.reads_part(self.rows.start):
            self.base.turn_pages(self.rows.start)
        else:
            self.base.restore()
        return self.base.append(keys, values)

    def attend(
        self,
        queries: mx.array,
        keys: KeysOrValues,
        values: KeysOrValues,
        scale: float,
        mask: Any,
        sinks: mx.array | None,
    ) -> mx.array:
        if self.base.reader.reads_part(self.rows.start):
            return self.base.attend_rows(queries, scale, sinks, self.rows.start, self)
        return super().attend(queries, keys, values, scale, mask, sinks)


IceLayer.tree_view = IceView
