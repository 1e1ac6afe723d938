"""Contriever: contrastive learning on pairs made of raw text (App. C.1; Izacard et al., 2022).

As printed, a query has 15 negatives of its own. Rows then share no candidates, the loss of a step is a sum over rows, and
one row at a time in memory gives the exact gradient.

With `shared_negatives: step` the passages of all rows of a step, over all processes, are candidates of each query. One
row at a time still gives the exact gradient, by gradient caching (Gao et al., 2021): `prepare` embeds the step without
gradients and takes the loss's gradient with respect to all embeddings; then `forward` embeds a row again, and hands its
embeddings theirs.
"""

from __future__ import annotations

from collections import deque

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from revela.method.cosine import scores
from revela.method.exchange import Group
from revela.objectives.base import Objective
from revela.objectives.tokens import Tokens


class Contriever(Objective):
    """InfoNCE of a query over its own candidates, or over those of the step: one positive, the rest negatives.

    Where processes share a row, each embeds a part of the candidates, and the first has the query.
    """

    def collate(self, row: dict) -> Tokens:
        """Tensors of a row {"query": text, "passages": B texts, the first of them the positive}."""
        # Queries are whole: App. B.5 cuts chunks that are their own query.
        return self.tokenize([row["query"]], list(row["passages"]))

    def count(self, batch: Tokens) -> int:
        """Anchors: one in a row."""
        return len(batch["query_input_ids"])

    def prepare(self, batches: list[Tokens], seeds: list[int]) -> None:
        """Embeds the rows of a step that this process holds, and keeps what `forward` needs of the others."""
        if self.settings.shared_negatives == "none":
            return
        everyone = Group(dist.group.WORLD, dist.get_rank(), dist.get_world_size())
        sides = []
        with torch.no_grad(), self.autocast():
            for batch, seed in zip(batches, seeds):
                torch.manual_seed(seed)  # dropout as in `forward`
                sides.append(self.embed_own(batch))
        queries, passages = (torch.stack(side).requires_grad_() for side in zip(*sides))  # [R, 1 or 0, d], [R, b, d]
        # The rows of all processes, in the order of these, and of each row the part of its candidates that one has.
        candidates = everyone.gather(passages.flatten(0, 1))
        logits = scores(queries.flatten(0, 1), candidates, **self.cosines)
        rows, part = passages.shape[:2]
        positives = (everyone.place * rows + torch.arange(len(logits), device=logits.device)) * part
        losses = F.cross_entropy(logits, positives, reduction="none")
        losses.sum().backward()
        first = (logits.argmax(1) == positives).float()
        each = (found.tensor_split(rows) for found in (losses.detach(), first))
        self.kept = deque(zip(queries.grad, passages.grad, *each))

    def forward(self, batch: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """-log of the positive's share among the candidates, a scalar in nats; and whether it came first."""
        if self.settings.shared_negatives == "none":
            logits = scores(*self.embed(batch), **self.cosines)
            loss = F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long), reduction="sum")
            first = (logits.argmax(1) == 0).float()
        else:
            *gradients, losses, first = self.kept.popleft()
            pulled = sum((side * gradient).sum() for side, gradient in zip(self.embed_own(batch), gradients))
            loss = losses.sum() + pulled - pulled.detach()
        return loss, {"accuracy": first.sum() / max(1, len(first))}
