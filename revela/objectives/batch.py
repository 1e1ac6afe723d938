"""What the objectives share: texts as tokens of either model, and tokens as the retriever's embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..config import Training
from ..retriever import Retriever

Tokens = dict[str, Tensor]  # of a batch: names like "query_input_ids" -> [n, L]


class ObjectiveError(ValueError):
    """A row of the training file, or a setup, that an objective has no use for. The message is one line."""


def tokenize(retriever: Retriever, queries: list[str], passages: list[str], *, first_half: bool = False) -> Tokens:
    """`{query,passage}_{input_ids,attention_mask}`, each side padded on its own."""
    sides = {
        "query": retriever.tokenize(queries, "query", first_half=first_half),
        "passage": retriever.tokenize(passages, "passage"),
    }
    return {f"{side}_{name}": ids for side, tokens in sides.items() for name, ids in tokens.items()}


def first_half(settings: Training, row: dict) -> bool:
    """Whether the queries of a row see only their first half: by its source (App. B.5)."""
    return settings.first_half and row.get("src") not in settings.first_half_except


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


def embed(retriever: Retriever, batch: Tokens, *, together: bool) -> tuple[Tensor, Tensor]:
    """Embeddings of queries and passages.

    together: in one forward, which pays where both sides are about as long. It must follow from the settings, not
        from the batch: under ZeRO-3 all processes have to call the model equally often.
    """
    sides = [(batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"]) for side in ("query", "passage")]
    if not together:
        queries, passages = (retriever(input_ids, mask) for input_ids, mask in sides)
        return queries, passages
    length = max(ids.shape[1] for ids, _ in sides)
    ids, mask = (torch.cat([F.pad(x, (0, length - x.shape[1])) for x in both]) for both in zip(*sides))
    return retriever(ids, mask).tensor_split([len(sides[0][0])])
