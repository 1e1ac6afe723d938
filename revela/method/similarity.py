"""Sim of section 3.3: how much each document of a batch attends to each other one."""

from __future__ import annotations

import torch
from torch import Tensor

from revela.method.cosine import scores


def similarity(
    queries: Tensor, passages: Tensor, *, temperature: float, dtype: torch.dtype | None = None, first: int = 0
) -> Tensor:
    """Sim(D_i, D_j) = exp(S_ij / tau) / sum over k != i of exp(S_ik / tau), and 0 where i = j (section 3.3).

    Args:
        queries: [B, d], row i embeds document i as a query; or [n, d], those of documents `first` to `first` + n - 1.
        passages: [B, d], row j embeds document j as a passage; the same tensor gives the symmetric S of the paper.
        temperature, dtype: as in `revela.method.cosine.scores`.

    Returns:
        [B, B], or [n, B], in float32 (float64 for float64 input); zero where i = j, rows sum to 1.

    Raises:
        ValueError: shapes that are not [n, d] and [B, d] with n <= B and B >= 2, or a temperature that is not positive.

    >>> angles = torch.tensor([0.0, 0.1, 1.0])
    >>> rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    >>> [[round(x, 2) for x in row] for row in similarity(rows, rows, temperature=0.5).tolist()]
    [[0.0, 0.71, 0.29], [0.68, 0.0, 0.32], [0.46, 0.54, 0.0]]
    """
    shapes = queries.shape[1:] == passages.shape[1:] and queries.ndim == 2
    if not shapes or len(passages) < 2 or not 0 <= first <= len(passages) - len(queries):
        raise ValueError(
            f"queries {tuple(queries.shape)} from {first} on and passages {tuple(passages.shape)} must be [n, d] and [B, d], "
            "n <= B, B >= 2"
        )
    logits = scores(queries, passages, temperature=temperature, dtype=dtype)
    itself = torch.eye(len(passages), dtype=torch.bool, device=logits.device)[first : first + len(queries)]
    return logits.masked_fill(itself, float("-inf")).softmax(dim=-1)
