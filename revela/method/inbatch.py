"""In-batch attention (section 3.2) in the attention layers of a stock Hugging Face causal language model.

Each document of a batch runs through the model in two streams that share all weights:

    e: ordinary causal self-attention, eq. 3-4
    h: s_i + sum over j != i of Sim_ij b_ij, eq. 7; s_i is causal self-attention over h_i, and b_ij, eq. 5, is full
       attention of h_i's queries over the keys and values that the e-stream has for document j

so that the next token of document i is predicted from its own prefix and from the other documents, as far as Sim lets
it see them. The gradient of the loss reaches Sim, and through the e-stream's keys and values nothing is detached.

Both streams of all documents go through the model in one forward, as a row of 2T tokens without pads, e first
(`revela.method.packing`).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revela.method.packing import Packing, PackingError, receive, register, run
from revela.pretrained import output_head

NAME = "revela_in_batch"  # in transformers' registry of attention functions
NEGLIGIBLE = 1e-8  # dL/dS_ij carries the factor Sim_ij: a pair below this adds nothing to h nor to the retriever
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
    e_stream: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The last hidden states of the h-stream, ready for the model's head.

    Args:
        lm: a causal language model of transformers, PEFT-wrapped or not.
        input_ids, attention_mask: [B, L], padded on either side.
        similarity: [B, B], zero diagonal; Sim_ij weighs document j in the prediction of document i. Gets its gradient.
        value_norm: divide b_ij by N_ij, eq. 8.
        attention: "dense" is eq. 5-9 as written, over all pairs, with the probabilities [H, T, B, L] of a layer in
            memory; "sparse" sends the pairs with Sim_ij > 1e-8 through scaled_dot_product_attention.
        e_stream: return (h, e) instead of h.

    Returns:
        [B, L, hidden] with zeros at the pads.

    Raises:
        InBatchError: Sim does not fit the batch, or the attention is unknown.
        PackingError: a document has no token, or some layers of the model do not take part.
    """
    batch = _Batch(attention_mask, similarity, value_norm, attention)
    row = batch.lay_out(input_ids)
    hidden = run(lm.get_decoder(), torch.cat([row, row], 1), batch, NAME)
    e, h = hidden.tensor_split(2, dim=1)
    return (batch.pad(h), batch.pad(e)) if e_stream else batch.pad(h)


def logits(
    lm: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    similarity: Tensor,
    *,
    value_norm: bool,
    attention: Attention = "sparse",
) -> Tensor:
    """The h-stream's logits [B, L, V], meaningless at pads. Arguments and errors are those of `hidden_states`.

    Raises PretrainedError as well, for a model that changes its logits after the head.
    """
    hidden = hidden_states(lm, input_ids, attention_mask, similarity, value_norm=value_norm, attention=attention)
    return output_head(lm)(hidden)


class _Batch(Packing):
    """What the attention layers have to know of a batch of B documents with T tokens, L in the longest."""

    def __init__(self, attention_mask: Tensor, similarity: Tensor, value_norm: bool, attention: Attention):
        if attention not in ("sparse", "dense"):
            raise InBatchError(f"attention {attention!r} is unknown; valid are sparse, dense")
        size = len(attention_mask)
        if similarity.shape != (size, size):
            raise InBatchError(f"similarity is {tuple(similarity.shape)}; a batch of {size} needs {(size, size)}")
        if similarity.diagonal().nan_to_num().count_nonzero():  # a NaN is reported with the loss
            raise InBatchError("similarity has a non-zero diagonal; a document does not attend to itself (eq. 6)")
        super().__init__(attention_mask, streams=2)
        self.value_norm, self.attention = value_norm, attention
        lengths = torch.tensor(self.lengths, device=attention_mask.device)
        self.keys = torch.arange(self.grid[1], device=attention_mask.device) < lengths[:, None]  # [B, L]
        if attention == "dense":
            self.weights = similarity[self.document]  # [T, B]
        else:
            # For each document j the tokens of all documents that attend to it. (Not `>`: a NaN must not get lost.)
            attends = ~(similarity.detach() <= NEGLIGIBLE)[self.document]  # [T, B]
            source, self.tokens = attends.T.nonzero().unbind(1)  # sorted by j
            self.tokens_of = self.tokens.split(attends.sum(0).tolist())
            self.weights = similarity[self.document[self.tokens], source]


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
    """What transformers calls in each layer: query [1, H, 2T, d], key and value [1, H_kv, 2T, d] -> [1, 2T, H, d]."""
    receive(module, packing, s_aux)
    keys, values = packing.to_grid(key), packing.to_grid(value)
    settings = {"scale": scaling, "dropout_p": dropout}
    own = packing.causal(query, keys, values, window=sliding_window, **settings)

    half = query.shape[2] // 2
    if packing.attention == "dense":
        size = len(keys) // 2
        other = _dense(packing, query[:, :, half:], keys[:size], values[:size], **settings)
    else:
        other = _sparse(packing, query[:, :, half:], key[:, :, :half], value[:, :, :half], **settings)
    e, h = own.tensor_split(2, dim=1)
    return torch.cat([e, h + other.transpose(1, 2)], 1), None


def _dense(batch: _Batch, query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout_p: float) -> Tensor:
    """b_i of eq. 6 or 9 for query [1, H, T, d], key and value [B, H_kv, L, d] -> [1, H, T, d], as the paper writes it."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    size, heads, length, _ = key.shape
    key, value = (x.transpose(0, 1).flatten(1, 2) for x in (key, value))  # [H, B*L, d]
    bias = torch.zeros_like(batch.keys, dtype=query.dtype).masked_fill(~batch.keys, float("-inf")).flatten()
    scores = torch.baddbmm(bias, query[0], key.mT, alpha=scale).unflatten(2, (size, length))  # [H, T, B, L]
    p = scores.softmax(3, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    p = F.dropout(p, dropout_p)
    weights = batch.weights.to(p.dtype).expand(heads, -1, -1)  # [H, T, B]
    if batch.value_norm:
        norms = value.norm(dim=-1).view(heads, 1, size, length)
        weights = weights / ((p * norms).sum(3) + EPSILON)  # N_ij, eq. 8
    return torch.bmm((p * weights[..., None]).flatten(2), value)[None]


def _sparse(batch: _Batch, query: Tensor, key: Tensor, value: Tensor, **settings) -> Tensor:
    """The same from key and value [1, H_kv, T, d], over the pairs whose weight is not negligible."""
    dim = value.shape[3]
    if batch.value_norm:
        # N_ij comes out of the same call: a column ||V_j|| of the values. Query and key get a zero column, because
        # the fast kernels want one head size for all three.
        query, key = F.pad(query, (0, 1)), F.pad(key, (0, 1))
        value = torch.cat([value, value.norm(dim=-1, keepdim=True).to(value.dtype)], 3)
    b = torch.cat(
        [
            F.scaled_dot_product_attention(query.index_select(2, tokens), k, v, enable_gqa=True, **settings)
            for tokens, k, v in zip(batch.tokens_of, key.split(batch.lengths, 2), value.split(batch.lengths, 2))
            if len(tokens)
        ],
        dim=2,
    )  # [1, H, pairs' tokens, d]
    if batch.value_norm:
        b = b[..., :dim] / (b[..., dim:] + EPSILON)
    b = b * batch.weights.to(b.dtype)[:, None]
    return b.new_zeros(1, b.shape[1], len(batch.document), dim).index_add(2, batch.tokens, b)


register(NAME, _attention)
