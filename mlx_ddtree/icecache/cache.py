"""IceCache (arXiv 2604.10539): a key-value cache of which a row reads sinks, some pages, the recent window, the tree.

Positions are true and all keys are kept; what is approximate is which of them a row of decoding looks at.  Prompts
are read as always.  In unified memory nothing has to move for that: pages are lists of positions, and a choice of
pages is one gather.  Only committed tokens are ever in pages, because those of the window are not.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from mlx_ddtree.icecache.reads import Reader
from mlx_ddtree.icecache.select import PageSet
from mlx_ddtree.icecache.store import ColdRows
from mlx_ddtree.kernels.choice import MLX, KernelSet
from mlx_ddtree.kernels.tree_attention import KeysOrValues
from mlx_ddtree.target.attention import AttendingCache, scaled_dot_product_attention
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.target.views import AppendView


class IceLayer(AttendingCache, KVCache):
    """The cache of one paged layer.  Prompts, and everything while the reader rests, are read in full.

    leads: whether this layer chooses pages; otherwise it reads the choice of a layer before it.
    pages: of the keys of the layer that chooses.
    first: whether this is the first paged layer, by which forwards are counted.
    gone: tokens behind the sinks that are not in memory but in `cold`; the arrays close up over them.
    """

    def __init__(self, base: KVCache, reader: Reader, pages: PageSet, leads: bool, first: bool) -> None:
        super().__init__()
        self.keys = base.keys
        self.values = base.values
        self.offset = base.offset
        self.reader = reader
        self.pages = pages
        self.leads = leads
        self.first = first
        self.gone = 0
        self.cold: ColdRows | None = None

    @property
    def nbytes(self) -> int:
        """Bytes in memory; a choice of pages counts for the layer that makes it."""
        own = super().nbytes
        if self.leads:
            own += self.pages.nbytes
        return own

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        """Take new keys and values in, as mlx-lm's caches do; a single row of decoding then reads in part."""
        if keys.shape[2] == 1 and self.reader.reads_part(self.offset):
            self.turn_pages(self.offset)
        else:
            self.restore()
        return self.append(keys, values)

    def append(self, keys: mx.array, values: mx.array) -> Any:
        """Put new keys and values behind the arrays as they are, whatever is gone from them."""
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
        """Make pages hold what has left the window when a row at position `start` reads, and nothing else."""
        options = self.reader.options
        end = options.page_end(start)
        # 1. The text may have become shorter: what went to the file may be wanted in the window again.
        if min(end, self.pages.end) < options.sinks + self.gone:
            self.restore()
        # 2. Tokens that have left the window enter the pages.
        if self.leads and end < self.pages.end:
            self.pages.reset()
        if self.leads and end > self.pages.end:
            keys, _ = self._at_positions(self.pages.end, end)
            self.pages.extend(keys[0], self._keys_at)
        # 3. And with `offload` their keys and values leave memory.
        if options.offload is not None and self.pages.end > options.sinks + self.gone:
            self._put_away(self.pages.end)

    def restore(self) -> None:
        """Bring everything back into memory, as far as the text still goes."""
        if self.cold is None:
            return
        sinks = self.reader.options.sinks
        back = min(self.gone, max(self.offset - sinks, 0))  # the text may have become shorter
        cold_keys, cold_values = self.cold.everything()
        first_keys, first_values = self._in_memory(0, sinks)
        rest_keys, rest_values = self._in_memory(sinks, self.offset - back)
        keys = mx.concatenate([first_keys, cold_keys[:, :, :back], rest_keys], axis=2)
        values = mx.concatenate([first_values, cold_values[:, :, :back], rest_values], axis=2)
        # In one statement, which leaves an interrupt next to no room between these.
        self.keys, self.values, self.gone, self.cold = keys, values, 0, None

    def attend_rows(
        self, queries: mx.array, scale: float, sinks: mx.array | None, start: int, view: IceView | None = None
    ) -> mx.array:
        """Attention of queries (1, Hq, N, D), which stand behind `start` tokens and whose own keys are in place.

        view: of a tree's rows; None: one row.  sinks: learned attention sinks of some models, as in MLX's function.
        """
        # 1. Which tokens of the pages are read: one set for all rows, or with select='node' one for each.
        nodes = 1 if view is None else len(view.rows.tree)
        if self.leads:
            self.pages.chosen = self._choose(queries, nodes, scale)
        chosen = self.pages.chosen
        assert chosen is not None
        # 2. Their keys and values between those of the sinks and of the window.
        count = queries.shape[2]
        keys, values = self._gather(chosen, start, start + count)
        context = keys.shape[2] - count
        other_sets = chosen.shape[1] - 1
        self._count(start, context + other_sets * chosen.shape[2])
        # 3. Attention over these.
        if view is None:
            return scaled_dot_product_attention(queries, keys, values, None, scale, None, sinks)
        if self.reader.options.select == "node":
            mask = view.rows.mask(context)[:, None, None]
            in_batch = queries.transpose(2, 1, 0, 3)  # every row has keys of its own
            attended = scaled_dot_product_attention(in_batch, keys, values, None, scale, mask, sinks)
            return attended.transpose(2, 1, 0, 3)
        whole = view.rows.attention_mask(view.kernels.attention_behind(context), context)
        return scaled_dot_product_attention(queries, keys, values, None, scale, whole, sinks)

    def _choose(self, queries: mx.array, nodes: int, scale: float) -> mx.array:
        """(H, 1 or N, retrieved) positions, by the rule of the options.

        nodes: of the tree, root included; the rows behind them are padding, which chooses only where every row does.
        """
        assert self.keys is not None
        heads = self.keys.shape[1]
        select = self.reader.options.select
        grouped = queries.reshape(heads, -1, *queries.shape[2:])  # (H, G, N, D)
        if select == "root":
            asking = grouped[:, None, :, 0]
        elif select == "union":
            asking = grouped[:, :, :nodes].swapaxes(1, 2).reshape(heads, 1, -1, queries.shape[3])
        else:
            asking = grouped.swapaxes(1, 2)
        return self.pages.choose(asking * scale, self.keys[0])

    def _gather(self, chosen: mx.array, start: int, stop: int) -> tuple[mx.array, mx.array]:
        """Keys and values of the sinks, of the tokens `chosen` (H, B, n), and of those from the window on up to
        `stop`: each (B, H, ..., D)."""
        sinks = self.reader.options.sinks
        if self.cold is None:
            chosen_keys = _take(self.keys, chosen)
            chosen_values = _take(self.values, chosen)
        else:
            chosen_keys, chosen_values = self.cold.take(chosen - sinks)
        first_keys, first_values = self._in_memory(0, sinks)
        recent_keys, recent_values = self._at_positions(self.pages.end, stop)
        return _between(first_keys, chosen_keys, recent_keys), _between(first_values, chosen_values, recent_values)

    def _at_positions(self, first: int, stop: int) -> tuple[mx.array, mx.array]:
        """Keys and values (1, H, n, D) of positions behind those that are gone."""
        return self._in_memory(first - self.gone, stop - self.gone)

    def _in_memory(self, first: int, stop: int) -> tuple[mx.array, mx.array]:
        """Keys and values (1, H, n, D) by their indices in the arrays."""
        assert self.keys is not None and self.values is not None
        return self.keys[:, :, first:stop], self.values[:, :, first:stop]

    def _keys_at(self, positions: mx.array) -> mx.array:
        """positions (H, n), all in pages or about to be -> keys (H, n, D)."""
        if self.gone == 0:
            return _take(self.keys, positions[:, None])[0]
        assert self.cold is not None
        sinks = self.reader.options.sinks
        in_file = mx.clip(positions[:, None] - sinks, 0, self.gone - 1)
        in_memory = mx.maximum(positions - self.gone, 0)[:, None]
        cold_keys, _ = self.cold.take(in_file)
        is_cold = positions < sinks + self.gone
        return mx.where(is_cold[..., None], cold_keys[0], _take(self.keys, in_memory)[0])

    def _put_away(self, end: int) -> None:
        """Move the keys and values up to position `end` from the arrays to the file."""
        sinks = self.reader.options.sinks
        # 1. What moves, and what the arrays will be.
        moving = self._at_positions(sinks + self.gone, end)
        first_keys, first_values = self._in_memory(0, sinks)
        rest_keys, rest_values = self._at_positions(end, self.offset)
        keys = mx.concatenate([first_keys, rest_keys], axis=2)
        values = mx.concatenate([first_values, rest_values], axis=2)
        mx.eval(keys, values)
        # 2. Into the file; an interrupt may have come between this step and the next one before.
        if self.cold is None:
            self.cold = ColdRows(self.reader.options.offload or "", *moving)
        elif self.cold.count > self.gone:
            self.cold.truncate(self.gone)
        self.cold.append(*moving)
        # 3. Out of memory.
        self.keys, self.values, self.gone = keys, values, end - sinks

    def _count(self, start: int, tokens: int) -> None:
        """Count a forward behind `start` tokens in which a layer read `tokens` of them."""
        reads = self.reader.reads
        if self.first:
            reads.forwards += 1
            reads.context += start
            reads.tokens += tokens
        if self.leads:
            reads.ranked += self.pages.ranked_rows / reads.layers


def _take(x: mx.array | None, places: mx.array) -> mx.array:
    """x (1, H, n, D) at places (H, B, m) -> (B, H, m, D), by one gather."""
    assert x is not None
    heads, length = x.shape[1:3]
    first_of_head = (mx.arange(heads) * length)[:, None, None]
    return mx.take(x.reshape(heads * length, -1), places + first_of_head, axis=0).swapaxes(0, 1)


def _between(first: mx.array, chosen: mx.array, recent: mx.array) -> mx.array:
    """chosen (B, H, n, D) between `first` and `recent`, (1, H, ..., D), which are the same for all B."""
    sets = chosen.shape[0]
    if sets > 1:
        first = mx.repeat(first, sets, axis=0)
        recent = mx.repeat(recent, sets, axis=0)
    return mx.concatenate([first, chosen, recent], axis=2)


class IceView(AppendView):
    """A paged layer's cache under a draft tree."""

    base: IceLayer
    rows: TreeRows

    def __init__(self, base: IceLayer, rows: TreeRows, kernels: KernelSet = MLX) -> None:
        super().__init__(base, rows, kernels)
        reader = base.reader
        if reader.active and reader.options.select == "node":
            # Every node chooses its own pages: those behind a turn of the pages would have chosen from others.
            self.room = reader.options.room(rows.start)

    @property
    def gone(self) -> int:
        """Tokens that the arrays lack; commits count on it."""
        return self.base.gone

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
