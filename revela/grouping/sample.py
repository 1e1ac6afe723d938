"""Some batches of a corpus, drawn by a seed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from revela.text.parquet import read_table


def drawn(batches: str | Path, seed: int, most: int) -> set[int]:
    """Places of rows of a batches.parquet, so many at most, by the seed."""
    number = pq.read_metadata(batches).num_rows
    return set(np.random.default_rng(seed).choice(number, min(most, number), replace=False).tolist())


def rows_at(batches: str | Path, places: Collection[int]) -> dict[int, dict[str, Any]]:
    """Place -> row, in the order of the file."""
    return {place: row for place, row in enumerate(read_table(batches)) if place in places}
