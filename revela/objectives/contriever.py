"""Contriever: contrastive learning on pairs made of raw text (App. C.1; Izacard et al., 2022).

Rows share no candidates, so the loss of a step is a sum over rows. One row at a time in memory therefore gives the exact
gradient, however many rows a step has, and caching gradients would save nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from revela.method.cosine import scores
from revela.objectives.base import Objective
from revela.objectives.tokens import Tokens


class Contriever(Objective):
    """InfoNCE of a query over its own candidates: one positive, the rest negatives.

    Where processes share a row, each embeds a part of the candidates, and the first has the query.
    """

    def collate(self, row: dict) -> Tokens:
        """Tensors of a row {"query": text, "passages": B texts, the first of them the positive}."""
        # Queries are whole: App. B.5 cuts chunks that are their own query.
        return self.tokenize([row["query"]], list(row["passages"]))

    def count(self, batch: Tokens) -> int:
        """Anchors: one in a row."""
        return len(batch["query_input_ids"])

    def forward(self, batch: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """-log of the positive's share among the candidates, a scalar in nats; and whether it came first."""
        logits = scores(*self.embed(batch), **self.cosines)
        loss = F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long), reduction="sum")
        return loss, {"accuracy": (logits.argmax(1) == 0).float().sum() / max(1, len(logits))}
