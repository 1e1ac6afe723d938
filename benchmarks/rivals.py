"""The straightforward implementations that the engine is measured against: the equations, and no more thought.

Everything is padded to one length. The language model runs twice, once for each stream, and computes logits of both;
cross attention takes all pairs, its probabilities [B, B, H, L, L] written to memory in every layer.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from revela.method.similarity import similarity

NAME = "straightforward"


def attention(module, query, key, value, attention_mask, *, scaling, keys, cross=None, store=None, **kwargs):
    """Causal self-attention with pads masked; the h-stream adds cross attention to what the e-stream left in `store`."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    length = query.shape[2]
    causal = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key).mul_(scaling)
    scores = scores.masked_fill_(~(causal & keys[:, None, None, :]), float("-inf"))
    out = scores.softmax(-1) @ value
    if cross is None:
        store[module.layer_idx] = key, value
    else:
        out = out + others(query, *store[module.layer_idx], keys, cross, scaling)
    return out.transpose(1, 2), None


def others(query: Tensor, key: Tensor, value: Tensor, keys: Tensor, sim: Tensor, scaling: float) -> Tensor:
    """sum_j Sim_ij softmax(Q_i K_j^T) V_j."""
    scores = torch.einsum("ihqd,jhkd->ijhqk", query, key).mul_(scaling)
    p = scores.masked_fill_(~keys[None, :, None, None, :], float("-inf")).softmax(-1)
    return torch.einsum("ij,ijhqd->ihqd", sim.to(p.dtype), torch.einsum("ijhqk,jhkd->ijhqd", p, value))


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)


def revela_loss(objective, batch: dict[str, Tensor], length: int) -> Tensor:
    """The loss of `objective` (a Revela) for a batch of its own, by the straightforward way: summed over tokens."""
    padded = {
        name: F.pad(x, (0, length - x.shape[1]), value=-100 if "labels" in name else 0) for name, x in batch.items()
    }
    queries, passages = (
        objective.retriever(padded[f"{side}_input_ids"], padded[f"{side}_attention_mask"])
        for side in ("query", "passage")
    )
    sim = similarity(queries, passages, **objective.cosines)
    ids, keys, store = padded["lm_input_ids"], padded["lm_attention_mask"].bool(), {}
    keys = keys | (torch.arange(length, device=keys.device) == 0)  # a row of pads would be NaN
    lm, config = objective.lm, objective.lm.get_decoder().config
    before, config._attn_implementation = config._attn_implementation, NAME
    lm(input_ids=ids, keys=keys, store=store, use_cache=False)  # e-stream, its logits unused
    logits = lm(input_ids=ids, keys=keys, store=store, cross=sim, use_cache=False).logits
    config._attn_implementation = before
    labels = padded["lm_labels"]
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="sum")


def cross_attention(config, size: int, length: int, device: str, at_a_time: int = 8) -> None:
    """Cross attention of one layer, forward and backward, some of the documents i at a time, so that it fits."""
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    shape = (size, heads, length, width)
    query, key, value = (torch.randn(shape, device=device, requires_grad=True) for _ in range(3))
    keys = torch.ones(size, length, dtype=torch.bool, device=device)
    sim = torch.rand(size, size, device=device, requires_grad=True)
    for some in torch.arange(size).split(at_a_time):
        others(query[some], key, value, keys, sim[some], width**-0.5).sum().backward()


@torch.no_grad()
def replug_scores(lm: nn.Module, ids: Tensor) -> Tensor:
    """Mean -log p(D_i | D_j), [B, B], of documents [B, L] without pads: each concatenation runs through the model."""
    size, length = ids.shape
    scores = torch.empty(size, size, device=ids.device)
    for j in range(size):
        joined = torch.cat([ids[j].expand(size, -1), ids], 1)
        logits = lm(input_ids=joined).logits[:, length - 1 : -1].float()
        losses = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none")
        scores[:, j] = losses.view(size, length).mean(1)
    return scores
