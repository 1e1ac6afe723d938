"""The gate g, a factor of b_i in eq. 5 (`training.cross_attention`): constant, on a ramp, or learned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from revela.study.cross_attention import CrossAttention


def gate_at(step: int, settings: CrossAttention) -> float:
    """The gate of an optimiser step, from 1, that is not learned.

    >>> from revela.study.cross_attention import CrossAttention
    >>> ramp = CrossAttention(gate=1.0, ramp={"start": 0.2, "steps": 4})
    >>> [round(gate_at(step, ramp), 2) for step in (1, 2, 3, 4, 5, 6)]
    [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    """
    ramp = settings.ramp
    if ramp is None or step > ramp.steps:
        return settings.gate
    done = (step - 1) / ramp.steps
    if ramp.shape == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return ramp.start + (settings.gate - ramp.start) * done


class LearnedGate(nn.Module):
    """A gate for each layer of a language model, or for each head of each layer; all begin at the same value.

    It is a module of its own, because under ZeRO-3 a parameter is whole only while its module's forward runs.
    """

    def __init__(self, settings: CrossAttention, layers: int, heads: int):
        super().__init__()
        shape = (layers, heads) if settings.learned == "head" else (layers,)
        self.weight = nn.Parameter(torch.full(shape, settings.gate, dtype=torch.float32))

    def forward(self) -> Tensor:
        """[layers] or [layers, heads], a copy through which the gradient goes."""
        return self.weight.clone()
