"""Texts as the tokens of a language model, and rows of tokens as tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from revela.errors import RevelaError

Tokens = dict[str, Tensor]  # of a batch: names like "query_input_ids" -> [n, L]


class ObjectiveError(RevelaError):
    """A row of the training file, or a setup, that an objective cannot use. The message is one line."""


class NoTokenError(ObjectiveError):
    """A text without a token. `place` says which of a batch, from 0."""

    def __init__(self, text: str, place: int):
        super().__init__(f"a chunk has no token for the language model: {text!r}")
        self.place = place


def language_model_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[list[int]]:
    """Texts as `read_ids` gives them. Raises NoTokenError for one without a token: it has nothing to predict or attend to."""
    ids = read_ids(tokenizer, texts, max_length)
    for place in without_token(tokenizer, ids):
        raise NoTokenError(texts[place], place)
    return ids


def read_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int | None = None) -> list[list[int]]:
    """Texts as a language model reads them: BOS in front where its tokenizer puts one, no prefix, no EOS."""
    cut = {"truncation": max_length is not None, "max_length": max_length}
    ids = tokenizer(texts, **cut, return_attention_mask=False)["input_ids"]
    return [row[:-1] if row[-1:] == [tokenizer.eos_token_id] else row for row in ids]


def without_token(tokenizer: PreTrainedTokenizerBase, ids: list[list[int]]) -> list[int]:
    """The places of texts that `read_ids` finds no token in, except for BOS."""
    return [place for place, row in enumerate(ids) if row in ([], [tokenizer.bos_token_id])]


def label_pad(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id by which labels are masked: the pad token's, or EOS's. Raises ObjectiveError where there is neither."""
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    if pad_id is None:
        raise ObjectiveError(
            f"{tokenizer.name_or_path}: the language model's tokenizer has neither a pad nor an EOS token, "
            "which labels are masked by; set eos_token in its tokenizer_config.json"
        )
    return pad_id


def pad(rows: list[list[int]], value: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of ids as [n, L], filled with `value` on the right, and their lengths [n]."""
    ids = [torch.tensor(row) for row in rows]
    lengths = torch.tensor([len(row) for row in rows])
    return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=value), lengths
