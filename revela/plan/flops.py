"""Floating-point operations of training, counted on paper: for MFU in the log, and for plans before anything is spent.

The count is of the multiplications and additions of matrix products that the mathematics of a step needs: 2mkn for
[m, k] x [k, n]. For T tokens in documents of L_1 .. L_B tokens, forward:

    matrices of the layers   2 T sum(in * out)           adapters of rank r   2 T r sum(in + out)
    causal attention         2 H d sum(L_b^2)            a layer, masked halves left out
    cross attention          4 H d sum(L_i L_j)          a layer, over the pairs (i, j) that are taken
    head                     2 * hidden * V              a predicted token

Backward is twice that for what is trained and for attention, once for frozen matrices, which pass the gradient on.
Of a frozen language model only the h-stream goes backward, and its attention passes nothing on to the e-stream's keys
and values. Norms, activations, softmax, the optimizer, and what gradient checkpointing computes again are not counted, so

    MFU = operations / (seconds * processes * peak of the chip)

is what Chowdhery et al. (2022, App. B) call model FLOPs utilisation, with causal attention at its true half.

`revela` and `retriever_alone` count a batch of a method; `revela.study.methods` says which of the two a
method is counted by.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revela.errors import RevelaError

if TYPE_CHECKING:
    from revela.study.settings import Lora, Training

BYTES = {"bf16": 2, "fp32": 4}  # of a number, by the precision
# Dense bfloat16 operations a second by part of the name that CUDA gives a chip; NVIDIA's data sheets, without sparsity.
PEAK = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "L40S": 362e12,
    "A40": 149.7e12,
}


class ShapeError(RevelaError):
    """A model of which no operations are counted. The message is one line."""


Lengths = Sequence[float]  # tokens of each document, pads left out


@dataclass(frozen=True)
class Shape:
    """What the cost of a decoder follows from."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Shape:
        """The shape that a model's `config.json` describes; ShapeError if it is not of a Llama-like decoder."""
        needed = "num_attention_heads", "num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"
        if missing := [key for key in needed if key not in config]:
            raise ShapeError(
                f"{config.get('model_type')}: no {missing[0]} in its config.json, by which memory and cost are counted; "
                "valid: a decoder that is configured as Llama, Qwen or SmolLM"
            )
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
        )

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """(in, out) of each matrix of a layer."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def weights(self) -> int:
        """Entries of all matrices of the layers; embeddings, head and norms are not among them."""
        return self.layers * sum(rows * columns for rows, columns in self.matrices.values())

    def adapter_weights(self, lora: Lora) -> int:
        """Entries of all adapters."""
        sizes = (sum(size) for name, size in self.matrices.items() if name in lora.targets)
        return self.layers * lora.rank * sum(sizes)


@functools.cache
def read_shape(path: Path) -> Shape:
    """The shape that the config.json of a model describes; ShapeError, which names the file, if there is none."""
    try:
        return Shape.from_config(json.loads(path.read_text(encoding="utf-8")))
    except ShapeError as error:
        raise ShapeError(f"{path}: {error}") from None


def forward(shape: Shape, lengths: Lengths) -> float:
    """Documents that run through the layers once, as in encoding."""
    return 2 * shape.weights * sum(lengths) + _causal(shape, lengths)


def revela(
    settings: Training, retriever: Shape, lm: Shape, lengths: Mapping[str, Lengths], *, attended: float = 1
) -> float:
    """A batch of Revela, forward and backward: a row of the training file, which is one micro-step of one process.

    Args:
        lengths: tokens of each "query" and "passage" of the retriever, and of each document of the "lm".
        attended: other documents that a document attends to, on average: about 1 where tau is 1e-4, at most B - 1.
    """
    total = 0.0 if settings.similarity == "uniform" else retriever_alone(settings, retriever, lm, lengths)
    documents = lengths["lm"]
    tokens, size = sum(documents), len(documents)
    cross = 4 * lm.layers * lm.heads * lm.head_dim * attended * tokens * tokens / size
    predicted = tokens - size
    if settings.freeze_lm:
        e_stream = forward(lm, documents) + settings.dual_loss * head(lm, predicted)
        h_stream = _layers(lm, tokens, None, frozen=True) + 3 * _causal(lm, documents) + 2 * head(lm, predicted)
        return total + e_stream + h_stream + 2 * cross
    streams = _layers(lm, 2 * tokens, settings.lora) + 3 * 2 * _causal(lm, documents)
    # The head carries no adapter: it is frozen unless the whole model is trained.
    heads = (2 if settings.lora else 3) * (2 if settings.dual_loss else 1) * head(lm, predicted)
    return total + streams + 3 * cross + heads


def retriever_alone(
    settings: Training, retriever: Shape, lm: Shape | None, lengths: Mapping[str, Lengths], *, attended: float = 1
) -> float:
    """A batch of a method that runs no language model, forward and backward.

    `lengths` are those of each "query" and "passage"; `lm` and `attended` stand here because all methods are called alike.
    """
    texts = [*lengths["query"], *lengths["passage"]]
    return _layers(retriever, sum(texts), settings.lora) + 3 * _causal(retriever, texts)


def replug_scores(lm: Shape, lengths: Lengths) -> float:
    """The B x B scores of one batch; each prefix is read once, and its keys and values serve all B documents."""
    tokens, size = sum(lengths), len(lengths)
    cross = 4 * lm.layers * lm.heads * lm.head_dim * tokens * tokens
    return (1 + size) * forward(lm, lengths) + cross + head(lm, size * tokens)


def head(lm: Shape, tokens: float) -> float:
    """The logits of a number of tokens."""
    return 2 * lm.hidden * lm.vocabulary * tokens


def peak(device: str) -> float | None:
    """Dense bfloat16 operations a second of a chip by the name that CUDA gives it; None if it is not known here."""
    name = known(device)
    return PEAK[name] if name else None


def known(device: str) -> str | None:
    """The name in `PEAK` of a chip by the name that CUDA gives it; None if it is not known here."""
    return next((name for name in sorted(PEAK, key=len, reverse=True) if name in device), None)


def _layers(shape: Shape, tokens: float, lora: Lora | None, *, frozen: bool = False) -> float:
    """Matrices of the layers, forward and backward."""
    if frozen:
        return 2 * 2 * shape.weights * tokens
    if lora is None:
        return 3 * 2 * shape.weights * tokens
    return (2 * 2 * shape.weights + 3 * 2 * shape.adapter_weights(lora)) * tokens


def _causal(shape: Shape, lengths: Lengths) -> float:
    """Causal self-attention of all layers, forward."""
    return 2 * shape.layers * shape.heads * shape.head_dim * sum(length * length for length in lengths)
