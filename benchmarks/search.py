"""Exact search over random embeddings: seconds and peak memory, against beir's DRES and faiss' IndexFlatIP.

    python benchmarks/search.py [--quick] [--device cuda]

1,000 queries, the 1,000 best of 100,000 and of 1,000,000 documents x 768. Documents are drawn in blocks when they are
asked for, as an encoder would make them; the time of drawing is taken out, and so are imports, the corpus in the form
that each way asks for (ids and an index of texts; beir's dict of dicts), and reading its answer. Each way runs in a
process of its own. Peak memory is what it had above a process that has only imported it: corpus, embeddings, answer.
All ways must find the same. The seconds of search are on the clock and of all threads' CPU: where the machine has other
work, the latter say more.
"""

import argparse
import importlib
import json
import resource
import subprocess
import sys
import time
from functools import cached_property

import numpy as np

WIDTH, QUERIES, TOP_K, BLOCK = 768, 1000, 1000, 50_000


class Drawn:
    """Random embeddings of documents, block by block, and the time that drawing took."""

    def __init__(self):
        self.seconds = self.cpu = 0.0

    def __call__(self, first: int, count: int) -> np.ndarray:
        assert first % BLOCK == 0
        assert count <= BLOCK
        wall, cpu = time.perf_counter(), time.process_time()
        vectors = np.random.default_rng(first).standard_normal((count, WIDTH), np.float32)
        self.seconds += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        return vectors


class Numbers:
    """A corpus whose texts are numbers."""

    def __init__(self, size: int):
        self.size = size

    @cached_property
    def index(self):
        from revela.evaluation.tasks import Index

        ids = np.array([f"{number:08}" for number in range(self.size)], np.dtypes.StringDType())
        return Index(ids, np.arange(self.size), np.arange(self.size), "")

    def unique_texts(self):
        return map(str, range(self.size))


# --- the ways: each makes its corpus, and returns the search to be timed and a reader of what it finds


def revela(queries, size, drawn, device):
    from revela.evaluation.search import search

    class Encoder:
        def prepare(self, texts, kind):
            return int(texts[0]), len(texts)

        def embed(self, prepared):
            return drawn(*prepared)

    corpus = Numbers(size)
    assert len(corpus.index.ids) == size
    options = {"top_k": TOP_K, "shard_documents": BLOCK, "device": device}
    return (
        lambda: list(search(queries, corpus, Encoder(), **options)),
        lambda found: [[int(id) for id, _ in ranking] for ranking in found],
    )


def beir(queries, size, drawn, device):
    import torch
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    class Model:
        def encode_queries(self, texts, **_):
            return torch.from_numpy(queries).to(device)

        def encode_corpus(self, corpus, **_):
            return torch.from_numpy(drawn(int(corpus[0]["text"]), len(corpus))).to(device)

    corpus = {f"{number:08}": {"title": "", "text": f"{number:08}"} for number in range(size)}
    texts = {f"q{number}": "" for number in range(len(queries))}
    way = DenseRetrievalExactSearch(Model(), corpus_chunk_size=BLOCK)  # its default
    return (
        lambda: way.search(corpus, texts, TOP_K, "dot"),
        lambda found: [[int(id) for id in sorted(scores, key=lambda id: -scores[id])] for scores in found.values()],
    )


def faiss(queries, size, drawn, device):
    import faiss

    index = faiss.IndexFlatIP(WIDTH)

    def search():
        for first in range(0, size, BLOCK):
            index.add(drawn(first, min(BLOCK, size - first)))
        return index.search(queries, TOP_K)[1]

    return search, lambda found: found.tolist()


WAYS = {"revela": revela, "beir": beir, "faiss": faiss}
MODULES = {"revela": "revela.evaluation.search", "beir": "beir.retrieval.search.dense", "faiss": "faiss"}


def peak() -> int:
    """Of this process, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(way: str, size: int, queries: int, device: str) -> dict:
    """One way, in this process."""
    import torch

    importlib.import_module(MODULES[way])
    torch.mm(torch.ones(64, 64, device=device), torch.ones(64, 64, device=device))  # threads and kernels are there
    vectors = np.random.default_rng(1).standard_normal((queries, WIDTH), np.float32)
    drawn = Drawn()
    before = peak()
    search, ids = WAYS[way](vectors, size, drawn, device)
    wall, cpu = time.perf_counter(), time.process_time()
    found = search()
    wall, cpu = time.perf_counter() - wall - drawn.seconds, time.process_time() - cpu - drawn.cpu
    result = {"documents": size, "way": way, "seconds": round(wall, 2), "cpu_seconds": round(cpu, 2)}
    result |= {"peak_mb": round((peak() - before) / 1024)}
    return result | {"found": [ranking[:10] for ranking in ids(found)[:50]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 queries on 50,000 and 100,000 documents")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # way, documents, queries
    options = parser.parse_args()
    if options.one:
        way, size, queries = options.one
        print(json.dumps(measure(way, int(size), int(queries), options.device)))
        return
    from record import save, show

    sizes, queries = ((50_000, 100_000), 100) if options.quick else ((100_000, 1_000_000), QUERIES)
    rows = []
    for size in sizes:
        found = {}
        for way in WAYS:
            command = [sys.executable, __file__, "--device", options.device, "--one", way, str(size), str(queries)]
            printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            row = json.loads(printed.splitlines()[-1])
            found[way] = row.pop("found")
            rows.append(row)
            assert found[way] == found["revela"], f"{way} found other documents"
        for row in rows[-len(WAYS) :]:
            row["ratio"] = round(row["cpu_seconds"] / rows[-len(WAYS)]["cpu_seconds"], 2)
    show(rows)
    save("search", {"queries": queries, "width": WIDTH, "top_k": TOP_K, "device": options.device}, rows)


if __name__ == "__main__":
    main()
