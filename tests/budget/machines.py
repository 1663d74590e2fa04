"""Costs of made-up machines; seconds are in steps of plain decoding."""

from mlx_ddtree.budget.cost import ROWS, CostTable

BLOCKS = (4, 8, 16)


def cost_table(per_row=0.01, draft_share=0.1, rows=ROWS) -> CostTable:
    """One context; a verification of n rows takes 1 + (n - 1) * per_row, a whole block's draft draft_share."""
    verify = [1 + (n - 1) * per_row for n in rows]
    return CostTable(list(rows), [0], [verify], [verify], [1.0], {b: draft_share * b / BLOCKS[-1] for b in BLOCKS})
