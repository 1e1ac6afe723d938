"""Parquet files that are written as a stream, with their counts beside them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from revela.files import atomic_write, write_json

ROW_GROUP_CHARACTERS = 16_000_000

Item = TypeVar("Item")


def write_table(path: str | Path, schema: pa.Schema, rows: Iterable[tuple], size: Callable[[tuple], int]) -> None:
    """Write rows to a parquet file, atomically. A row group ends where the sizes of its rows reach about 16 million."""
    with atomic_write(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for group in by_size(rows, size, ROW_GROUP_CHARACTERS):
            columns = [pa.array(column, field.type) for column, field in zip(zip(*group, strict=True), schema)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=len(group))


def read_table(path: str | Path, row_groups: list[int] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, or of some of its row groups, with a few hundred in memory at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256, row_groups=row_groups):
            yield from batch.to_pylist()


def write_counts(table: str | Path, counts: dict) -> dict:
    """Write the counts of a table to the JSON file of the same name, and return them as JSON has them."""
    plain = json.loads(json.dumps(_plain(counts)))
    write_json(Path(table).with_suffix(".json"), plain)
    return plain


def _plain(value: Any) -> Any:
    """Counters in the order of their keys, which JSON turns into strings."""
    if isinstance(value, Counter):
        value = dict(sorted(value.items()))
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def by_size(items: Iterable[Item], size: Callable[[Item], int], limit: int) -> Iterator[list[Item]]:
    """Consecutive items in lists; a list ends where the sizes of its items reach the limit.

    >>> list(by_size(["a", "bcd", "e"], len, limit=5))
    [['a', 'bcd'], ['e']]
    """
    group, total = [], 0
    for item in items:
        group.append(item)
        total += size(item) + 1  # so that items of no size end too
        if total >= limit:
            yield group
            group, total = [], 0
    if group:
        yield group
