"""REPLUG: the retriever's distribution over a batch is drawn to that of a frozen language model (App. B.3).

The language model's scores l_ij depend on the model and the batch alone, so they are computed once, before any retriever
is trained, and stand in the rows (`revela.objectives.replug_scores`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from revela.method.cosine import scores
from revela.objectives.base import Objective
from revela.objectives.tokens import ObjectiveError, Tokens


class Replug(Objective):
    """KL(P_LM || P_retriever) for each document of a batch.

    Both distributions are over all of the batch, the document itself included, as B.3 has it. A language model gives
    nearly all mass to the document itself, so with `include_self: false` both are over the others alone.
    """

    def collate(self, row: dict) -> Tokens:
        """Tensors of a row {"text": B chunks, "src": source, "scores": [B, B] of the language model}.

        Raises ObjectiveError for scores of another shape.
        """
        texts = list(row["text"])
        lm_scores = torch.as_tensor(row["scores"], dtype=torch.float32)
        if lm_scores.shape != (len(texts), len(texts)):
            raise ObjectiveError(f"replug: scores are {tuple(lm_scores.shape)} for a batch of {len(texts)} chunks")
        return self.tokenize_chunks(row) | {"scores": lm_scores}

    def count(self, batch: Tokens) -> int:
        """Anchors: each document of the batch is one."""
        return len(batch["scores"])

    def forward(self, batch: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The divergence summed over anchors, a scalar in nats.

        Logged are how often both distributions agree on the best, and the mass that the language model's gives to the
        document itself.
        """
        logits = scores(*self.embed(batch), **self.cosines)
        lm_logits = -batch["scores"].to(logits.dtype) / self.settings.lm_temperature
        first = self.first(logits)
        itself = lm_logits.softmax(1).diagonal(first).mean()
        if not self.settings.include_self:
            logits, lm_logits = _without_diagonal(logits, first), _without_diagonal(lm_logits, first)
        target = lm_logits.log_softmax(1)
        loss = F.kl_div(logits.log_softmax(1), target, reduction="sum", log_target=True)
        agreement = (logits.argmax(1) == target.argmax(1)).float().mean()
        return loss, {"agreement": agreement, "target_on_itself": itself}


def _without_diagonal(rows: Tensor, first: int) -> Tensor:
    """The entries [n, B - 1] beside the diagonal of [n, B], n rows of a square from the row `first` on."""
    others = ~torch.eye(rows.shape[1], dtype=torch.bool, device=rows.device)[first : first + len(rows)]
    return rows[others].view(len(rows), -1)
