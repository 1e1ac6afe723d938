"""GPU memory of training, estimated on paper, for advice to a run that did not fit.

    weights       frozen ones in the run's precision, trained ones in float32
    gradients     4 bytes for each trained weight
    optimizer     8 bytes, and under ZeRO-1 and 2 a float32 copy of 4 more
    activations   what the backward pass needs of each token in each layer, or with gradient checkpointing the layer's
                  input, and all of one layer; of a frozen language model, those of the h-stream, and the keys and values
                  of the e-stream
    logits        a piece of float32 logits with its softmax and gradient
    keys, values  of the e-stream that come from processes which share the batch: at most those of all its documents

ZeRO shares the optimizer (stage 1), gradients (2) and all weights (3) among the processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from revela.plan.flops import Shape

if TYPE_CHECKING:
    from revela.study.settings import Training

LOGITS = 3 * 4 * 2**25  # bytes, see revela.objectives.revela
BYTES = {"bf16": 2, "fp32": 4}


def alternatives(
    settings: Training, shapes: Sequence[Shape], batch_size: int, processes: int, *, least_batch: int = 2
) -> dict[str, float]:
    """Bytes that a process needs under each change of settings that would save memory, by the change.

    No batch has fewer chunks than `least_batch`.
    """
    changes = {"gradient_checkpointing: true": {"gradient_checkpointing": True}}
    if processes > 1:
        changes["zero_stage: 3"] = {"zero_stage": 3}
        changes["both"] = {"gradient_checkpointing": True, "zero_stage": 3}
    now = peak(settings, shapes, batch_size, processes)
    needs = {
        change: peak(settings.model_copy(update=values), shapes, batch_size, processes)
        for change, values in changes.items()
    }
    all_changes = {"gradient_checkpointing": True, "zero_stage": 3 if processes > 1 else settings.zero_stage}
    for size in (max(batch_size // 2, least_batch), max(batch_size // 4, least_batch)):
        if size < batch_size:
            changed = settings.model_copy(update=all_changes)
            needs[f"all that and batch size {size}"] = peak(changed, shapes, size, processes)
    return {change: need for change, need in needs.items() if need < now}


def peak(settings: Training, shapes: Sequence[Shape], batch_size: int, processes: int) -> float:
    """Bytes that a process holds at most.

    shapes: the retriever's, and that of a language model that runs beside it.
    """
    own = batch_size / settings.processes_per_batch
    tokens = [2 * own * settings.retriever_max_length, 2 * own * settings.lm_max_length][: len(shapes)]
    total = LOGITS if len(shapes) == 2 else 0.0
    for part, (shape, count) in enumerate(zip(shapes, tokens)):
        frozen = part == 1 and settings.freeze_lm
        total += _weights(settings, shape, processes, frozen=frozen)
        layer = activations(settings, shape, frozen=frozen)
        if frozen:
            count /= 2  # the h-stream's
            total += count * shape.layers * BYTES[settings.precision] * 2 * shape.kv_heads * shape.head_dim
        if settings.gradient_checkpointing:
            total += count * (shape.layers * BYTES[settings.precision] * shape.hidden + layer)
        else:
            total += count * shape.layers * layer
    if len(shapes) == 2:
        lm = shapes[1]
        layers = 1 if settings.gradient_checkpointing and not settings.freeze_lm else lm.layers
        coming = (batch_size - own) * settings.lm_max_length
        total += coming * layers * BYTES[settings.precision] * 2 * lm.kv_heads * lm.head_dim
    return total


def activations(settings: Training, shape: Shape, *, frozen: bool = False) -> float:
    """Bytes that a token leaves in a layer for the backward pass."""
    width = BYTES[settings.precision]
    queries = shape.heads * shape.head_dim
    total = 2 * 4 * shape.hidden  # the input of each norm, in float32
    total += width * 3 * shape.intermediate  # gate, its activation, up
    # Query, key and value laid out for attention, and its output; as much for half of the streams in cross attention.
    total += width * 1.5 * 2 * (queries + shape.kv_heads * shape.head_dim)
    inputs = {name: rows for name, (rows, _) in shape.matrices.items()}
    if settings.lora and not frozen:
        dropped = width + (1 if settings.lora.dropout else 0)  # the adapter's input and dropout's mask
        targets = [inputs[name] for name in settings.lora.targets if name in inputs]
        total += dropped * sum(targets) + width * settings.lora.rank * len(targets)
    elif not frozen:  # the inputs of the matrices, which query, key and value share, as gate and up do
        total += width * (2 * shape.hidden + queries + shape.intermediate) + 2 * width * shape.hidden
    return total


def _weights(settings: Training, shape: Shape, processes: int, *, frozen: bool) -> float:
    """Bytes of weights, their gradients and the optimizer's state."""
    base = shape.weights + shape.hidden * shape.vocabulary
    if frozen:
        kept, trained = base, 0
    elif settings.lora:
        kept, trained = base, shape.adapter_weights(settings.lora)
    else:
        kept, trained = 0, base
    stage, share = settings.zero_stage, 1 / processes
    weights = (BYTES[settings.precision] * kept + 4 * trained) * (share if stage == 3 else 1)
    gradients = 4 * trained * (share if stage >= 2 else 1)
    optimizer = (8 if stage == 0 else 12) * trained * (share if stage >= 1 else 1)
    return weights + gradients + optimizer
