"""The chunks of a corpus's batches by their number: chunk n stands in batch n // B at place n % B."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def by_source(batches: str | Path, batch_size: int) -> Iterator[tuple[str, np.ndarray]]:
    """(source, the numbers [n] of its chunks, ascending) for each source of a batches.parquet, in the order of the file.

    A batch has one source, so batches are regrouped within each.
    """
    sources = pq.read_table(batches, columns=["src"])["src"].to_pylist()
    places: dict[str, list[int]] = {}
    for row, source in enumerate(sources):
        places.setdefault(source, []).append(row)
    for source, rows in places.items():
        yield source, (np.array(rows)[:, None] * batch_size + np.arange(batch_size)).ravel()


def column(batches: str | Path, name: str) -> pa.Array:
    """`text` or `document` of all chunks [n], as Arrow has it: a Python string for each would take twice the memory."""
    table = pq.read_table(batches, columns=[name])
    return pc.list_flatten(table[name]).cast(pa.large_string()).combine_chunks()


def coded(values: pa.Array, numbers: np.ndarray) -> np.ndarray:
    """A number for each value of the chunks `numbers` [n], equal where the values are: int [n]."""
    return np.array(values.take(numbers).dictionary_encode().indices)


def rows(array: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Rows `numbers` [n] of an array [m, ...] on disk: [n, ...]; a view, which is not read, where they stand together."""
    first, last = int(numbers[0]), int(numbers[-1])
    return array[first : last + 1] if last - first + 1 == len(numbers) else array[numbers]
