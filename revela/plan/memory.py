"""Memory of training, estimated on paper: whether a run fits is decided by it, before the run begins.

    runtime       on a CPU: Python, torch and the other libraries, and what the heap keeps
    weights       frozen ones in the run's precision, trained ones in float32
    gradients     4 bytes for each trained weight
    optimizer     8 bytes, and under ZeRO-1 and 2 a float32 copy of 4 more
    activations   what the backward pass needs of each token in each layer (`retained`), or with gradient checkpointing the
                  layer's input, and all of one layer; of a frozen language model, those of the h-stream, and the keys and
                  values of the e-stream
    at work       gradients of one layer's activations; or a piece of float32 logits with its softmax and, unless the head
                  is frozen, its gradient, where that is more
    keys, values  of the e-stream that come from processes which share the batch: at most those of all its documents

ZeRO shares the optimizer (stage 1), gradients (2) and all weights (3) among the processes. Activations and what is at work
are taken times `WASTE` or `GAPS` for what the allocator cannot fill. docs/performance.md compares the estimate with measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from revela.plan.flops import BYTES, Shape

if TYPE_CHECKING:
    from revela.study.settings import Training

LOGITS = 4 * 2**25  # bytes of a piece, see revela.objectives.revela
RUNTIME = 0.75 * 2**30  # of a process on a CPU
WASTE, GAPS = 1.05, 1.7  # in bfloat16 on a CPU, float32 copies on the way leave gaps between what is kept
SPREAD = 0.3  # of the cosines of a batch: how far below the highest most of them are
ALIKE = 18.4  # temperatures: exp(-18.4) = 1e-8, below which a pair has no part (revela.method.inbatch)
# GB of a GPU, by the names of flops.PEAK; of an A100 the one that the paper used.
DEVICE = {"A100": 80, "H100 PCIe": 80, "H100 NVL": 94, "H100": 80, "H200": 141, "GH200": 96, "B200": 180}
DEVICE |= {"L40S": 48, "A40": 48}

Tokens = tuple[float, float]  # of a batch: of the retriever's texts, and of the language model's in one stream


@dataclass(frozen=True)
class Cross:
    """Cross attention as `revela.method.inbatch` carries it out.

    way: "pairs" that are not negligible, each on its own; all pairs, of which a "sum" is made at once; or all pairs with
        their probabilities in a "grid".
    documents, keys: that a document and a token attend to.
    """

    way: Literal["pairs", "sum", "grid"]
    documents: float
    keys: float


def alternatives(
    settings: Training,
    shapes: Sequence[Shape],
    batch_size: int,
    processes: int,
    *,
    least_batch: int = 2,
    checkpointing: bool = False,
    gpu: bool = True,
    tokens: Tokens | None = None,
) -> dict[str, float]:
    """Bytes that a process needs under each change of settings that would save memory, by the change.

    No batch has fewer chunks than `least_batch`. The other arguments are those of `parts`.
    """

    def need(zero_stage: int, recompute: bool, size: int = batch_size) -> float:
        changed = settings.model_copy(update={"zero_stage": zero_stage})
        fewer = tokens and (tokens[0] * size / batch_size, tokens[1] * size / batch_size)
        return peak(changed, shapes, size, processes, checkpointing=recompute, gpu=gpu, tokens=fewer)

    stage, most = settings.zero_stage, 3 if processes > 1 else settings.zero_stage
    needs = {"gradient_checkpointing: true": need(stage, True)}
    if processes > 1:
        needs |= {
            "zero_stage: 3": need(3, checkpointing),
            "zero_stage: 3 with gradient_checkpointing: true": need(3, True),
        }
    for size in (max(batch_size // 2, least_batch), max(batch_size // 4, least_batch)):
        if size < batch_size:
            needs[f"all that and batch size {size}"] = need(most, True, size)
    now = need(stage, checkpointing)
    return {change: bytes for change, bytes in needs.items() if bytes < now}


def peak(settings: Training, shapes: Sequence[Shape], batch_size: int, processes: int, **how) -> float:
    """Bytes that a process holds at most: the sum of its `parts`, whose arguments these are."""
    return sum(parts(settings, shapes, batch_size, processes, **how).values())


def parts(
    settings: Training,
    shapes: Sequence[Shape],
    batch_size: int,
    processes: int,
    *,
    checkpointing: bool = False,
    gpu: bool = True,
    tokens: Tokens | None = None,
) -> dict[str, float]:
    """Bytes that a process holds at the height of a step, by what they are for.

    shapes: the retriever's, and that of a language model that runs beside it.
    tokens: of the largest batch; None: of one in which every text is as long as the settings let it be.
    """
    full = (2 * batch_size * settings.retriever_max_length, batch_size * settings.lm_max_length)
    retriever_tokens, lm_tokens = (count / settings.processes_per_batch for count in tokens or full)
    found = dict.fromkeys(("runtime", "weights", "gradients", "optimizer", "activations", "at work"), 0.0)
    if not gpu:
        found["runtime"] = RUNTIME
    waste = WASTE if gpu or settings.precision == "fp32" else GAPS
    widest = 0.0
    for part, shape in enumerate(shapes):
        frozen = part == 1 and settings.freeze_lm
        for name, size in _weights(settings, shape, processes, frozen=frozen).items():
            found[name] += size
        count = retriever_tokens if part == 0 else lm_tokens * (1 if frozen else 2)
        attention = cross_attention(settings, batch_size, lm_tokens, frozen=frozen, gpu=gpu) if part == 1 else None
        layer = sum(retained(settings, shape, frozen=frozen, cross=attention, gpu=gpu).values())
        stream = _stream(settings, frozen=frozen)
        if frozen:
            found["activations"] += lm_tokens * shape.layers * stream * 2 * shape.kv_heads * shape.head_dim
        kept = stream * shape.hidden if checkpointing else layer
        found["activations"] += count * shape.layers * kept
        widest = max(widest, count * (layer if checkpointing else 0))
        numbers = max(count * 3 * shape.intermediate, lm_tokens * _of_pairs(attention, shape))
        found["at work"] = max(found["at work"], waste * BYTES[settings.precision] * numbers)
    if len(shapes) == 2:
        lm = shapes[1]
        layers = 1 if checkpointing and not settings.freeze_lm else lm.layers
        coming = (settings.processes_per_batch - 1) * lm_tokens
        found["keys, values"] = coming * layers * BYTES[settings.precision] * 2 * lm.kv_heads * lm.head_dim
    found["activations"] = waste * (found["activations"] + widest)
    if len(shapes) == 2:
        # On a GPU libraries have use for what a small batch leaves of it.
        logits = LOGITS if gpu else min(LOGITS, 4 * lm_tokens * shapes[1].vocabulary)
        found["at work"] = max(found["at work"], logits * (2 if settings.lora or settings.freeze_lm else 3))
    return found


def activations(settings: Training, shape: Shape, *, frozen: bool = False) -> float:
    """Bytes that a token leaves in a layer of a language model's for the backward pass, where it sees one other document."""
    return sum(retained(settings, shape, frozen=frozen, cross=Cross("pairs", 1, 0), gpu=True).values())


def cross_attention(settings: Training, batch_size: int, tokens: float, *, frozen: bool = False, gpu: bool) -> Cross:
    """How a document attends to others: to one at a temperature near 0, to all where the weights are alike.

    tokens: of the texts of this process, in one stream of the language model.
    """
    keys, documents = tokens * settings.processes_per_batch, batch_size - 1.0
    if settings.attention == "dense":
        return Cross("grid", documents, keys)
    if settings.similarity != "uniform":
        documents = 1 + (batch_size - 2) * min(1.0, ALIKE * settings.temperature / SPREAD)
    if not gpu and _stream(settings, frozen=frozen) == 2 and 8 * documents > batch_size:
        return Cross("grid", documents, keys)
    summed = not gpu and settings.precision == "fp32" and not settings.value_norm
    return Cross("sum" if summed and 2 * documents > batch_size else "pairs", documents, keys)


def _of_pairs(cross: Cross | None, shape: Shape) -> float:
    """Numbers that a token has at work in cross attention."""
    if cross is None:
        return 0.0
    width = shape.heads * shape.head_dim
    return {"grid": 3 * shape.heads * cross.keys, "sum": 4 * width, "pairs": 4 * cross.documents * width}[cross.way]


def _stream(settings: Training, *, frozen: bool = False) -> int:
    """Bytes of a number of what goes from layer to layer: float32 where all weights are trained."""
    return BYTES[settings.precision] if settings.lora or frozen else 4


def retained(
    settings: Training, shape: Shape, *, frozen: bool, cross: Cross | None = None, gpu: bool
) -> dict[str, float]:
    """Bytes that a token of a stream leaves in a layer for the backward pass, by the tensors.

    cross: None for a retriever. Of a language model that is trained, half of the tokens are those of the h-stream, which
    alone attends to other documents.
    """
    width, hidden, between = BYTES[settings.precision], shape.hidden, shape.intermediate
    queries, of_keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    adapted, stream = bool(settings.lora) and not frozen, _stream(settings, frozen=frozen)
    slim = (adapted or frozen) and settings.zero_stage < 3 and not settings.compile  # revela.training.engine
    again = not gpu and stream == 2  # attention's output is made again: revela.method.short
    found = {
        # As they came (revela.method.adapters), or in float32.
        "inputs of the norms": 2 * (width if slim else 4) * hidden,
        # Of the product that a gated MLP is, both factors, and the activation unless that is made again.
        "gate, up, and the activation": width * (2 if slim else 3) * between,
        # In a grid (revela.method.packing).
        "query, key, value and output": width * ((1 if again else 2) * queries + 2 * of_keys),
    }
    share = 1 if frozen else 0.5
    if cross and cross.way == "grid":  # and query, and keys and values of the grid, once for each head
        found["probabilities of cross attention"] = share * width * shape.heads * cross.keys
        found["the same of cross attention"] = width * (share * 2 * queries + (0 if frozen else queries))
    elif cross:  # the query, or query and output for each pair; the row's keys and values, or a copy with their norms
        of_row = 0 if frozen and not settings.value_norm else 2 * of_keys
        of_query = 1 if cross.way == "sum" else 2 * cross.documents
        found["the same of cross attention"] = width * (share * of_query * queries + of_row)
    matrices = {name: rows for name, (rows, _) in shape.matrices.items()}
    if adapted:
        targets = [name for name in settings.lora.targets if name in matrices]
        numbers = sum(matrices[name] for name in targets)
        if slim:  # others are made again from what norms and MLP keep
            found["inputs of A"] = width * sum(matrices[name] for name in targets if name == "o_proj")
        elif settings.lora.dropout:
            found["inputs of A"] = width * numbers
        else:  # which query, key and value share, as gate and up do
            shared = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "mlp", "up_proj": "mlp"}
            found["inputs of A"] = width * sum({shared.get(name, name): matrices[name] for name in targets}.values())
        if settings.lora.dropout:  # slim, in bits
            found["masks of dropout"] = numbers * (1 / 8 if slim else 1 if gpu else width)
        found["inputs of B"] = width * settings.lora.rank * len(targets)
    elif not frozen:
        copies = 2 if width == stream else 5  # a type of its own is made for each matrix
        found["inputs of the matrices"] = width * (copies * hidden + queries + between)
        found["inputs of the norms' weights"] = 4 * 2 * hidden
    return found


def _weights(settings: Training, shape: Shape, processes: int, *, frozen: bool) -> dict[str, float]:
    """Bytes of weights, their gradients and the optimizer's state."""
    base = shape.weights + shape.hidden * shape.vocabulary
    if frozen:
        kept, trained = base, 0
    elif settings.lora:
        kept, trained = base, shape.adapter_weights(settings.lora)
    else:  # autocast makes copies of the matrices
        kept, trained = shape.weights if settings.precision == "bf16" else 0, base
    stage, share = settings.zero_stage, 1 / processes
    return {
        "weights": (BYTES[settings.precision] * kept + 4 * trained) * (share if stage == 3 else 1),
        "gradients": 4 * trained * (share if stage >= 2 else 1),
        "optimizer": (8 if stage == 0 else 12) * trained * (share if stage >= 1 else 1),
    }
