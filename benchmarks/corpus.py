"""Corpus preparation in words a second, against a plain loop over NLTK's sentences in one process.

    python benchmarks/corpus.py [--quick] [--articles FOLDER] [--workers 1 2]

Text: the articles of a folder of parquet files (columns text, title; `data/wikitext` of the shared folder by default)
and Python's own documentation, as `pydoc` brings it. Both ways read documents and write chunks of 120 words; the plain
loop writes them as JSON lines. Whole, a half and a quarter of the documents show whether time grows with the text alone.
Every measurement begins with cold caches; the best of a few repetitions counts. CPU seconds are of all processes: on a
machine with other work they say more than the seconds on the clock.
"""

import argparse
import json
import os
import pydoc_data.topics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from nltk.tokenize.punkt import PunktSentenceTokenizer

from revela.chunking import read_parameters
from revela.config import Corpus
from revela.corpora import read_table, write_chunks
from revela.resources import build_punkt

ARTICLES = Path(os.environ.get("REVELA_SHARED", Path(__file__).parents[2] / "shared")) / "data/wikitext"
MAX_WORDS = 120


def plain(documents: Path, punkt: Path, output: Path) -> None:
    """What one would write down first."""
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
        corpus = Corpus(sources=[{"dataset": "text"}])
        write_chunks(corpus, {"text": documents.parent}, punkt, output, max_words=MAX_WORDS, workers=workers)

    return prepare


def measure(way, documents: Path, punkt: Path, folder: Path, repetitions: int) -> tuple[float, float]:
    """(seconds, CPU seconds), the least of some repetitions."""
    found = []
    for repetition in range(repetitions):
        begin, cpu = time.perf_counter(), sum(os.times()[:4])
        way(documents, punkt, folder / f"{repetition}.parquet")
        found.append((time.perf_counter() - begin, sum(os.times()[:4]) - cpu))
    return min(seconds for seconds, _ in found), min(cpu for _, cpu in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the text, once")
    parser.add_argument("--articles", type=Path, default=ARTICLES)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    texts = [row["text"] for path in sorted(arguments.articles.rglob("*.parquet")) for row in read_table(path)]
    texts += list(pydoc_data.topics.topics.values())
    texts = texts[:: 4 if arguments.quick else 1]
    repetitions = 1 if arguments.quick else 3
    ways = {"plain NLTK loop": plain} | {f"{n} worker{'s' * (n > 1)}": ours(n) for n in arguments.workers}
    print(
        f"{'way':<18}{'documents':>10}{'words':>10}{'seconds':>9}{'CPU s':>8}{'words/s':>10}{'per CPU s':>11}{'gain':>7}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        build_punkt(folder / "punkt", texts[:40])
        for share in (4, 2, 1):
            some = texts[::share]
            words = sum(len(text.split()) for text in some)
            documents = folder / f"text{share}" / "documents.parquet"
            documents.parent.mkdir()
            pq.write_table(pa.table({"text": some}), documents)
            seconds = {}
            for name, way in ways.items():
                seconds[name], cpu = measure(way, documents, folder / "punkt", folder, repetitions)
                gain = seconds["plain NLTK loop"] / seconds[name]
                print(
                    f"{name:<18}{len(some):>10,}{words:>10,}{seconds[name]:>9.2f}{cpu:>8.2f}"
                    f"{words / seconds[name]:>10,.0f}{words / cpu:>11,.0f}{gain:>7.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
