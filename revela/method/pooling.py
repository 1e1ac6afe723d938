"""Hidden states -> embeddings (section 3.3): the last hidden state at EOS, and what off-the-shelf encoders use instead.

A pooling takes hidden states [n, L, d] and their attention mask [n, L], padded on the right, and returns [n, d].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from revela.study.system import Pooling


def last(hidden: Tensor, mask: Tensor) -> Tensor:
    """The hidden states [n, d] of `hidden` [n, L, d] at the last token of each row of `mask` [n, L]."""
    return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]


def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean [n, d] of `hidden` [n, L, d] over the tokens of each row of `mask` [n, L]."""
    weights = mask[..., None].float()
    return (hidden * weights).sum(1) / weights.sum(1)


def first(hidden: Tensor, mask: Tensor) -> Tensor:
    """The hidden states [n, d] of `hidden` [n, L, d] at the first token, whatever `mask` [n, L] says."""
    return hidden[:, 0]


# The names that a row of models.tsv may give are those of `study.system.Pooling`.
POOLINGS: dict[Pooling, Callable[[Tensor, Tensor], Tensor]] = {"eos": last, "mean": mean, "cls": first}
