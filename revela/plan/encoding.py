"""How long a forward pass takes, and how many GPUs an evaluation asks for.

seconds = operations / (peak in the precision * MFU) + numbers moved between the products * bytes / bandwidth
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from revela.plan import flops
from revela.study.base import ConfigError

if TYPE_CHECKING:
    from revela.study.settings import Compute
    from revela.study.sizes import TaskSize
    from revela.study.system import Encoder, Trained, Untrained

# The chips of flops.PEAK: float32 operations a second without TensorFloat-32, which torch does not use by default, and
# bytes a second of their memory; NVIDIA's data sheets.
PEAK_FP32 = {
    "A100": 19.5e12,
    "H100 PCIe": 51e12,
    "H100 NVL": 60e12,
    "H100": 67e12,
    "H200": 67e12,
    "GH200": 67e12,
    "B200": 75e12,
    "L40S": 91.6e12,
    "A40": 37.4e12,
}
BANDWIDTH = {
    "A100": 2.04e12,
    "H100 PCIe": 2.0e12,
    "H100 NVL": 3.9e12,
    "H100": 3.35e12,
    "H200": 4.8e12,
    "GH200": 4.0e12,
    "B200": 8.0e12,
    "L40S": 0.864e12,
    "A40": 0.696e12,
}
CHARS_PER_TOKEN = {"text": 4.4, "code": 3.5}  # of SmolLM2's tokenizer: 4.5 on English Wikipedia, 3.5 on Python
# Numbers that norms, activations, residuals and attention read or write between the matrix products, for each token,
# layer and hidden unit. Of a measurement on an H100, see docs/performance.md.
MOVED = 120
WIDTH = (0.1e9, 12 * 768)  # parameters of an encoder whose shape is not known, and layers x hidden units of such a one
EACH_GPU = 3600.0  # seconds of encoding for each of which an evaluation asks for another GPU


def device(compute: Compute) -> str:
    """The name of the GPU in the tables; ConfigError for a device of which no peak is known."""
    name = flops.known(compute.device)
    if name is None:
        raise ConfigError(f"compute.device: unknown {compute.device!r}; valid: {', '.join(flops.PEAK)}")
    return name


def seconds(compute: Compute, gpus: int, operations: float, width: float, precision: str = "bf16") -> float:
    """Of a forward pass shared by so many GPUs, or on the CPU. width: layers x hidden units x tokens."""
    if not gpus:
        return operations / (compute.core_flops * compute.evaluation_threads)
    name = device(compute)
    peak = {"bf16": flops.PEAK, "fp32": PEAK_FP32}[precision][name]
    moved = MOVED * flops.BYTES[precision] * width / BANDWIDTH[name]
    return (operations / (peak * compute.encoding_mfu) + moved) / gpus


def encoder_width(parameters: float) -> float:
    """Layers x hidden units of an encoder, by its parameters."""
    known, width = WIDTH
    return width * (parameters / known) ** 0.6


def precision_of(system: Trained | Untrained | Encoder, kind: str, parameters: float, folder: Path) -> str:
    """bf16 or fp32. Of weights as stored: what config.json says, or what most models of their kind and size are."""
    if system.precision != "stored":
        return system.precision
    path = folder / "config.json"
    if not path.is_file():
        return "fp32" if kind == "encoder" and parameters < 1e9 else "bf16"
    config = json.loads(path.read_text(encoding="utf-8"))
    stored = config.get("dtype") or config.get("torch_dtype") or "float32"
    return "fp32" if stored == "float32" else "bf16"


def lengths(size: TaskSize, layout: str, longest: int) -> list[tuple[int, float]]:
    """(number, tokens of each) of a task's documents and queries."""
    rate = CHARS_PER_TOKEN["code" if layout == "coir" else "text"]
    texts = [(size.documents, size.document_chars), (size.queries, size.query_chars)]
    return [(number, min(longest, chars / rate + 3)) for number, chars in texts]


def process_memory(compute: Compute, size: TaskSize, weights: float, hidden: int) -> float:
    """Bytes of each of several processes: torch, the model as it is loaded, and two shards of texts and embeddings."""
    shard = min(compute.shard_documents, size.documents) * (2 * size.document_chars + 8 * hidden)
    return 3e9 + weights + 2 * shard


def gpus_and_share(compute: Compute, documents: int, alone: float) -> tuple[int, float]:
    """GPUs that an evaluation asks for, and the share of the work of the one that has most, in whole shards.

    alone: seconds that one GPU would take.
    """
    shards = math.ceil(documents / compute.shard_documents)
    gpus = min(compute.evaluation_gpus, shards, 1 + int(alone / EACH_GPU))
    return gpus, math.ceil(shards / gpus) / shards if gpus else 1.0
