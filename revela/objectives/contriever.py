"""Contriever: contrastive learning on pairs made of raw text (App. C.1; Izacard et al., 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..config import Training
from ..retriever import Retriever
from ..similarity import scores
from .batch import Tokens, embed, tokenize


class Contriever(nn.Module):
    """InfoNCE of a query over its own candidates: one positive, the rest negatives; none are shared between rows."""

    def __init__(
        self,
        settings: Training,
        retriever: Retriever,
        lm: nn.Module | None = None,
        lm_tokenizer: PreTrainedTokenizerBase | None = None,
    ):
        """The language model has no part in it."""
        super().__init__()
        self.settings, self.retriever = settings, retriever

    def collate(self, row: dict) -> Tokens:
        """Tensors of a row {"query": text, "passages": B texts, the first of them the positive}."""
        return tokenize(self.retriever, [row["query"]], list(row["passages"]))

    def count(self, batch: Tokens) -> int:
        """Anchors: one in a row."""
        return len(batch["query_input_ids"])

    def forward(self, batch: Tokens) -> tuple[Tensor, dict[str, float]]:
        """-log of the positive's share among the candidates; logged is whether it came first."""
        query, passages = embed(self.retriever, batch, together=True)
        dtype = getattr(torch, self.settings.similarity_dtype)
        logits = scores(query, passages, temperature=self.settings.temperature, dtype=dtype)
        loss = F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long), reduction="sum")
        return loss, {"accuracy": (logits.argmax(1) == 0).float().mean().item()}
