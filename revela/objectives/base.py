"""What the objectives share: chunks as tokens of the retriever, and tokens as embeddings at EOS (section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from revela.objectives.tokens import Tokens
from revela.retriever import Retriever

if TYPE_CHECKING:
    from revela.study.settings import Training


class Objective(nn.Module):
    """A batch becomes a loss, and nothing else. Each objective adds three methods.

    collate(row): tensors of a row of the training file, a pure function of row and settings.
    count(batch): how many items the loss is a sum over: tokens of the language model, or anchors.
    forward(batch): the loss summed over the items, and means to log beside it, as tensors.

    retriever: what every objective trains.
    lm: a language model that runs beside it; an objective that has use for one keeps it.
    step: the optimiser step that is taken, from 1; the training loop sets it. The loss may depend on it, on nothing
        else that changes while a run goes on but the weights.
    """

    step = 1

    def __init__(
        self,
        settings: Training,
        retriever: Retriever,
        lm: nn.Module | None = None,
        lm_tokenizer: PreTrainedTokenizerBase | None = None,
    ):
        super().__init__()
        self.settings, self.retriever = settings, retriever
        self.lm: nn.Module | None = None

    def tokenize(self, queries: list[str], passages: list[str], *, first_half: bool = False) -> Tokens:
        """`{query,passage}_{input_ids,attention_mask}`, each side padded on its own.

        With `first_half` only the first half of each query's tokens is kept.
        """
        sides = {
            "query": self.retriever.tokenize(queries, "query", first_half=first_half),
            "passage": self.retriever.tokenize(passages, "passage"),
        }
        return {f"{side}_{name}": ids for side, tokens in sides.items() for name, ids in tokens.items()}

    def tokenize_chunks(self, row: dict) -> Tokens:
        """The chunks {"text": .., "src": source} of a row as queries and as passages.

        Queries see only their first half if the settings say so for batches of this source (App. B.5).
        """
        texts = list(row["text"])
        first_half = self.settings.first_half and row.get("src") not in self.settings.first_half_except
        return self.tokenize(texts, texts, first_half=first_half)

    def embed(self, batch: Tokens) -> tuple[Tensor, Tensor]:
        """Embeddings [n, d] of queries and of passages, by one forward pass that computes no pad."""
        sides = [(batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"]) for side in ("query", "passage")]
        length = max(ids.shape[1] for ids, _ in sides)
        ids, mask = (torch.cat([F.pad(x, (0, length - x.shape[1])) for x in both]) for both in zip(*sides))
        return self.retriever(ids, mask, packed=True).tensor_split([len(sides[0][0])])

    @property
    def cosines(self) -> dict[str, Any]:
        """How `revela.method.cosine.scores` compares embeddings under these settings."""
        return {
            "temperature": self.settings.temperature,
            "dtype": getattr(torch, self.settings.similarity_dtype),
        }
