"""A corpus of a million documents from its files through a search: seconds and peak memory, against beir's loader.

    python benchmarks/loading.py [--quick]

Documents of 60 words in BEIR's layout, as JSON lines and as the hub's parquet files, 100,000 and 1,000,000 of them. Each
way runs in a process of its own, whose peak memory is reported above what it had once its modules were imported. Here a
task is loaded, checked, and searched with an encoder that makes a vector of 32 numbers out of a text's length, so that
files and index are what takes memory; beir's GenericDataLoader only loads.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from revela.study.sheets import Task

SHARD, QUERIES, ROWS_IN_A_GROUP = 20_000, 20, 1000
WORDS = __doc__.split()


def documents(size: int):
    """Rows of a corpus; every tenth has the text of the one before."""
    texts = [" ".join(np.random.default_rng(seed).choice(WORDS, 58)) for seed in range(1000)]
    for number in range(size):
        first = number - (number % 10 == 9)
        yield {"_id": f"document-{number:08}", "title": f"number {first}", "text": texts[first % 1000]}


def write(folder: Path, size: int) -> None:
    """The same task in folder/jsonl and folder/parquet."""
    queries = [{"_id": f"q{number}", "text": WORDS[number % len(WORDS)]} for number in range(QUERIES)]
    for layout in ("jsonl", "parquet"):
        (folder / layout / "qrels").mkdir(parents=True)
        judged = "".join(f"q{number}\tdocument-{number:08}\t1\n" for number in range(QUERIES))
        (folder / layout / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
        (folder / layout / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "parquet" / "corpus").mkdir()
    schema = pa.schema([("_id", pa.string()), ("title", pa.string()), ("text", pa.string())])
    parquet = folder / "parquet" / "corpus" / "corpus-00000-of-00001.parquet"
    with open(folder / "jsonl" / "corpus.jsonl", "w") as lines, pq.ParquetWriter(parquet, schema) as table:
        rows = []
        for row in documents(size):
            lines.write(json.dumps(row) + "\n")
            rows.append(row)
            if len(rows) == ROWS_IN_A_GROUP:
                table.write_table(pa.Table.from_pylist(rows, schema))
                rows.clear()
        if rows:
            table.write_table(pa.Table.from_pylist(rows, schema))


class Lengths:
    """An encoder that looks at nothing but the length of a text."""

    def prepare(self, texts, kind):
        return np.array([len(text) for text in texts])

    def embed(self, prepared):
        return np.sin(prepared[:, None] * np.arange(1, 33)).astype(np.float32)


def revela(folder: Path) -> int:
    from revela.evaluation.search import search
    from revela.evaluation.tasks import load_task

    task = Task(scale="b", benchmark="b", task="t", label="t", layout="beir", dataset="t")
    [part] = load_task(task, folder)
    encoder = Lengths()
    queries = encoder.embed(encoder.prepare(list(part.queries.values()), "query"))
    assert len(list(search(queries, part.corpus, encoder, top_k=1000, shard_documents=SHARD))) == QUERIES
    return len(part.corpus)


def beir(folder: Path) -> int:
    from beir.datasets.data_loader import GenericDataLoader

    return len(GenericDataLoader(str(folder)).load("test")[0])


WAYS = {
    "revela, jsonl": (revela, "jsonl", ["torch", "revela.evaluation.search", "revela.evaluation.tasks"]),
    "revela, parquet": (revela, "parquet", ["torch", "revela.evaluation.search", "revela.evaluation.tasks"]),
    "beir's loader, jsonl": (beir, "jsonl", ["beir.datasets.data_loader"]),
}


def peak_kb() -> int:
    """The most memory that this process had, in KiB; of itself, unlike ru_maxrss, which a child has from its parent."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def measure(way: str, folder: Path) -> dict:
    """One way, in this process."""
    run, layout, modules = WAYS[way]
    for module in modules:
        __import__(module)
    before = peak_kb()
    wall, cpu = time.perf_counter(), time.process_time()
    size = run(folder / layout)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    seconds = {"seconds": round(wall, 2), "cpu_seconds": round(cpu, 2)}
    return {"documents": size, "way": way, **seconds, "peak_mb": round((peak_kb() - before) / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20,000 and 40,000 documents")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # way, folder
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], Path(options.one[1]))))
        return
    from record import save, show

    rows = []
    for size in (20_000, 40_000) if options.quick else (100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), size)
            for way in WAYS:
                command = [sys.executable, __file__, "--one", way, folder]
                printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                rows.append(json.loads(printed.splitlines()[-1]))
    show(rows)
    save("loading", {"queries": QUERIES, "shard_documents": SHARD, "words": 60}, rows)


if __name__ == "__main__":
    main()
