"""Neighbours and grouping of synthetic chunks: seconds, peak memory and recall, at five million x 512.

    python benchmarks/grouping.py [--quick] [--chunks 200000] [--folder FOLDER]

Vectors of unit length in float16 lie in a file that is mapped into memory, as the workflow keeps embeddings. They are
about centres, eight chunks each, which are about topics, 500 centres each. Both spread in 64 directions, so the nearest
of a chunk are partly of its own centre and partly of others. A document has eight chunks, one
chunk in a hundred is a near-duplicate of the one before it, and half of a batch of 16 are pairs of one document.

Each step runs in a process of its own: neighbours (k = 32), recall@32 on another sample than the one that chose how
many lists are visited, and each way of grouping. Peak memory is ru_maxrss of its process, with all imports; anonymous
is what of it is no mapped file. The seconds are on the clock and of all threads' CPU: where the machine has other
work, the latter say more. "alike" is the mean inner product of the chunks of a batch; "random" is what batches drawn at
random have.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CHUNKS, WIDTH, K, BATCH, BLOCK, SEED = 5_000_000, 512, 32, 16, 50_000, 1
DIRECTIONS, PER_CENTRE, PER_TOPIC, PER_DOCUMENT = 64, 8, 500, 8
HOW = ("mutual", "path", "cluster")


def draw(path: Path, count: int) -> None:
    """Write the vectors, float16 [count, WIDTH], block by block."""
    topics = max(1, count // (PER_CENTRE * PER_TOPIC))
    seeds = np.random.default_rng(SEED)
    means = seeds.standard_normal((topics, WIDTH), np.float32)
    bases = seeds.standard_normal((20, DIRECTIONS, WIDTH), np.float32)
    vectors = np.lib.format.open_memmap(path, "w+", np.float16, (count, WIDTH))
    centre_seed = np.arange(-(-count // PER_CENTRE))
    topic_of = seeds.integers(topics, size=len(centre_seed))
    place = seeds.permutation(count)  # chunks of a centre are apart from each other
    for start in range(0, count, BLOCK):
        random = np.random.default_rng([SEED, start])
        centre = place[start : start + BLOCK] // PER_CENTRE
        topic = topic_of[centre]
        block = means[topic] * 0.7
        for base in range(20):
            rows = np.flatnonzero(topic % 20 == base)
            own = _hashed(centre[rows]) + 0.8 * random.standard_normal((len(rows), DIRECTIONS), np.float32)
            block[rows] += own @ bases[base] / DIRECTIONS**0.5
        vectors[start : start + BLOCK] = block / np.linalg.norm(block, axis=1, keepdims=True)
    vectors.flush()


def _hashed(centre: np.ndarray) -> np.ndarray:
    """A random vector [n, DIRECTIONS] of each centre, the same wherever it is asked for: of uniform numbers, variance 1."""
    keys = centre[:, None].astype(np.uint64) * np.uint64(DIRECTIONS) + np.arange(DIRECTIONS, dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # of splitmix64
        keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
    return ((keys >> np.uint64(40)).astype(np.float32) / 2**24 - 0.5) * 12**0.5


def measured(function) -> tuple[dict, object]:
    """Seconds and memory of a step, in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = function()
    row = {"seconds": round(time.perf_counter() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    anonymous = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    row["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    row["anonymous_at_end_gb"] = round(int(anonymous[0].split()[1]) / 2**20, 2) if anonymous else None
    return row, value


def find(folder: Path) -> dict:
    from revela.grouping.neighbours import neighbours

    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    row, (found, products) = measured(lambda: neighbours(vectors, K, exact=False, seed=SEED))
    np.save(folder / "found.npy", found)
    np.save(folder / "products.npy", products)
    return {"step": "neighbours"} | row


def recall_of(folder: Path) -> dict:
    from revela.grouping.neighbours import recall

    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    found = np.load(folder / "found.npy"), np.load(folder / "products.npy")
    row, value = measured(lambda: recall(vectors, found, seed=SEED))
    return {"step": "recall"} | row | {"recall": round(value, 4)}


def grouped(folder: Path, how: str) -> dict:
    from revela.grouping.batches import group

    found, products = np.load(folder / "found.npy"), np.load(folder / "products.npy")
    documents = np.arange(len(found)) // PER_DOCUMENT
    alike = np.arange(len(found))
    alike[1::100] -= 1
    options = {"batch_size": BATCH, "how": how, "keep_document": 0.5, "alike": alike, "seed": SEED}
    row, batches = measured(lambda: group(found, products, documents, **options))
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    random = np.random.default_rng(SEED)
    drawn = batches[random.choice(len(batches), min(1000, len(batches)), replace=False)]
    row |= {"batches": len(batches), "dropped": len(found) - batches.size}
    by_chance = random.integers(len(found), size=drawn.shape)
    return {"step": how} | row | {"alike": _mean_product(vectors, drawn), "random": _mean_product(vectors, by_chance)}


def _mean_product(vectors: np.ndarray, batches: np.ndarray) -> float:
    """Of two different chunks of a batch."""
    rows = vectors[batches.ravel()].astype(np.float32).reshape(*batches.shape, -1)
    size = batches.shape[1]
    total = np.square(rows.sum(axis=1)).sum(axis=-1) - np.square(rows).sum(axis=(1, 2))
    return round(float(total.mean() / (size * (size - 1))), 3)


def one(step: str, folder: Path) -> dict:
    if step == "neighbours":
        return find(folder)
    return recall_of(folder) if step == "recall" else grouped(folder, step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="120,000 chunks x 64")
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    parser.add_argument("--folder", type=Path, help="where vectors and neighbours are kept; else they are temporary")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # step
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.folder)))
        return
    from record import save, show

    global WIDTH
    count = options.chunks
    if options.quick:
        count, WIDTH = 120_000, 64
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "vectors.npy").exists():
            draw(folder / "vectors.npy", count)
        rows = []
        for step in ("neighbours", "recall", *HOW):
            command = [sys.executable, __file__, "--folder", str(folder), "--one", step]
            printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            rows.append({"chunks": count, "width": WIDTH} | json.loads(printed.splitlines()[-1]))
            print(json.dumps(rows[-1]), flush=True)
    show([{key: row.get(key, "") for key in rows[-1] | rows[1]} for row in rows])
    save("grouping", {"k": K, "batch_size": BATCH, "keep_document": 0.5}, rows)


if __name__ == "__main__":
    main()
