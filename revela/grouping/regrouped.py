"""The chunks of a corpus's batches, put into other batches: batches.parquet -> neighbours -> batches.parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from revela.files import atomic_write
from revela.grouping import chunks
from revela.grouping.batches import group
from revela.text.batches import BATCHES, Batch, BatchCounts
from revela.text.parquet import write_counts, write_table
from revela.text.progress import Progress, silent

if TYPE_CHECKING:
    from revela.study.grouping import NeighbourSpec, RegroupSpec

    # (source, the numbers [n] of its chunks, the document of each, int [n], or None, k) -> neighbours, numbered from 0
    # to n - 1, their similarities, and the recall of a search that is not exact, None of one that is.
    Find = Callable[[str, np.ndarray, np.ndarray | None, int], tuple[np.ndarray, np.ndarray, float | None]]

AT_A_TIME = 4096  # batches whose text is in memory


def write_neighbours(spec: NeighbourSpec, batches: str | Path, find: Find, output: str | Path) -> dict[str, Any]:
    """Write the neighbours of each chunk among those of its source: a .npz file and, beside it, a JSON file of counts.

    Source number s, in the order of the batches, has `neighbours-{s}` and `similarities-{s}`, both [chunks of s, k];
    chunks are numbered within their source there. A source of k chunks or fewer has all its others.

    Args:
        spec: How many neighbours, and whether the batches name their documents.
        batches: The corpus's batches.parquet.
        find: Finds the neighbours among the chunks of a source; `neighbours.by_embedding` and `bm25_neighbours.by_bm25`
            make one.
        output: The .npz file.

    Returns:
        Source -> ``chunks``, ``similarity`` (the mean over all neighbours, None where there are none) and ``recall``.
    """
    arrays, counts = {}, {}
    document = chunks.column(batches, "document") if spec.documents else None
    for place, (source, numbers) in enumerate(chunks.by_source(batches, spec.batch_size)):
        of_document = None if document is None else chunks.coded(document, numbers)
        near, similarities, recall = find(source, numbers, of_document, min(spec.neighbours, len(numbers) - 1))
        arrays |= {f"neighbours-{place}": near, f"similarities-{place}": similarities}
        there = similarities[np.isfinite(similarities)]
        similarity = round(float(there.mean(dtype=np.float64)), 4) if there.size else None
        counts[source] = {"chunks": len(numbers), "similarity": similarity, "recall": recall}
    with atomic_write(output) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)
    return write_counts(output, counts)


def write_regrouped(
    spec: RegroupSpec,
    batches: str | Path,
    output: str | Path,
    *,
    neighbours: str | Path | None = None,
    alike: str | Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write a regrouped corpus's batches.parquet and, beside it, batches.json.

    A batch has chunks of one source, for batches.parquet names one for each. Training draws their order.

    Args:
        spec: How they are grouped.
        batches: The batches whose chunks they have.
        output: The parquet file; the JSON file has the same name.
        neighbours: As `write_neighbours` writes them; None: batches are random.
        alike: A label [chunks] of each chunk as .npy; equal ones are nearly the same, and never in one batch.
        progress: Makes the progress bar.

    Returns:
        The counts, as `revela.text.batches.write_batches` has them. ``parts`` says how many batches each source had, and
        has now: chunks that fit into no batch are left out.

    Raises:
        GroupingError: Chunks cannot be grouped as asked.
    """
    text, document = (chunks.column(batches, name) for name in ("text", "document"))
    labels = np.load(alike) if alike else None
    grouped = {}  # source -> the numbers [batches, B] of chunks
    for place, (source, numbers) in enumerate(chunks.by_source(batches, spec.batch_size)):
        if neighbours is None:
            order = np.random.default_rng([spec.seed, place]).permutation(numbers)
            grouped[source] = order.reshape(-1, spec.batch_size)
            continue
        with np.load(neighbours) as found:
            near, similarities = found[f"neighbours-{place}"], found[f"similarities-{place}"]
        grouped[source] = numbers[
            group(
                near,
                similarities,
                chunks.coded(document, numbers) if spec.documents else np.arange(len(numbers)),
                batch_size=spec.batch_size,
                how=spec.how,
                keep_document=spec.keep_document,
                alike=None if labels is None else labels[numbers],
                seed=spec.seed,
            )
        ]
    counts = BatchCounts()
    parts = {
        source: {"available": len(numbers) // spec.batch_size, "taken": len(grouped[source])}
        for source, numbers in chunks.by_source(batches, spec.batch_size)
    }

    def made() -> Iterator[Batch]:
        with progress(desc=f"batches of {spec.batch_size}", total=sum(map(len, grouped.values()))) as bar:
            for source, numbers in grouped.items():
                for first in range(0, len(numbers), AT_A_TIME):
                    some = numbers[first : first + AT_A_TIME]
                    texts, documents = (values.take(some.ravel()).to_pylist() for values in (text, document))
                    for start in range(0, some.size, spec.batch_size):
                        own = slice(start, start + spec.batch_size)
                        counts.add(batch := (source, texts[own], documents[own]))
                        bar.update()
                        yield batch

    write_table(output, BATCHES, made(), lambda batch: sum(map(len, batch[1])))
    settings = {"batch_size": spec.batch_size, "group_size": None, "how": spec.how, "seed": spec.seed}
    return write_counts(output, {**settings, **counts.result(documents=spec.documents), "parts": parts})
