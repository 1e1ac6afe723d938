"""Revela: the next-token loss of documents that see each other as far as the retriever's Sim lets them (section 3)."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase

from revela.method.inbatch import NEGLIGIBLE, hidden_states
from revela.method.similarity import similarity
from revela.objectives import head
from revela.objectives.base import Objective
from revela.objectives.gate import LearnedGate, gate_at
from revela.objectives.tokens import ObjectiveError, Tokens, label_pad, language_model_ids, pad
from revela.pretrained import output_head
from revela.retriever import Retriever

if TYPE_CHECKING:
    from revela.study.settings import Training

IGNORED = -100  # label of a position that has no part in the loss
LOGITS = 2**25  # float32 logits at a time, at most: 128 MB


class Revela(Objective):
    """Retriever and language model, trained together through the h-stream's next-token loss."""

    def __init__(
        self,
        settings: Training,
        retriever: Retriever,
        lm: nn.Module | None = None,
        lm_tokenizer: PreTrainedTokenizerBase | None = None,
    ):
        super().__init__(settings, retriever)
        if lm is None or lm_tokenizer is None:
            raise ObjectiveError("revela needs a language model and its tokenizer")
        self.lm, self.lm_tokenizer, self.pad_id = lm, lm_tokenizer, label_pad(lm_tokenizer)
        if settings.freeze_lm:
            lm.requires_grad_(False)
        self.learned_gate: LearnedGate | None = None
        if settings.cross_attention.learned:
            config = lm.get_decoder().config
            self.learned_gate = LearnedGate(
                settings.cross_attention, config.num_hidden_layers, config.num_attention_heads
            )

    def collate(self, row: dict) -> Tokens:
        """Tensors of a row {"text": B chunks, "src": source}.

        The language model reads whole chunks, without prefix and EOS. As in the authors' code, labels are ignored
        wherever the token is the pad token, which includes an EOS within a text where EOS pads.
        """
        texts = list(row["text"])
        ids, lengths = pad(language_model_ids(self.lm_tokenizer, texts, self.settings.lm_max_length), self.pad_id)
        batch = self.tokenize_chunks(row) | {
            "lm_input_ids": ids,
            "lm_attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long(),
            "lm_labels": ids.masked_fill(ids == self.pad_id, IGNORED),
        }
        if self.settings.similarity == "shuffled":
            batch["columns"] = _shuffled_columns(texts, self.settings.seed)
        if len(row.get("document") or ()) == len(texts):  # to be logged; the loss does not depend on it
            batch["document"] = _numbered(row["document"])
        return batch

    def count(self, batch: Tokens) -> int:
        """Tokens that are predicted."""
        return int((batch["lm_labels"][:, 1:] != IGNORED).sum())

    def forward(self, batch: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over tokens, a scalar in nats; and its means per token and how sharp Sim is, to be logged."""
        sim, gate = self.similarity(batch), self.gate()
        h, e = self.streams(batch, sim, gate)
        losses = {"h_loss": self.next_token_loss(h, batch["lm_labels"])}
        if self.settings.dual_loss:
            losses["e_loss"] = self.next_token_loss(e, batch["lm_labels"])
        tokens = (batch["lm_labels"][:, 1:] != IGNORED).sum().clamp(min=1)
        scalars = {name: loss.detach() / tokens for name, loss in losses.items()}
        sharpness = _sharpness(self.whole(sim.detach()), batch.get("document"))
        return sum(losses.values()), scalars | sharpness | self._gates(gate)

    def part(self, batch: Tokens) -> Tokens:
        """As of all objectives, but all processes know the documents [B] of all chunks of a batch."""
        return super().part(batch) | {name: batch[name] for name in ("document",) if name in batch}

    def whole(self, part: Tensor) -> Tensor:
        """[B, ...] of the batch, of which each process that shares it has a `part` [B / P, ...]."""
        return part if self.group is None else self.group.gather(part)

    def gate(self) -> float | Tensor:
        """The gate of the step that is taken: a number, or what was learned so far, [layers] or [layers, heads]."""
        if self.learned_gate is not None:
            return self.learned_gate()
        return gate_at(self.step, self.settings.cross_attention)

    def streams(self, batch: Tokens, sim: Tensor, gate: float | Tensor) -> tuple[Tensor, Tensor]:
        """The last hidden states of the h-stream and of the e-stream under some Sim and gate, [B, L, hidden] each."""
        return hidden_states(
            self.lm,
            batch["lm_input_ids"],
            batch["lm_attention_mask"],
            sim,
            value_norm=self.settings.value_norm,
            attention=self.settings.attention,
            gate=gate,
            e_stream=True,
            group=self.group,
        )

    def similarity(self, batch: Tokens) -> Tensor:
        """Sim, learned or a control's: [B, B], or the rows [B / P, B] of this process."""
        if self.settings.similarity == "uniform":
            return self.rows_of_uniform(batch)
        sim = similarity(*self.embed(batch), **self.cosines, first=self.first(batch["lm_input_ids"]))
        return sim.gather(1, batch["columns"]) if self.settings.similarity == "shuffled" else sim

    def rows_of_uniform(self, batch: Tokens) -> Tensor:
        """The Sim that tells nothing, of the batch [B, B], or this process's rows [B / P, B]."""
        own = len(batch["lm_input_ids"])
        size, first = own * (self.group.count if self.group else 1), self.first(batch["lm_input_ids"])
        return (1 - torch.eye(size, device=batch["lm_input_ids"].device)[first : first + own]) / (size - 1)

    def next_token_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy in float32 of hidden states [B, L, hidden] and labels [B, L], summed to a scalar. The logits of a large vocabulary are made a piece at a time and not kept."""
        valid = labels[:, 1:] != IGNORED
        hidden, labels = hidden[:, :-1][valid], labels[:, 1:][valid]
        # Counted for the longest batch there may be, so that under ZeRO-3 all processes call the head equally often.
        pieces = math.ceil(len(valid) * self.settings.lm_max_length * self.lm.config.vocab_size / LOGITS)
        if head.takes(output_head(self.lm), hidden):
            return head.cross_entropy(output_head(self.lm), hidden, labels, pieces)
        if pieces == 1:
            return self._cross_entropy(hidden, labels)
        return sum(
            checkpoint(self._cross_entropy, *piece, use_reentrant=False)
            for piece in zip(hidden.tensor_split(pieces), labels.tensor_split(pieces))
        )

    def _gates(self, gate: float | Tensor) -> dict[str, Tensor]:
        """What is logged of a gate that changes: its mean, and that of each layer where it is learned."""
        if self.learned_gate is not None:
            of_layer = gate.detach().flatten(1).mean(1) if gate.ndim > 1 else gate.detach()
            return {"gate": of_layer.mean()} | {f"gate_{layer}": mean for layer, mean in enumerate(of_layer)}
        return {"gate": torch.tensor(gate, dtype=torch.float64)} if self.settings.cross_attention.ramp else {}

    def _cross_entropy(self, hidden: Tensor, labels: Tensor) -> Tensor:
        logits = output_head(self.lm)(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, labels, reduction="sum")


def _shuffled_columns(texts: list[str], seed: int) -> Tensor:
    """[B, B]: a random permutation of each row's off-diagonal columns, the diagonal in place.

    It is drawn anew for each order in which the chunks of a batch are seen, so there is nothing in it to learn.
    """
    generator = torch.Generator().manual_seed(seed + zlib.crc32("\0".join(texts).encode()))
    size = len(texts)
    columns = torch.arange(size).expand(size, size).clone()
    others = ~torch.eye(size, dtype=torch.bool)
    order = torch.rand(size, size - 1, generator=generator).argsort(1)
    columns[others] = columns[others].view(size, size - 1).gather(1, order).flatten()
    return columns


def _numbered(documents: list[str]) -> Tensor:
    """[B]: equal numbers for chunks of the same document."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(document, len(numbers)) for document in documents])


def same_document(document: Tensor) -> Tensor:
    """[B, B] of booleans: whether two chunks are others of the same document."""
    return (document[:, None] == document) & ~torch.eye(len(document), dtype=torch.bool, device=document.device)


def _sharpness(sim: Tensor, document: Tensor | None) -> dict[str, Tensor]:
    """Mean over rows of the largest weight, of the entropy in nats, and of how many others are attended to.

    Where documents are known, also of the weight on chunks of the same one, beside what a uniform Sim would give them.
    """
    sharpness = {
        "similarity_max": sim.max(1).values.mean(),
        "similarity_entropy": -torch.xlogy(sim, sim).sum(1).mean(),
        "attended": (sim > NEGLIGIBLE).sum(1).float().mean(),
    }
    if document is not None:
        same = same_document(document)
        sharpness["same_document"] = (sim * same).sum(1).mean()
        sharpness["same_document_uniform"] = same.float().sum(1).mean() / (len(sim) - 1)
    return sharpness
