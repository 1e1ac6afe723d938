"""Corpus preparation in words a second, against a plain loop over NLTK's sentences in one process.

    python benchmarks/corpus.py [--quick] [--articles FOLDER]

Text: the articles of a folder of parquet files (columns text, title; `data/wikitext` of the shared folder by default),
Python's own documentation as `pydoc` brings it, and the docstrings of tiny's packages, a document for each module.
Both ways read documents and write chunks of 120 words; the plain loop writes them as JSON lines. An eighth, a quarter,
a half and all of the documents show whether time grows in proportion to the text. Every measurement begins with cold
caches, and the best of a few repetitions counts. CPU seconds are summed over all processes.

Limits, on all of the text: two workers process at least 1.6 times as many words a second as the plain loop, and one
worker spends at most 1.25 times as many CPU seconds on a word as it does with an eighth of the text.
"""

import argparse
import json
import os
import pydoc_data.topics
import random
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from nltk.tokenize.punkt import PunktSentenceTokenizer
from record import save, show

from revela.study.corpora import TextSource
from revela.study.specification import ChunkSpec
from revela.study.study import load
from revela.text.chunking import read_parameters
from revela.text.chunks import write_chunks
from revela.text.documents import texts
from revela.text.embedded import write_dataset
from revela.text.resources import build_punkt

ROOT = Path(__file__).parents[1]
ARTICLES = Path(os.environ.get("REVELA_SHARED", ROOT.parent / "shared")) / "data/wikitext"
MAX_WORDS = 120
GAIN, GROWTH = 1.6, 1.25


def plain(documents: Path, punkt: Path, output: Path) -> None:
    """The loop that one would write first."""
    tokenizer = PunktSentenceTokenizer(read_parameters(punkt))
    with open(output, "w") as file:
        for row in pq.read_table(documents).to_pylist():
            chunks, current = [], []
            for sentence in tokenizer.tokenize(row["text"]):
                words = sentence.split()
                if current and len(current) + len(words) > MAX_WORDS:
                    chunks.append(" ".join(current))
                    current = []
                current += words
                while len(current) > MAX_WORDS:
                    chunks.append(" ".join(current[:MAX_WORDS]))
                    current = current[MAX_WORDS:]
            if current:
                chunks.append(" ".join(current))
            file.write(json.dumps(chunks) + "\n")


def ours(workers: int):
    def prepare(documents: Path, punkt: Path, output: Path) -> None:
        spec = ChunkSpec(sources=[TextSource(dataset="text")], max_words=MAX_WORDS)
        write_chunks(spec, {"text": documents.parent}, punkt, output, workers=workers)

    return prepare


def measure(way, documents: Path, punkt: Path, folder: Path, repetitions: int) -> tuple[float, float]:
    """(seconds, CPU seconds): the least of some repetitions."""
    found = []
    for repetition in range(repetitions):
        begin, cpu = time.perf_counter(), sum(os.times()[:4])
        way(documents, punkt, folder / f"{repetition}.parquet")
        found.append((time.perf_counter() - begin, sum(os.times()[:4]) - cpu))
    return min(seconds for seconds, _ in found), min(cpu for _, cpu in found)


def read_texts(articles: Path, docstrings: Path) -> list[str]:
    """All documents, shuffled, so that a part of them resembles the whole."""
    docstrings.mkdir()
    write_dataset(load(ROOT / "config/tiny.yaml").config.datasets["packages"].installed, "docstrings", docstrings)
    found = [*texts(articles), *pydoc_data.topics.topics.values(), *texts(docstrings)]
    random.Random(0).shuffle(found)
    return found


def measure_all(articles: Path, shares: tuple[int, ...], repetitions: int) -> list[dict]:
    """A row for each part of the text and each way."""
    rows = []
    ways = {0: plain} | {number: ours(number) for number in (1, 2)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found = read_texts(articles, folder / "docstrings")
        build_punkt(folder / "punkt", found[:80])
        for share in shares:
            some = found[: len(found) // share]
            words = sum(len(text.split()) for text in some)
            documents = folder / f"share{share}" / "documents.parquet"
            documents.parent.mkdir()
            pq.write_table(pa.table({"text": some}), documents)
            taken = {n: measure(way, documents, folder / "punkt", folder, repetitions) for n, way in ways.items()}
            for number, (seconds, cpu) in taken.items():
                row = {"documents": len(some), "words": words, "workers": number or "plain loop"}
                row |= {"seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3)}
                row |= {"words_per_second": round(words / seconds), "words_per_cpu_second": round(words / cpu)}
                rows.append(row | {"gain": round(taken[0][0] / seconds, 2)})
    return rows


def check(rows: list[dict]) -> bool:
    """Whether the limits are kept. Prints by how much."""
    gain = next(row["gain"] for row in reversed(rows) if row["workers"] == 2)
    of_one = [row["words_per_cpu_second"] for row in rows if row["workers"] == 1]
    growth = of_one[0] / of_one[-1]
    kept = gain >= GAIN and growth <= GROWTH
    print(f"two workers: {gain:.2f} times the plain loop (limit {GAIN}); CPU seconds a word: {growth:.2f} times those")
    print(f"of the smallest part (limit {GROWTH}): {'kept' if kept else 'exceeded'}")
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a sixteenth and an eighth of the text, once")
    parser.add_argument("--articles", type=Path, default=ARTICLES)
    options = parser.parse_args()
    shares, repetitions = ((16, 8), 1) if options.quick else ((8, 4, 2, 1), 3)
    rows = measure_all(options.articles, shares, repetitions)
    show(rows)
    save("corpus", {"articles": options.articles.name, "max_words": MAX_WORDS, "quick": options.quick}, rows)
    return int(not check(rows))


if __name__ == "__main__":
    sys.exit(main())
