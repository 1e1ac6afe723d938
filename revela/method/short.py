"""Causal attention over short texts on a CPU, in bfloat16 outside and float32 inside.

torch's attention for CPUs takes up to six times as long for its backward pass in bfloat16 as in float32, because its
products are small. Here the forward pass is torch's, and the backward pass makes the probabilities again and multiplies
in float32, with the queries that share a key side by side in one product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def causal_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float) -> Tensor:
    """Attention of query [B, H, L, d] over key and value [B, H_kv, L, d]: causal, or where mask [L, L] is true."""
    return _Causal.apply(query, key, value, mask, scale)


def fast_products(query: Tensor) -> bool:
    """Whether torch's own attention is the slow way for this query [B, H, L, d]: in bfloat16 on a CPU."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, mask, scale):
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale = scale
        return F.scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None, scale=scale, enable_gqa=True
        )

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        query, key, value, mask = ctx.saved_tensors
        dtype = query.dtype
        (size, heads, length, dim), groups = query.shape, key.shape[1]
        if mask is None:
            mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
        hidden = torch.zeros(length, length).masked_fill_(~mask, float("-inf")).repeat(heads // groups, 1)
        query, gradient = (x.reshape(size * groups, -1, dim).float() for x in (query, gradient))
        key, value = (x.reshape(size * groups, length, dim).float() for x in (key, value))
        p = torch.baddbmm(hidden, query, key.mT, alpha=ctx.scale).softmax(-1)
        of_value = torch.bmm(p.mT, gradient)
        of_scores = torch._softmax_backward_data(torch.bmm(gradient, value.mT), p, -1, p.dtype)
        of_query = torch.bmm(of_scores, key).mul_(ctx.scale)
        of_key = torch.bmm(of_scores.mT, query).mul_(ctx.scale)
        grids = ((of_query, heads), (of_key, groups), (of_value, groups))
        return *(x.view(size, number, length, dim).to(dtype) for x, number in grids), None, None
