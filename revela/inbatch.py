"""In-batch attention (section 3.2) in the attention layers of a stock Hugging Face causal language model.

Each document of a batch runs through the model in two streams that share all weights:

    e: ordinary causal self-attention, eq. 3-4
    h: s_i + sum over j != i of Sim_ij b_ij, eq. 7; s_i is causal self-attention over h_i, and b_ij, eq. 5, is full
       attention of h_i's queries over the keys and values that the e-stream has for document j

so that the next token of document i is predicted from its own prefix and from the other documents, as far as Sim lets
it see them. The gradient of the loss reaches Sim, and through the e-stream's keys and values nothing is detached.

Both streams of all documents go through the model in one forward, laid end to end without pads: a row of 2T tokens,
e first, positions starting again at each document. The linear layers see no pad and the attention below, which
transformers calls in place of its own, takes the row apart. It is registered by name and chosen for the duration of
a call; the model is otherwise untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

NAME = "revela_in_batch"  # in transformers' registry of attention functions
NEGLIGIBLE = 1e-8  # dL/dS_ij carries the factor Sim_ij: a pair below this adds nothing to h nor to the retriever
EPSILON = 1e-6  # of eq. 8 (App. B.5)

Attention = Literal["pairs", "dense"]


class InBatchError(ValueError):
    """A batch or a model that in-batch attention cannot be computed for. The message is one line."""


def hidden_states(
    lm: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    similarity: Tensor,
    *,
    value_norm: bool,
    attention: Attention = "pairs",
    e_stream: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The last hidden states of the h-stream, ready for the model's head.

    Args:
        lm: a causal language model of transformers, PEFT-wrapped or not.
        input_ids, attention_mask: [B, L], padded on either side.
        similarity: [B, B], zero diagonal; Sim_ij weighs document j in the prediction of document i. Gets its gradient.
        value_norm: divide b_ij by N_ij, eq. 8.
        attention: "dense" is eq. 5-9 as written, over all pairs, the probabilities [H, T, B, L] of a layer in memory;
            "pairs" takes the pairs with Sim_ij > 1e-8 through scaled_dot_product_attention.
        e_stream: return (h, e) instead of h.

    Returns:
        [B, L, hidden] with zeros at the pads.

    Raises:
        InBatchError: shapes that do not fit, a document without a token, a model of which not all layers take part.
    """
    decoder = lm.get_decoder()
    batch = _Batch(attention_mask, similarity, value_norm, attention)
    if getattr(decoder.config, "attn_logit_softcapping", None) is not None:
        raise InBatchError(f"{type(decoder).__name__}: in-batch attention does not cap attention logits")
    with _in_batch_attention(decoder):
        row = batch.lay_out(input_ids)
        hidden = decoder(
            input_ids=torch.cat([row, row], 1),
            position_ids=torch.cat([batch.positions, batch.positions], 1),
            use_cache=False,
            in_batch=batch,
        ).last_hidden_state
    if len(batch.layers) != decoder.config.num_hidden_layers:
        raise InBatchError(
            f"{type(decoder).__name__}: {len(batch.layers)} of its {decoder.config.num_hidden_layers} layers received "
            "the similarity; its attention does not go through transformers' AttentionInterface"
        )
    e, h = hidden.tensor_split(2, dim=1)
    return (batch.pad(h), batch.pad(e)) if e_stream else batch.pad(h)


def logits(
    lm: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    similarity: Tensor,
    *,
    value_norm: bool,
    attention: Attention = "pairs",
) -> Tensor:
    """The h-stream's logits [B, L, V]; arguments and errors as for `hidden_states`. Those at pads mean nothing."""
    hidden = hidden_states(lm, input_ids, attention_mask, similarity, value_norm=value_norm, attention=attention)
    return head(lm)(hidden)


def head(lm: nn.Module) -> nn.Module:
    """The module that turns hidden states into logits; InBatchError for models that do more to them (Gemma 2, Granite)."""
    for key in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(lm.config, key, None) not in (None, 1):
            raise InBatchError(f"{type(lm).__name__}: its logits are changed after the head, by {key}")
    return lm.get_output_embeddings()


class _Batch:
    """What the attention layers have to know of a batch of B documents with T tokens, L in the longest."""

    def __init__(self, attention_mask: Tensor, similarity: Tensor, value_norm: bool, attention: Attention):
        if attention not in ("pairs", "dense"):
            raise InBatchError(f"attention {attention!r} is unknown; valid are pairs, dense")
        size = len(attention_mask)
        if similarity.shape != (size, size):
            raise InBatchError(f"similarity is {tuple(similarity.shape)}; a batch of {size} needs {(size, size)}")
        if similarity.diagonal().count_nonzero():
            raise InBatchError("similarity has a non-zero diagonal; a document does not attend to itself (eq. 6)")
        self.mask = attention_mask.bool()
        self.lengths = self.mask.sum(1).tolist()
        if 0 in self.lengths:
            raise InBatchError(f"document {self.lengths.index(0)} of the batch has no token")
        self.value_norm, self.attention = value_norm, attention
        self.layers: set[int] = set()  # that have received this batch

        device = attention_mask.device
        self.positions = (self.mask.cumsum(1) - 1)[self.mask][None]  # [1, T], counted from 0 in each document
        self.document = self.mask.nonzero()[:, 0]  # [T], of each token
        # The place of each token of [e; h] in a grid [2B, L] without gaps at the front.
        self.grid = (2 * size, max(self.lengths))
        places = self.document * self.grid[1] + self.positions[0]
        self.places = torch.cat([places, places + size * self.grid[1]])
        lengths = torch.tensor(self.lengths, device=device)
        self.keys = torch.arange(self.grid[1], device=device) < lengths[:, None]  # [B, L]

        if attention == "dense":
            self.weights = similarity[self.document]  # [T, B]
        else:
            # For each document j the tokens of all documents that attend to it. (Not `>`: a NaN must not get lost.)
            attends = ~(similarity.detach() <= NEGLIGIBLE)[self.document]  # [T, B]
            source, self.tokens = attends.T.nonzero().unbind(1)  # sorted by j
            self.tokens_of = self.tokens.split(attends.sum(0).tolist())
            self.weights = similarity[self.document[self.tokens], source]

    def lay_out(self, padded: Tensor) -> Tensor:
        """[B, L, ...] -> [1, T, ...]: the documents end to end, without pads."""
        return padded[self.mask][None]

    def pad(self, row: Tensor) -> Tensor:
        """[1, T, ...] -> [B, L, ...] with zeros at the pads."""
        padded = row.new_zeros(*self.mask.shape, *row.shape[2:])
        padded[self.mask] = row[0]
        return padded

    def to_grid(self, row: Tensor) -> Tensor:
        """[1, H, 2T, d] -> [2B, H, L, d], each document at the front of its row and zeros after it."""
        rows, length = self.grid
        flat = row.new_zeros(rows * length, row.shape[1], row.shape[3])
        return flat.index_copy(0, self.places, row[0].transpose(0, 1)).unflatten(0, self.grid).transpose(1, 2)

    def from_grid(self, grid: Tensor) -> Tensor:
        """[2B, H, L, d] -> [1, 2T, H, d]."""
        return grid.transpose(1, 2).flatten(0, 1)[None, self.places]


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    s_aux: None = None,
    in_batch: _Batch | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer: query [1, H, 2T, d], key and value [1, H_kv, 2T, d] -> [1, 2T, H, d]."""
    if in_batch is None:
        raise InBatchError(f"{type(module).__name__} of layer {module.layer_idx} did not receive the similarity")
    if s_aux is not None:
        raise InBatchError(f"{type(module).__name__}: in-batch attention has no attention sinks")
    in_batch.layers.add(module.layer_idx)
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) if groups > 1 else x for x in (key, value))

    keys, values = in_batch.to_grid(key), in_batch.to_grid(value)
    window = _window(in_batch.grid[1], sliding_window, query.device)
    own = F.scaled_dot_product_attention(
        in_batch.to_grid(query), keys, values, window, dropout, is_causal=window is None, scale=scaling
    )
    own = in_batch.from_grid(own)

    half = query.shape[2] // 2
    settings = {"scaling": scaling, "dropout": dropout}
    if in_batch.attention == "dense":
        size = len(keys) // 2
        other = _dense(in_batch, query[:, :, half:], keys[:size], values[:size], **settings)
    else:
        other = _pairs(in_batch, query[:, :, half:], key[:, :, :half], value[:, :, :half], **settings)
    e, h = own.tensor_split(2, dim=1)
    return torch.cat([e, h + other.transpose(1, 2)], 1), None


def _dense(batch: _Batch, query: Tensor, key: Tensor, value: Tensor, *, scaling: float, dropout: float) -> Tensor:
    """b_i of eq. 6 or 9 for query [1, H, T, d], key and value [B, H, L, d] -> [1, H, T, d], as the paper writes it."""
    size, heads, length, _ = key.shape
    key, value = (x.transpose(0, 1).flatten(1, 2) for x in (key, value))  # [H, B*L, d]
    bias = torch.zeros_like(batch.keys, dtype=query.dtype).masked_fill(~batch.keys, float("-inf")).flatten()
    scores = torch.baddbmm(bias, query[0], key.mT, alpha=scaling).unflatten(2, (size, length))  # [H, T, B, L]
    p = scores.softmax(3, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    p = F.dropout(p, dropout)
    weights = batch.weights.to(p.dtype).expand(heads, -1, -1)  # [H, T, B]
    if batch.value_norm:
        norms = value.norm(dim=-1).view(heads, 1, size, length)
        weights = weights / ((p * norms).sum(3) + EPSILON)  # N_ij, eq. 8
    return torch.bmm((p * weights[..., None]).flatten(2), value)[None]


def _pairs(batch: _Batch, query: Tensor, key: Tensor, value: Tensor, *, scaling: float, dropout: float) -> Tensor:
    """The same from key and value [1, H, T, d], over the pairs whose weight is not negligible."""
    dim = value.shape[3]
    if batch.value_norm:
        # N_ij comes out of the same call: a column ||V_j|| of the values. Query and key get a zero column, because
        # the fast kernels want one head size for all three.
        zero = query.new_zeros(1, query.shape[1], query.shape[2], 1)
        query, key = torch.cat([query, zero], 3), torch.cat([key, zero.to(key.dtype)], 3)
        value = torch.cat([value, value.norm(dim=-1, keepdim=True).to(value.dtype)], 3)
    b = torch.cat(
        [
            F.scaled_dot_product_attention(query.index_select(2, tokens), k, v, dropout_p=dropout, scale=scaling)
            for tokens, k, v in zip(batch.tokens_of, key.split(batch.lengths, 2), value.split(batch.lengths, 2))
            if len(tokens)
        ],
        dim=2,
    )  # [1, H, pairs' tokens, d]
    if batch.value_norm:
        b = b[..., :dim] / (b[..., dim:] + EPSILON)
    b = b * batch.weights.to(b.dtype)[:, None]
    return b.new_zeros(1, b.shape[1], len(batch.document), dim).index_add(2, batch.tokens, b)


def _window(length: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """The mask [L, L] of a sliding-window layer; None where plain causal attention is the same."""
    if sliding_window is None or length <= sliding_window:
        return None
    position = torch.arange(length, device=device)
    back = position[:, None] - position
    return (back >= 0) & (back < sliding_window)


def _no_mask(*args, **kwargs) -> None:
    """The mask that transformers would build for the row of 2T tokens; the attention takes the row apart itself."""


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _no_mask)


@contextmanager
def _in_batch_attention(decoder: PreTrainedModel) -> Iterator[None]:
    """In-batch attention in all layers, for the calls inside and for their recomputation by gradient checkpointing.

    A checkpointed layer is called once more in the backward pass, when this context is long left. So the checkpoint
    function is given a context that enters it again.
    """
    before = decoder.config._attn_implementation
    checkpointed = [layer for layer in decoder.modules() if getattr(layer, "gradient_checkpointing", False)]
    functions = [layer._gradient_checkpointing_func for layer in checkpointed]
    decoder.config._attn_implementation = NAME
    for layer, function in zip(checkpointed, functions):
        layer._gradient_checkpointing_func = partial(
            function, context_fn=lambda: (nullcontext(), _in_batch_attention(decoder))
        )
    try:
        yield
    finally:
        decoder.config._attn_implementation = before
        for layer, function in zip(checkpointed, functions):
            layer._gradient_checkpointing_func = function
