"""The next-token loss (section 3) behind a frozen head: its gradient is taken in the forward pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def takes(head: nn.Module, hidden: Tensor) -> bool:
    """Whether `cross_entropy` is for this head: a linear layer that is frozen, whole, and of the type of hidden [n, d]."""
    plain = type(head) is nn.Linear and not any(p.requires_grad for p in head.parameters())
    return plain and head.weight.dtype == hidden.dtype and head.weight.numel() > 0


def cross_entropy(head: nn.Linear, hidden: Tensor, labels: Tensor, pieces: int) -> Tensor:
    """The cross-entropy, in float32, of hidden states [n, d] and labels [n], summed to a scalar.

    Logits are made once, a piece at a time, and with them the gradient: nothing but the gradient's own size is kept,
    and nothing is made again, as it would be by checkpointing each piece.
    """
    wanted = torch.is_grad_enabled() and hidden.requires_grad
    with torch.autocast(hidden.device.type, enabled=False):
        return _CrossEntropy.apply(hidden, labels, head.weight, head.bias, pieces, wanted)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, labels, weight, bias, pieces, wanted):
        total = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        of_hidden = torch.empty_like(hidden) if wanted else None
        rows = zip(*(x.tensor_split(pieces) for x in (hidden, labels, hidden if of_hidden is None else of_hidden)))
        for some, of, gradient in rows:
            log_p = F.linear(some, weight, bias).to(total.dtype).log_softmax(1)
            total += F.nll_loss(log_p, of, reduction="sum")
            if wanted:
                of_logits = log_p.exp_()
                of_logits[torch.arange(len(of), device=of.device), of] -= 1
                torch.mm(of_logits.to(weight.dtype), weight, out=gradient)
        ctx.save_for_backward(of_hidden)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (of_hidden,) = ctx.saved_tensors
        return of_hidden * gradient, *[None] * 5
