"""What the objectives share: chunks as tokens of the retriever, and tokens as embeddings at EOS (section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from revela.method.exchange import Group
from revela.objectives.tokens import Tokens
from revela.retriever import Retriever

if TYPE_CHECKING:
    from revela.study.settings import Training


class Objective(nn.Module):
    """A batch becomes a loss, and nothing else. Each objective adds three methods, and a fourth if batches share anything.

    collate(row): tensors of a row of the training file, a pure function of row and settings.
    count(batch): how many items the loss is a sum over: tokens of the language model, or anchors.
    forward(batch): the loss summed over the items, and means to log beside it, as tensors.
    prepare(batches, seeds): called before the first `forward` of a step with all its batches.

    The last three are given the `part` of the batch that this process holds: all of it, unless `group` shares it. Then the
    losses of a group's processes add up to that of the batch, and so do their gradients.

    retriever: what every objective trains.
    lm: a language model that runs beside it; an objective that has use for one keeps it.
    step: the optimiser step that is taken, from 1; the training loop sets it. The loss may depend on it, on nothing
        else that changes while a run goes on but the weights.
    group: the processes that share each batch with this one; the training sets it. None: each has batches of its own.
    """

    step = 1
    group: Group | None = None

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
        """The chunks {"text": .., "src": source, "document": ids} of a row as queries and as passages.

        Queries see only their first half if the settings say so for batches of this source (App. B.5). A source is a
        dataset, with which the ids of its documents begin, or what ready batches call themselves.
        """
        texts = list(row["text"])
        sources = {row.get("src"), *(document.partition("/")[0] for document in row.get("document", [])[:1])}
        first_half = self.settings.first_half and sources.isdisjoint(self.settings.first_half_except)
        return self.tokenize(texts, texts, first_half=first_half)

    def prepare(self, batches: list[Tokens], seeds: list[int]) -> None:
        """What a step's batches have to know of each other, where they do; seeds: of the dropout of each."""

    def autocast(self) -> torch.autocast:
        """The arithmetic in which DeepSpeed runs `forward`, for what is computed beside it."""
        device = next(self.parameters()).device
        return torch.autocast(device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def part(self, batch: Tokens) -> Tokens:
        """The part of a collated batch that this process holds: of each tensor [B, ...] the rows of its chunks."""
        return batch if self.group is None else {name: self.group.part(tensor) for name, tensor in batch.items()}

    def embed(self, batch: Tokens) -> tuple[Tensor, Tensor]:
        """Embeddings of queries [n, d] and of passages [m, d], by one forward pass that computes no pad.

        The queries are those of this process, the passages those of the whole batch.
        """
        queries, passages = self.embed_own(batch)
        return queries, passages if self.group is None else self.group.gather(passages)

    def embed_own(self, batch: Tokens) -> tuple[Tensor, Tensor]:
        """Embeddings of queries [n, d] and of passages [m, d], both of this process."""
        sides = [(batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"]) for side in ("query", "passage")]
        length = max(ids.shape[1] for ids, _ in sides)
        ids, mask = (torch.cat([F.pad(x, (0, length - x.shape[1])) for x in both]) for both in zip(*sides))
        return self.retriever(ids, mask, packed=True).tensor_split([len(sides[0][0])])

    def first(self, part: Tensor) -> int:
        """The number, in a batch of B, of the first row of a `part` [n, ...] of it, a scalar."""
        return 0 if self.group is None else self.group.place * len(part)

    @property
    def cosines(self) -> dict[str, Any]:
        """How `revela.method.cosine.scores` compares embeddings under these settings."""
        return {
            "temperature": self.settings.temperature,
            "dtype": getattr(torch, self.settings.similarity_dtype),
        }
