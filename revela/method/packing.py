"""Texts end to end, without pads, through a stock Hugging Face decoder.

A row of all tokens of a batch, positions starting again at each text, goes through the model: the linear layers, most
of its cost, see no pad. The attention below, which transformers calls instead of its own, takes the row apart. It is
registered by name and chosen for the duration of a call; nothing else in the model is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from revela.errors import RevelaError
from revela.method.short import causal_attention, fast_products

NAME = "revela_packed"  # in transformers' registry of attention functions


class PackingError(RevelaError):
    """A batch or a model that cannot be packed. The message is one line."""


class Packing:
    """The places of the T tokens of B texts, L in the longest: with pads, end to end, and in a grid for attention.

    mask: [B, L'], pads on either side.
    streams: how often what runs through the model repeats the row of T tokens.
    """

    def __init__(self, mask: Tensor, streams: int = 1):
        self.mask = mask.bool()
        self.lengths = self.mask.sum(1).tolist()
        if 0 in self.lengths:
            raise PackingError(f"document {self.lengths.index(0)} of the batch has no token")
        self.positions = (self.mask.cumsum(1) - 1)[self.mask][None].repeat(1, streams)  # from 0 in each text
        self.document = self.mask.nonzero()[:, 0]  # [T], of each token
        # The place of each token of each stream in a grid [streams * B, L] without gaps at the front; and the token at
        # each place: a text's last one again where it has none, so that there is nothing to be written.
        size, length = len(mask), max(self.lengths)
        self.grid = (streams * size, length)
        rows = torch.cat([self.document + stream * size for stream in range(streams)])
        self.places = rows * length + self.positions[0]
        lengths = self.mask.sum(1, keepdim=True).repeat(streams, 1)
        within = torch.arange(length, device=mask.device).minimum(lengths - 1)
        self.tokens_at = (lengths.cumsum(0) - lengths + within).flatten()
        self.layers: set[int] = set()  # that have received this batch

    def lay_out(self, padded: Tensor) -> Tensor:
        """The padded [B, L', ...] -> [1, T, ...]: the texts end to end, without pads."""
        return padded[self.mask][None]

    def pad(self, row: Tensor) -> Tensor:
        """[1, T, ...] -> [B, L', ...] with zeros at the pads."""
        padded = row.new_zeros(*self.mask.shape, *row.shape[2:])
        padded[self.mask] = row[0]
        return padded

    def to_grid(self, row: Tensor) -> Tensor:
        """[1, H, streams * T, d] -> [streams * B, H, L, d], each text at the front of its row."""
        grid = _Spread.apply(row[0].transpose(0, 1), self.tokens_at, self.places)
        return grid.unflatten(0, self.grid).transpose(1, 2)

    def from_grid(self, grid: Tensor) -> Tensor:
        """[streams * B, H, L, d] -> [1, streams * T, H, d]."""
        return _Gathered.apply(grid.transpose(1, 2).flatten(0, 1), self.tokens_at, self.places)[None]

    def causal(self, query: Tensor, keys: Tensor, values: Tensor, *, window: int | None, **settings) -> Tensor:
        """Causal self-attention of each text: query [1, H, streams * T, d], keys and values as grids -> [1, .., H, d].

        The pads of the grid stand after the text, where no token sees them. settings: `scale` and `dropout_p`.
        """
        mask = _window(self.grid[1], window, query.device)
        if fast_products(query) and not settings["dropout_p"]:
            own = causal_attention(self.to_grid(query), keys, values, mask, scale=settings["scale"])
        else:
            own = F.scaled_dot_product_attention(
                self.to_grid(query), keys, values, mask, is_causal=mask is None, enable_gqa=True, **settings
            )
        return self.from_grid(own)


class _Spread(torch.autograd.Function):
    """Rows of tokens -> a grid. No gradient comes from the pads, for no token sees them, so that none has to be added."""

    @staticmethod
    def forward(ctx, row, tokens_at, places):
        ctx.save_for_backward(places)
        return row.index_select(0, tokens_at)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return gradient.index_select(0, *ctx.saved_tensors), None, None


class _Gathered(torch.autograd.Function):
    """A grid -> rows of tokens."""

    @staticmethod
    def forward(ctx, grid, tokens_at, places):
        ctx.save_for_backward(places)
        ctx.size = len(tokens_at)
        return grid.index_select(0, places)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        grid = gradient.new_zeros(ctx.size, *gradient.shape[1:])
        return grid.index_copy_(0, *ctx.saved_tensors, gradient), None, None


def can_pack(model: nn.Module) -> bool:
    """Whether `run` takes the decoder of a model: it is causal, and its attention is plain and transformers' own."""
    layers = [layer for layer in model.modules() if hasattr(layer, "layer_idx") and hasattr(layer, "is_causal")]
    plain = all(layer.is_causal and getattr(layer, "sinks", None) is None for layer in layers)
    capped = getattr(model.config, "attn_logit_softcapping", None) is not None
    return plain and not capped and len(layers) == model.config.num_hidden_layers


def run(decoder: PreTrainedModel, input_ids: Tensor, packing: Packing, attention: str = NAME) -> Tensor:
    """The decoder's last hidden states [1, streams * T, hidden] of input_ids [1, streams * T].

    attention: name of the registered function, which finds the packing in its argument `packing`.
    Raises PackingError if not all layers took part.
    """
    if getattr(decoder.config, "attn_logit_softcapping", None) is not None:
        raise PackingError(f"{type(decoder).__name__}: packed attention does not cap attention logits")
    with _attention_of(decoder, attention):
        hidden = decoder(
            input_ids=input_ids, position_ids=packing.positions, use_cache=False, packing=packing
        ).last_hidden_state
    if len(packing.layers) != decoder.config.num_hidden_layers:
        raise PackingError(
            f"{type(decoder).__name__}: {len(packing.layers)} of its {decoder.config.num_hidden_layers} layers received "
            "the batch; its attention does not go through transformers' AttentionInterface"
        )
    return hidden


def receive(module: nn.Module, packing: Packing | None, s_aux: Tensor | None) -> None:
    """Notes that an attention layer received the batch. Raises PackingError if it did not, or is no plain attention.

    s_aux: attention sinks [heads], which no supported model has.
    """
    if packing is None:
        raise PackingError(f"{type(module).__name__} of layer {module.layer_idx} did not receive the batch")
    if s_aux is not None:
        raise PackingError(f"{type(module).__name__}: packed attention has no attention sinks")
    if not getattr(module, "is_causal", True):
        raise PackingError(f"{type(module).__name__}: packed attention is causal, this model's is not")
    packing.layers.add(module.layer_idx)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    packing: Packing | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer: query [1, H, T, d], key and value [1, H_kv, T, d] -> [1, T, H, d].

    s_aux: see `receive`.
    """
    receive(module, packing, s_aux)
    keys, values = packing.to_grid(key), packing.to_grid(value)
    return packing.causal(query, keys, values, window=sliding_window, scale=scaling, dropout_p=dropout), None


def _window(length: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """The mask [L, L] of a sliding-window layer; None where plain causal attention is the same."""
    if sliding_window is None or length <= sliding_window:
        return None
    position = torch.arange(length, device=device)
    back = position[:, None] - position
    return (back >= 0) & (back < sliding_window)


def register(name: str, attention) -> None:
    """Makes an attention function known to transformers by a name."""
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, _no_mask)


def _no_mask(*args, **kwargs) -> None:
    """The mask that transformers would build for the row of tokens; the attention takes the row apart itself."""


@contextmanager
def _attention_of(decoder: PreTrainedModel, name: str) -> Iterator[None]:
    """The named attention in all layers, for the calls inside and for their recomputation by gradient checkpointing.

    A checkpointed layer is called once more in the backward pass, when this context is long left. So the checkpoint
    function is given a context that enters it again.
    """
    before = decoder.config._attn_implementation
    checkpointed = [layer for layer in decoder.modules() if getattr(layer, "gradient_checkpointing", False)]
    functions = [layer._gradient_checkpointing_func for layer in checkpointed]
    decoder.config._attn_implementation = name
    for layer, function in zip(checkpointed, functions):
        layer._gradient_checkpointing_func = partial(
            function, context_fn=lambda: (nullcontext(), _attention_of(decoder, name))
        )
    try:
        yield
    finally:
        decoder.config._attn_implementation = before
        for layer, function in zip(checkpointed, functions):
            layer._gradient_checkpointing_func = function


register(NAME, packed_attention)
