"""Encoding in documents a second, against sentence-transformers, coir-eval's example loop and beir's search.

    python benchmarks/encoding.py [--quick] [--model FOLDER] [--device cuda]

The same weights, mean pooling, texts and greatest length for all; the embeddings are compared. Texts are cut from
Python's documentation: "mixed" between 3 and 300 words, most of them short, as in a corpus; "even" 100 words each.
Ratios are of CPU seconds on a CPU, where other work may slow the clock, and of the clock on a GPU.
"""

import argparse
import logging
import os
import pydoc_data.topics
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


def example_loop(retriever: Retriever, batch: list[str], size: int = 128) -> np.ndarray:
    """coir-eval's example: batches in the order of the texts, each padded to its longest."""
    tokenizer, model, found = retriever.tokenizer, retriever.backbone, []
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    options = {"max_length": MAX_LENGTH, "padding": True, "truncation": True, "return_tensors": "pt"}
    with torch.no_grad():
        for first in range(0, len(batch), size):
            tokens = tokenizer(batch[first : first + size], **options).to(model.device)
            hidden = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1)
            found.append(((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy())
    return np.concatenate(found)


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
    count, repeats = (300, 1) if options.quick else (4000, 5)
    retriever = Retriever.from_backbone(options.model, max_length=MAX_LENGTH, pooling="mean", normalize=False)
    retriever = retriever.to(options.device).eval()
    other = sentence_transformer(options.model, options.device)
    rows = []
    for kind in ("mixed", "even"):
        batch = texts(kind, count)
        ways = {
            "revela": lambda batch=batch: retriever.encode(batch, batch_tokens=options.batch_tokens),
            "sentence-transformers": lambda batch=batch: other.encode(batch, show_progress_bar=False),
            "coir-eval's loop": lambda batch=batch: example_loop(retriever, batch),
            "beir's DRES": lambda batch=batch: through_beir(other, batch),
        }
        ours = ways["revela"]()
        for name in ("sentence-transformers", "coir-eval's loop"):
            np.testing.assert_allclose(ways[name](), ours, atol=1e-3)
        measured = {name: timed(way, repeats) for name, way in ways.items()}
        unit = "seconds" if options.device.startswith("cuda") else "cpu_seconds"
        for name, times in measured.items():
            row = {"texts": kind, "way": name, **times, "documents/s": round(count / times["seconds"], 1)}
            rows.append(row | {"ratio": round(times[unit] / measured["revela"][unit], 2)})
    show(rows)
    settings = {"documents": count, "repeats": repeats, "model": options.model.name, "max_length": MAX_LENGTH}
    save("encoding", settings | {"batch_tokens": options.batch_tokens, "device": options.device}, rows)


if __name__ == "__main__":
    main()
