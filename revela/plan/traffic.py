"""What processes that share a batch send each other, counted on paper (`revela.method.exchange`).

A process gets, of a batch of B chunks with T tokens, of which it holds B / P,

    the passages' embeddings   (B - B / P) * hidden                      and as much of gradients in the backward pass
    keys and values            2 * kv_heads * head_dim a token and layer of the language model

the latter of all tokens that it does not hold, or of the documents that its own attend to if those are fewer. The
backward pass returns as much, and gradient checkpointing gets them once more. A frozen language model gets them once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from revela.plan.flops import BYTES, Lengths, Shape

if TYPE_CHECKING:
    from revela.study.settings import Training


def received(
    settings: Training,
    retriever: Shape,
    lm: Shape | None,
    lengths: Mapping[str, Lengths],
    *,
    attended: float = 1,
    checkpointing: bool = False,
) -> float:
    """Bytes that come to each process for one batch, forward and backward; 0 where batches are not shared.

    lengths: tokens of each "passage" of the whole batch, and of each document of the "lm".
    attended: other documents that a document attends to, on average.
    """
    others = 1 - 1 / settings.processes_per_batch  # share of the batch that a process does not hold
    total = 2 * others * len(lengths["passage"]) * retriever.hidden
    if lm is not None and lengths["lm"]:
        passes = 1 if settings.freeze_lm else 2 + checkpointing
        total += passes * tokens(settings, lengths["lm"], attended) * lm.layers * 2 * lm.kv_heads * lm.head_dim
    return BYTES[settings.precision] * total


def tokens(settings: Training, lengths: Lengths, attended: float) -> float:
    """Tokens whose keys and values come to a process from others, in a layer."""
    shared = settings.processes_per_batch
    share = 1.0 if settings.attention == "dense" else min(1.0, attended / shared)
    return (1 - 1 / shared) * share * sum(lengths)
