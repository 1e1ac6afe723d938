"""Encoding in documents a second, against sentence-transformers, coir-eval's example loop and beir's search.

    python benchmarks/encoding.py [--quick] [--model FOLDER] [--device cuda]

The same weights in float32, mean pooling, texts and greatest length for all; the embeddings are compared. Texts are cut
from Python's documentation: "mixed" between 3 and 300 words, most of them short, as in a corpus; "even" 100 words each.
sentence-transformers, on torch, has the batches of its default, and smaller and larger ones; the others have the 128 of
coir-eval's and beir's examples. Ways take turns, so that all meet the same machine. Ratios are of CPU seconds on a CPU,
where other work may slow the clock, and of the clock on a GPU.
"""

import argparse
import logging
import os
import pydoc_data.topics
import statistics
from pathlib import Path

import numpy as np
import torch
from record import save, show, timed

from revela.retriever import Retriever

ROOT = Path(__file__).parents[1]
MAX_LENGTH = 256


def texts(kind: str, count: int) -> list[str]:
    """Pieces of Python's documentation."""
    rng = np.random.default_rng(0)
    words = " ".join(pydoc_data.topics.topics.values()).split()
    sizes = np.clip(rng.lognormal(3.5, 1.0, count), 3, 300).astype(int) if kind == "mixed" else np.full(count, 100)
    starts = rng.integers(0, len(words) - 300, count)
    return [" ".join(words[start : start + size]) for start, size in zip(starts, sizes, strict=True)]


def sentence_transformer(folder: Path, device: str):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(str(folder), max_seq_length=MAX_LENGTH)
    transformer.tokenizer.pad_token = transformer.tokenizer.pad_token or transformer.tokenizer.eos_token
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling], device=device).float()


def example_model(folder: Path, device: str):
    """coir-eval's example, which pads batches in the order of the texts."""
    from coir import models
    from transformers import AutoTokenizer

    models.device, models.tqdm = torch.device(device), lambda steps, **_: steps
    model = models.YourCustomDEModel(str(folder))
    model.model.float()
    model.tokenizer = AutoTokenizer.from_pretrained(folder)  # it takes away special tokens from its own
    model.tokenizer.pad_token = model.tokenizer.pad_token or model.tokenizer.eos_token
    model.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return model


def through_beir(model, batch: list[str]) -> None:
    """beir's DenseRetrievalExactSearch on the model of sentence-transformers, which encodes 128 at a time."""
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    class Both:
        def encode_queries(self, queries, **options):
            return model.encode(queries, **options)

        def encode_corpus(self, corpus, **options):
            return model.encode([row["text"] for row in corpus], **options)

    search = DenseRetrievalExactSearch(Both(), batch_size=128, show_progress_bar=False)
    corpus = {str(number): {"title": "", "text": text} for number, text in enumerate(batch)}
    search.search(corpus, {"q": batch[0], "r": batch[1]}, 10, "dot")  # it cannot answer a single query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few texts, once")
    parser.add_argument("--model", type=Path, default=ROOT / "resources/backbones/tiny-4m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    count, repeats = (100, 1) if options.quick else (200, 2)
    retriever = Retriever.from_backbone(options.model, max_length=MAX_LENGTH, pooling="mean", normalize=False)
    retriever = retriever.to(options.device).eval()
    other = sentence_transformer(options.model, options.device)
    example = example_model(options.model, options.device)
    rows = []
    for kind in ("mixed", "even"):
        batch = texts(kind, count)
        ways = {"revela": lambda batch=batch: retriever.encode(batch, batch_tokens=options.batch_tokens)}
        for size in (32, 8, 128):
            ways[f"sentence-transformers, {size}"] = lambda batch=batch, size=size: other.encode(
                batch, batch_size=size, show_progress_bar=False
            )
        ways["coir-eval's example"] = lambda batch=batch: example.encode_text(batch, 128, MAX_LENGTH)
        expected = ways["revela"]()
        for way in list(ways.values())[1:]:
            np.testing.assert_allclose(way(), expected, atol=1e-3)
        ways["beir's DRES"] = lambda batch=batch: through_beir(other, batch)
        rounds = [{name: timed(way, 1) for name, way in ways.items()} for _ in range(repeats)]
        unit = "seconds" if options.device.startswith("cuda") else "cpu_seconds"
        for name in ways:
            times = {
                u: round(statistics.median(turn[name][u] for turn in rounds), 3) for u in ("seconds", "cpu_seconds")
            }
            ratio = statistics.median(turn[name][unit] / turn["revela"][unit] for turn in rounds)
            row = {"texts": kind, "way": name, **times, "documents/s": round(count / times["seconds"], 1)}
            rows.append(row | {"ratio": round(ratio, 2)})
    show(rows)
    settings = {"documents": count, "repeats": repeats, "model": options.model.name, "max_length": MAX_LENGTH}
    save("encoding", settings | {"batch_tokens": options.batch_tokens, "device": options.device}, rows)


if __name__ == "__main__":
    main()
