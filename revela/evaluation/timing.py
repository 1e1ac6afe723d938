"""The time that a language model takes to relate the documents of a batch to each other, measured (App. C.7).

REPLUG has the language model explain each document by each other one: B^2 pairs. Revela sends two streams through it
once: 2B documents. Both run as they do in training, forward only, on the same texts. Tokens and Sim are made beforehand,
so the retriever's time counts for neither.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from revela.evaluation import EvaluationError
from revela.files import write_json
from revela.objectives.replug_scores import score_batch
from revela.objectives.revela import Revela
from revela.objectives.tokens import Tokens
from revela.pretrained import load_model, load_tokenizer
from revela.retriever import Retriever

if TYPE_CHECKING:
    from revela.study.settings import Training

SIZES = (2, 4, 8, 16, 32)
REPEATS = 3


class _GivenSim(Revela):
    """Revela, with the Sim that a batch brings along, if it does."""

    def similarity(self, batch: Tokens) -> Tensor:
        return batch["sim"] if "sim" in batch else super().similarity(batch)


class _Read:
    """A tokenizer that has read its texts beforehand."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int):
        self.bos_token_id, self.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.read = tokenizer(texts, truncation=True, max_length=max_length)

    def __call__(self, texts: list[str], **_: object) -> Mapping:
        return self.read


@torch.no_grad()
def measure(
    retriever: str | Path, lm: str | Path, batches: str | Path, settings: Training, sizes: Sequence[int] = SIZES
) -> dict:
    """Seconds that each method takes for a batch of each size: the median of three runs after one to warm up.

    Args:
        retriever, lm: Folders of backbones.
        batches: A batches.parquet; its chunks, in their order, are the documents.

    Returns:
        ``device`` and ``points``: method, batch_size, seconds.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if settings.precision == "bf16" and device == "cuda" else torch.float32
    model, tokenizer = load_model(AutoModelForCausalLM, lm, dtype).to(device).eval(), load_tokenizer(lm)
    embedder = Retriever.from_backbone(
        retriever,
        query_prefix=settings.query_prefix,
        passage_prefix=settings.passage_prefix,
        max_length=settings.retriever_max_length,
        dtype=dtype,
    ).to(device)
    objective = _GivenSim(settings, embedder, model, tokenizer).eval()
    texts = read_texts(batches, max(sizes))
    points = []
    for size in sizes:
        chunks = texts[:size]
        batch = {name: x.to(device) for name, x in objective.collate({"text": chunks}).items()}
        batch["sim"] = objective.similarity(batch)
        read = _Read(tokenizer, chunks, settings.lm_max_length)
        runs = {
            "REPLUG": partial(score_batch, model, read, chunks, settings),
            "Revela": partial(objective, batch),
        }
        points += [{"method": name, "batch_size": size, "seconds": median_seconds(run)} for name, run in runs.items()]
    return {"device": torch.cuda.get_device_name() if device == "cuda" else "CPU", "points": points}


def read_texts(batches: str | Path, number: int) -> list[str]:
    """The first chunks of a batches.parquet; EvaluationError if there are fewer."""
    texts: list[str] = []
    with pq.ParquetFile(batches) as file:
        for group in file.iter_batches(batch_size=8, columns=["text"]):
            texts += [text for row in group["text"].to_pylist() for text in row]
            if len(texts) >= number:
                return texts[:number]
    raise EvaluationError(f"{batches}: {len(texts)} chunks; {number} are needed to time a batch")


def median_seconds(run: Callable[[], object]) -> float:
    """The median time of a call, after one that is not counted."""
    times = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def write_timing(
    retriever: str | Path, lm: str | Path, batches: str | Path, settings: Training, output: str | Path
) -> None:
    """Measures, and writes the result of `measure` as JSON."""
    write_json(output, measure(retriever, lm, batches, settings))
