"""Attention over short texts on a CPU, with the queries that share a key side by side in one product.

torch's attention for CPUs has products that are small where texts are. Here are two that have larger ones:

    causal_attention   each text over itself, in bfloat16, for which torch's backward pass takes up to six times as long as
                       in float32. The forward pass is torch's; the backward pass makes the probabilities again, and
                       multiplies in float32.
    summed_attention   all tokens over each text of a batch, weighted and added up, in float32. Probabilities are weighted
                       instead of what attention finds, so nothing is gathered, and only the arguments are kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SCORES = 2**18  # made at a time by `summed_attention`: a megabyte, which a core's cache holds


def causal_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float) -> Tensor:
    """Attention of query [B, H, L, d] over key and value [B, H_kv, L, d]: causal, or where mask [L, L] is true."""
    return _Causal.apply(query, key, value, mask, scale)


def fast_products(query: Tensor) -> bool:
    """Whether torch's own attention is the slow way for this query [B, H, L, d]: in bfloat16 on a CPU."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16


def summed_attention(
    query: Tensor, key: Tensor, value: Tensor, weights: Tensor, lengths: list[int], *, scale: float
) -> Tensor:
    """sum_j weights_j softmax(scale query key_j') value_j over the B texts of a row.

    Args:
        query: [1, H, T, d].
        key, value: [1, H_kv, T', d], the texts end to end.
        weights: [1, T, B], or [H, T, B] for each head.
        lengths: of the texts, in tokens; T' together.

    Returns:
        [1, H, T, d].
    """
    return _Summed.apply(query, key, value, weights, lengths, scale)


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


class _Summed(torch.autograd.Function):
    """Works on [H_kv, T, H / H_kv, ...], so that some tokens' queries of all heads that share a key are one matrix."""

    @staticmethod
    def forward(ctx, query, key, value, weights, lengths, scale):
        queries = _by_key(query[0], len(key[0]))
        ctx.save_for_backward(queries, key, value, weights)
        ctx.lengths, ctx.scale = lengths, scale
        weights = _by_key(weights, len(key[0]))
        found = torch.zeros_like(queries)
        for part in _parts(queries, lengths):
            q, out = queries[:, part].flatten(1, 2), found[:, part].flatten(1, 2)
            for j, (k, v) in enumerate(zip(key[0].split(lengths, 1), value[0].split(lengths, 1))):
                p = _probabilities(q, k, scale)
                _as(p, queries[:, part]).mul_(weights[:, part, :, j, None])
                out.baddbmm_(p, v)
        return _by_head(found)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        queries, key, value, weights = ctx.saved_tensors
        lengths, scale = ctx.lengths, ctx.scale
        gradients, weights_of = (_by_key(x, len(key[0])) for x in (gradient[0], weights))
        of_query, of_weights = torch.zeros_like(queries), gradients.new_empty(*queries.shape[:3], len(lengths))
        _, for_key, for_value, *_ = ctx.needs_input_grad
        of_key, of_value = (torch.zeros_like(x[0]) for x in (key, value))
        rows = [x.split(lengths, 1) for x in (key[0], value[0], of_key, of_value)]
        for part in _parts(queries, lengths):
            q, g, of_q = (x[:, part].flatten(1, 2) for x in (queries, gradients, of_query))
            for j, (k, v, of_k, of_v) in enumerate(zip(*rows)):
                p, of_p = _probabilities(q, k, scale), torch.bmm(g, v.mT)
                along = torch.linalg.vecdot(p, of_p)
                of_weights[:, part, :, j] = _as(along, queries[:, part])
                of_p.sub_(along[..., None])
                _as(p, queries[:, part]).mul_(weights_of[:, part, :, j, None])
                if for_value:
                    of_v.baddbmm_(p.mT, g)
                of_scores = of_p.mul_(p).mul_(scale)
                of_q.baddbmm_(of_scores, k)
                if for_key:
                    of_k.baddbmm_(of_scores.mT, q)
        of_weights = _by_head(of_weights).sum_to_size(weights.shape).to(weights.dtype)
        of_key, of_value = of_key[None] if for_key else None, of_value[None] if for_value else None
        return _by_head(of_query)[None], of_key, of_value, of_weights, None, None


def _by_key(x: Tensor, keys: int) -> Tensor:
    """[H or 1, T, ...] -> [keys or 1, T, H / keys or 1, ...], whose rows of tokens are views of one matrix."""
    return x.unflatten(0, (min(len(x), keys), -1)).transpose(1, 2).contiguous()


def _by_head(x: Tensor) -> Tensor:
    """[keys, T, H / keys, ...] -> [H, T, ...]."""
    return x.transpose(1, 2).flatten(0, 1)


def _parts(queries: Tensor, lengths: list[int]) -> Iterator[slice]:
    """Tokens whose scores over the longest text are `SCORES` at most, or one token."""
    keys, tokens, groups, _ = queries.shape
    count = max(1, SCORES // (keys * groups * max(lengths)))
    return (slice(start, start + count) for start in range(0, tokens, count))


def _probabilities(query: Tensor, key: Tensor, scale: float) -> Tensor:
    return torch.baddbmm(query.new_zeros(1), query, key.mT, beta=0, alpha=scale).softmax(-1)


def _as(x: Tensor, queries: Tensor) -> Tensor:
    """[keys, T * groups, ...] -> [keys, T, groups, ...]."""
    return x.unflatten(1, queries.shape[1:3])
