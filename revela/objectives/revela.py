"""Revela: the next-token loss of documents that see each other as far as the retriever's Sim lets them (section 3)."""

from __future__ import annotations

import math
import zlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase

from ..config import Training
from ..inbatch import head, hidden_states
from ..retriever import Retriever
from ..similarity import similarity
from .batch import ObjectiveError, Tokens, embed, first_half, language_model_ids, pad, tokenize

IGNORED = -100  # label of a position that has no part in the loss
LOGITS = 2**26  # at most so many float32 logits at a time: 256 MB


class Revela(nn.Module):
    """Retriever and language model, trained together through the h-stream's next-token loss."""

    def __init__(
        self,
        settings: Training,
        retriever: Retriever,
        lm: nn.Module | None = None,
        lm_tokenizer: PreTrainedTokenizerBase | None = None,
    ):
        super().__init__()
        if lm is None or lm_tokenizer is None:
            raise ObjectiveError("revela needs a language model and its tokenizer")
        self.settings, self.retriever, self.lm, self.lm_tokenizer = settings, retriever, lm, lm_tokenizer
        if settings.freeze_lm:
            lm.requires_grad_(False)

    def collate(self, row: dict) -> Tokens:
        """Tensors of a row {"text": B chunks, "src": source}.

        The language model reads whole chunks, without prefix and EOS. Labels are ignored wherever the token is the
        pad token, as it is for the authors: also EOS within a text, where EOS pads.
        """
        texts = list(row["text"])
        tokenizer = self.lm_tokenizer
        pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        ids, lengths = pad(language_model_ids(tokenizer, texts, self.settings.lm_max_length), pad_id)
        batch = tokenize(self.retriever, texts, texts, first_half=first_half(self.settings, row)) | {
            "lm_input_ids": ids,
            "lm_attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long(),
            "lm_labels": ids.masked_fill(ids == pad_id, IGNORED),
        }
        if self.settings.similarity == "shuffled":
            batch["columns"] = _shuffled_columns(texts, self.settings.seed)
        return batch

    def count(self, batch: Tokens) -> int:
        """Tokens that are predicted."""
        return int((batch["lm_labels"][:, 1:] != IGNORED).sum())

    def forward(self, batch: Tokens) -> tuple[Tensor, dict[str, float]]:
        """The loss summed over tokens; logged are its means per token and how sharp Sim is."""
        sim = self.similarity(batch)
        h, e = hidden_states(
            self.lm,
            batch["lm_input_ids"],
            batch["lm_attention_mask"],
            sim,
            value_norm=self.settings.value_norm,
            attention=self.settings.attention,
            e_stream=True,
        )
        losses = {"h_loss": self._next_token_loss(h, batch["lm_labels"])}
        if self.settings.dual_loss:
            losses["e_loss"] = self._next_token_loss(e, batch["lm_labels"])
        scalars = {name: loss.item() / max(1, self.count(batch)) for name, loss in losses.items()}
        return sum(losses.values()), scalars | _sharpness(sim.detach())

    def similarity(self, batch: Tokens) -> Tensor:
        """Sim [B, B], learned or a control's."""
        if self.settings.similarity == "uniform":
            size = len(batch["lm_input_ids"])
            return (1 - torch.eye(size, device=batch["lm_input_ids"].device)) / (size - 1)
        queries, passages = embed(self.retriever, batch, together=not self.settings.first_half)
        dtype = getattr(torch, self.settings.similarity_dtype)
        sim = similarity(queries, passages, temperature=self.settings.temperature, dtype=dtype)
        return sim.gather(1, batch["columns"]) if self.settings.similarity == "shuffled" else sim

    def _next_token_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy in float32, summed; the logits of a large vocabulary a piece at a time, not kept."""
        valid = labels[:, 1:] != IGNORED
        hidden, labels = hidden[:, :-1][valid], labels[:, 1:][valid]
        # By the longest batch there may be, so that under ZeRO-3 all processes call the head equally often.
        pieces = math.ceil(len(valid) * self.settings.lm_max_length * self.lm.config.vocab_size / LOGITS)
        if pieces == 1:
            return self._cross_entropy(hidden, labels)
        return sum(
            checkpoint(self._cross_entropy, *piece, use_reentrant=False)
            for piece in zip(hidden.tensor_split(pieces), labels.tensor_split(pieces))
        )

    def _cross_entropy(self, hidden: Tensor, labels: Tensor) -> Tensor:
        logits = head(self.lm)(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, labels, reduction="sum")


def _shuffled_columns(texts: list[str], seed: int) -> Tensor:
    """[B, B]: a random permutation of each row's off-diagonal columns, the diagonal in place.

    Drawn anew for each order in which the chunks of a batch are seen, so there is nothing in it to learn.
    """
    generator = torch.Generator().manual_seed(seed + zlib.crc32("\0".join(texts).encode()))
    size = len(texts)
    columns = torch.arange(size).expand(size, size).clone()
    others = ~torch.eye(size, dtype=torch.bool)
    order = torch.rand(size, size - 1, generator=generator).argsort(1)
    columns[others] = columns[others].view(size, size - 1).gather(1, order).flatten()
    return columns


def _sharpness(sim: Tensor) -> dict[str, float]:
    """Mean over rows of the largest weight and of the entropy in nats."""
    return {
        "similarity_max": sim.max(1).values.mean().item(),
        "similarity_entropy": -torch.xlogy(sim, sim).sum(1).mean().item(),
    }
