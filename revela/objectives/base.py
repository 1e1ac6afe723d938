"""What the objectives share: texts as tokens of either model, and tokens as embeddings at EOS (section 4.1)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from revela.errors import RevelaError
from revela.retriever import Retriever
from revela.study.study import Training

Tokens = dict[str, Tensor]  # of a batch: names like "query_input_ids" -> [n, L]


class ObjectiveError(RevelaError):
    """A row of the training file, or a setup, that an objective has no use for. The message is one line."""


class Objective(nn.Module):
    """A batch becomes a loss, and nothing else. Each objective adds to this

    collate(row): tensors of a row of the training file, a pure function of row and settings.
    count(batch): items that the loss is a sum over: tokens of the language model, or anchors.
    forward(batch): the loss summed over the items, and means to log beside it, as tensors.

    retriever: what is trained by it. The language model and its tokenizer are Revela's alone.
    """

    def __init__(
        self,
        settings: Training,
        retriever: Retriever,
        lm: nn.Module | None = None,
        lm_tokenizer: PreTrainedTokenizerBase | None = None,
    ):
        super().__init__()
        self.settings, self.retriever = settings, retriever

    def tokenize(self, queries: list[str], passages: list[str], *, first_half: bool = False) -> Tokens:
        """`{query,passage}_{input_ids,attention_mask}`, each side padded on its own; of queries maybe the first half."""
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
        """Embeddings [n, d] of queries and of passages, by one forward in which no pad is computed."""
        sides = [(batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"]) for side in ("query", "passage")]
        length = max(ids.shape[1] for ids, _ in sides)
        ids, mask = (torch.cat([F.pad(x, (0, length - x.shape[1])) for x in both]) for both in zip(*sides))
        return self.retriever(ids, mask, packed=True).tensor_split([len(sides[0][0])])

    @property
    def cosines(self) -> dict[str, Any]:
        """How `revela.method.similarity` is to compare embeddings."""
        return {
            "temperature": self.settings.temperature,
            "dtype": getattr(torch, self.settings.similarity_dtype),
        }


def language_model_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[list[int]]:
    """Texts as a language model reads them: BOS in front where its tokenizer puts one, no prefix, no EOS.

    Raises ObjectiveError for a text of which nothing is left, as there is nothing to predict and nothing to attend to.
    """
    ids = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
    ids = [row[:-1] if row[-1:] == [tokenizer.eos_token_id] else row for row in ids]
    for text, row in zip(texts, ids):
        if row in ([], [tokenizer.bos_token_id]):
            raise ObjectiveError(f"a chunk has no token for the language model: {text!r}")
    return ids


def pad(rows: list[list[int]], value: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of ids as [n, L], `value` on the right, and their lengths [n]."""
    ids = [torch.tensor(row) for row in rows]
    return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=value), torch.tensor(
        [len(row) for row in rows]
    )
