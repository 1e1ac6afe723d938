"""In-batch attention (section 3.2) in the attention layers of a stock Hugging Face causal language model.

Each document of a batch runs through the model in two streams that share all weights:

    e: ordinary causal self-attention, eq. 3-4
    h: s_i + sum over j != i of Sim_ij b_ij, eq. 7; s_i is causal self-attention over h_i, and b_ij, eq. 5, is full
       attention of h_i's queries over the keys and values that the e-stream has for document j

so that the next token of document i is predicted from its own prefix and from the other documents, as far as Sim lets
it see them. The gradient of the loss reaches Sim, and through the e-stream's keys and values nothing is detached.

A gate g may stand before b_ij. It is 1 in the paper; below 1, a pretrained model is thrown less far out of what it
knows. To scale Sim by g is the same.

Both streams of all documents go through the model in one forward, as a row of 2T tokens without pads, e first
(`revela.method.packing`). If the model is frozen, the e-stream goes first and alone. It does not depend on Sim, and what
the gradient to Sim needs of it are its keys and values, so it leaves nothing else behind.

Several processes may share a batch (`revela.method.exchange`). Each runs the streams of its own documents, and the
e-stream's keys and values come to it from the others, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from revela.method.exchange import Exchange, Group
from revela.method.packing import Packing, PackingError, packed_attention, receive, register, run
from revela.method.short import fast_products, summed_attention
from revela.pretrained import output_head

NAME = "revela_in_batch"  # in transformers' registry of attention functions
E_STREAM = "revela_e_stream"  # likewise
NEGLIGIBLE = 1e-8  # dL/dS_ij carries the factor Sim_ij: a pair below this adds nothing to h nor to the retriever
# On a CPU all pairs together are faster from 1 in so many on: in bfloat16 by `_dense`, in float32 by `_summed`.
MOST, HALF = 8, 2
EPSILON = 1e-6  # of eq. 8 (App. B.5)

Attention = Literal["sparse", "dense"]


class InBatchError(PackingError):
    """A batch or a model that in-batch attention cannot be computed for. The message is one line."""


def hidden_states(
    lm: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    similarity: Tensor,
    *,
    value_norm: bool,
    attention: Attention = "sparse",
    gate: float | Tensor = 1.0,
    e_stream: bool = False,
    group: Group | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The last hidden states of the h-stream, ready for the model's head.

    Args:
        lm: a causal language model of transformers, PEFT-wrapped or not.
        input_ids, attention_mask: [B, L], padded on either side.
        similarity: [B, B], zero diagonal; Sim_ij weighs document j in the prediction of document i. Gets its gradient.
        value_norm: divide b_ij by N_ij, eq. 8.
        attention: "dense" is eq. 5-9 as written, over all pairs, with the probabilities [H, T, B, L] of a layer in
            memory; "sparse" sends the pairs with Sim_ij > 1e-8 through scaled_dot_product_attention, or on a CPU all
            pairs through what is faster, where they are many.
        gate: a factor of all b_ij: one number, [layers], or [layers, heads]. A tensor gets its gradient.
        e_stream: return (h, e) instead of h.
        group: the processes that share the batch. `input_ids` and `attention_mask` are then those of this process's
            B / P documents, and `similarity` their rows, [B / P, B].

    Returns:
        [B, L, hidden] with zeros at the pads.

    Raises:
        InBatchError: Sim does not fit the batch, the gate does not fit the model, or the attention is unknown.
        PackingError: a document has no token, or some layers of the model do not take part.
    """
    decoder = lm.get_decoder()
    if isinstance(gate, Tensor):
        check_gate(gate, decoder.config.num_hidden_layers, decoder.config.num_attention_heads)
    options = {"value_norm": value_norm, "attention": attention, "gate": gate, "group": group}
    if any(parameter.requires_grad for parameter in lm.parameters()):
        batch = _Batch(attention_mask, similarity, **options)
        row = batch.lay_out(input_ids)
        e, h = run(decoder, torch.cat([row, row], 1), batch, NAME).tensor_split(2, dim=1)
    else:
        alone = _EStream(attention_mask)
        batch = _Batch(attention_mask, similarity, **options, e_stream=alone)
        row, alone.exchange = batch.lay_out(input_ids), batch.exchange
        with torch.no_grad():
            e = run(decoder, row, alone, E_STREAM)
        h = run(decoder, row, batch, NAME)
    return (batch.pad(h), batch.pad(e)) if e_stream else batch.pad(h)


def logits(
    lm: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    similarity: Tensor,
    *,
    value_norm: bool,
    attention: Attention = "sparse",
    gate: float | Tensor = 1.0,
) -> Tensor:
    """The h-stream's logits [B, L, V], meaningless at pads. Arguments and errors are as for `hidden_states`.

    Raises PretrainedError as well, for a model that changes its logits after the head.
    """
    options = {"value_norm": value_norm, "attention": attention, "gate": gate}
    hidden = hidden_states(lm, input_ids, attention_mask, similarity, **options)
    return output_head(lm)(hidden)


def check_gate(gate: Tensor, layers: int, heads: int) -> None:
    """InBatchError for a gate that is none of [], [layers] and [layers, heads]."""
    if gate.shape not in ((), (layers,), (layers, heads)):
        raise InBatchError(
            f"gate is {tuple(gate.shape)}; a model of {layers} layers with {heads} heads takes (), ({layers},) or "
            f"({layers}, {heads})"
        )


class _EStream(Packing):
    """The e-stream alone: each layer's key and value [1, H_kv, T, d] are kept for the h-stream, exchanged if need be."""

    def __init__(self, attention_mask: Tensor):
        super().__init__(attention_mask)
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}
        self.exchange: Exchange | None = None


class _Batch(Packing):
    """What the attention layers have to know of a batch of B documents with T tokens, L in the longest.

    e_stream: has gone before; None: it runs beside the h-stream, in the first half of each row.
    """

    def __init__(
        self,
        attention_mask: Tensor,
        similarity: Tensor,
        *,
        value_norm: bool,
        attention: Attention,
        gate: float | Tensor,
        group: Group | None,
        e_stream: _EStream | None = None,
    ):
        if attention not in ("sparse", "dense"):
            raise InBatchError(f"attention {attention!r} is unknown; valid are sparse, dense")
        own = len(attention_mask)
        size, first = (own, 0) if group is None else (own * group.count, own * group.place)
        if similarity.shape != (own, size):
            raise InBatchError(f"similarity is {tuple(similarity.shape)}; a batch of {size} needs {(own, size)}")
        if similarity.diagonal(first).nan_to_num().count_nonzero():  # a NaN is reported with the loss
            raise InBatchError("similarity has a non-zero diagonal; a document does not attend to itself (eq. 6)")
        super().__init__(attention_mask, streams=2 if e_stream is None else 1)
        self.value_norm, self.attention, self.gate, self.e_stream = value_norm, attention, gate, e_stream
        attends = ~(similarity.detach() <= NEGLIGIBLE)  # (Not `>`: a NaN must not get lost.)
        wanted = torch.ones_like(attends) if attention == "dense" else attends
        self.exchange = None if group is None else Exchange(group, wanted, self.lengths)
        self.e_lengths = self.exchange.lengths if self.exchange else self.lengths  # of keys and values, [B]
        lengths = torch.tensor(self.e_lengths, device=attention_mask.device)
        self.keys = torch.arange(max(self.e_lengths), device=attention_mask.device) < lengths[:, None]  # [B, L]
        self.weights = similarity[self.document]  # [T, B]
        if attention == "sparse":
            # For each document j the tokens of all documents that attend to it.
            attends = attends[self.document]  # [T, B]
            source, self.tokens = attends.T.nonzero().unbind(1)  # sorted by j
            self.tokens_of = self.tokens.split(attends.sum(0).tolist())
            self.of_pairs = similarity[self.document[self.tokens], source]

    def way(self, query: Tensor, dropout_p: float) -> Callable[..., Tensor]:
        """What makes b_i: as set, or of those that skip negligible pairs or take all, the fastest for this query."""
        if self.attention == "dense":
            return _dense
        if query.device.type == "cpu" and 0 not in self.e_lengths:
            count, pairs = len(self.tokens), self.weights.numel()
            if fast_products(query):
                return _dense if MOST * count > pairs else _sparse
            plain = not (self.value_norm or dropout_p or torch.is_autocast_enabled("cpu"))
            return _summed if plain and HALF * count > pairs else _sparse
        return _sparse

    def e_grid(self, row: Tensor) -> Tensor:
        """Keys or values [1, H_kv, T, d] of the e-stream -> [B, H_kv, L, d]."""
        documents = row[0].transpose(0, 1).split(self.e_lengths)
        return nn.utils.rnn.pad_sequence(documents, batch_first=True).transpose(1, 2)

    def gated(self, weights: Tensor, layer: int) -> Tensor:
        """The weights of b_ij, `weights` or `of_pairs`, in a layer: one, or one for each head, [1 or H, ...]."""
        if isinstance(self.gate, Tensor):
            of_layer = self.gate[layer] if self.gate.ndim else self.gate
            return weights * of_layer.view(-1, *[1] * weights.ndim).to(weights.dtype)
        return (weights if self.gate == 1 else weights * self.gate)[None]


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
    s_aux: Tensor | None = None,
    packing: _Batch | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer: query [1, H, 2T, d], key and value [1, H_kv, 2T, d] -> [1, 2T, H, d].

    With T in place of 2T where the e-stream has gone before.
    """
    receive(module, packing, s_aux)
    keys, values = packing.to_grid(key), packing.to_grid(value)
    settings = {"scale": scaling, "dropout_p": dropout}
    own = packing.causal(query, keys, values, window=sliding_window, **settings)
    way, before = packing.way(query, dropout), packing.e_stream
    dense = way is _dense
    if before is None:
        half, size = query.shape[2] // 2, len(keys) // 2
        query = query[:, :, half:]
        e_key, e_value = (keys[:size], values[:size]) if dense else (key[:, :, :half], value[:, :, :half])
        if packing.exchange:
            e_key, e_value = packing.exchange(key[:, :, :half], value[:, :, :half])
    else:
        e_key, e_value = before.seen[module.layer_idx]
    if dense and (before or packing.exchange):
        e_key, e_value = packing.e_grid(e_key), packing.e_grid(e_value)
    other = way(packing, module.layer_idx, query, e_key, e_value, **settings).transpose(1, 2)
    if before is not None:
        return own + other, None
    e, h = own.tensor_split(2, dim=1)
    return torch.cat([e, h + other], 1), None


def _keep(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    packing: _EStream | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Plain packed attention, which keeps key and value."""
    done = packed_attention(module, query, key, value, attention_mask, packing=packing, **kwargs)
    packing.seen[module.layer_idx] = packing.exchange(key, value) if packing.exchange else (key, value)
    return done


def _dense(
    batch: _Batch, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout_p: float
) -> Tensor:
    """b_i of eq. 6 or 9 for query [1, H, T, d], key and value [B, H_kv, L, d] -> [1, H, T, d], as the paper writes it."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    size, heads, length, _ = key.shape
    key, value = (x.transpose(0, 1).flatten(1, 2) for x in (key, value))  # [H, B*L, d]
    bias = torch.zeros_like(batch.keys, dtype=query.dtype).masked_fill(~batch.keys, float("-inf")).flatten()
    scores = torch.baddbmm(bias, query[0], key.mT, alpha=scale).unflatten(2, (size, length))  # [H, T, B, L]
    inner = scores.dtype if fast_products(query) else torch.promote_types(scores.dtype, torch.float32)
    p = scores.softmax(3, dtype=inner).to(value.dtype)
    p = F.dropout(p, dropout_p)
    weights = batch.gated(batch.weights, layer).to(p.dtype).expand(heads, -1, -1)  # [H, T, B]
    if batch.value_norm:
        norms = value.norm(dim=-1).view(heads, 1, size, length)
        weights = weights / ((p * norms).sum(3) + EPSILON)  # N_ij, eq. 8
    return _Weighted.apply(p, weights, value)[None]


class _Weighted(torch.autograd.Function):
    """sum_j weights_j p_j value_j, which keeps the probabilities [H, T, B, L] once: as they are, not weighted as well."""

    @staticmethod
    def forward(ctx, p, weights, value):
        ctx.save_for_backward(p, weights, value)
        return torch.bmm((p * weights[..., None]).flatten(2), value)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        p, weights, value = ctx.saved_tensors
        of_value = None
        if ctx.needs_input_grad[2]:
            of_value = torch.bmm((p * weights[..., None]).flatten(2).mT, gradient)
        of_weighted = torch.bmm(gradient, value.mT).view_as(p)
        return of_weighted * weights[..., None], (of_weighted * p).sum(3), of_value


def _summed(batch: _Batch, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, **none) -> Tensor:
    """The same without V-normalisation, from key and value [1, H_kv, T, d] of all documents, one after the other."""
    weights = batch.gated(batch.weights, layer).to(query.dtype)
    return summed_attention(query, key, value, weights, batch.e_lengths, scale=scale)


def _sparse(batch: _Batch, layer: int, query: Tensor, key: Tensor, value: Tensor, **settings) -> Tensor:
    """The same from key and value [1, H_kv, T, d], over the pairs whose weight is not negligible."""
    dim = value.shape[3]
    if batch.value_norm:
        # N_ij comes out of the same call: a column ||V_j|| of the values. Query and key get a zero column, because
        # the fast kernels want one head size for all three.
        query, key = F.pad(query, (0, 1)), F.pad(key, (0, 1))
        value = torch.cat([value, value.norm(dim=-1, keepdim=True).to(value.dtype)], 3)
    found = [
        F.scaled_dot_product_attention(query.index_select(2, tokens), k, v, enable_gqa=True, **settings)
        for tokens, k, v in zip(batch.tokens_of, key.split(batch.e_lengths, 2), value.split(batch.e_lengths, 2))
        if len(tokens)
    ]
    # For its backward pass attention keeps what it found. From that the rest is made again, so that nothing else is kept.
    how = {"use_reentrant": False, "preserve_rng_state": False}
    weights = batch.gated(batch.of_pairs, layer)
    return checkpoint(_add_up, weights, batch.tokens, len(batch.document), dim, *found, **how)


def _add_up(weights: Tensor, tokens: Tensor, length: int, dim: int, *found: Tensor) -> Tensor:
    """b_i [1, H, T, dim] from b_ij [1, H, pairs' tokens, dim] of each j, with N_ij in a last column if that is to divide."""
    b = torch.cat(found, dim=2)
    if b.shape[3] > dim:
        b = b[..., :dim] / (b[..., dim:] + EPSILON)
    b = b * weights.to(b.dtype)[..., None]
    return b.new_zeros(1, b.shape[1], length, dim).index_add(2, tokens, b)


register(NAME, _attention)
register(E_STREAM, _keep)
