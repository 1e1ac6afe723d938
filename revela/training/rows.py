"""Which rows of the training file a run sees, when, and in which order: all of it follows from the seed and the position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from revela.order import permutation
from revela.training import TrainingError


class ScoreError(TrainingError):
    """A batch without scores, which one process alone may meet. The message is one line."""


class Rows:
    """The rows of the training file in the order in which they are seen: rows[position], for any position >= 0.

    data: parquet, a row a batch. scores: REPLUG's l_ij, float32 [batches, B, B]; each row gets its own, and those that
    no run of these steps and this seed sees are NaN.
    Every epoch is a permutation of all rows, and every visit permutes the chunks of a row's "text", by the seed.
    Raises TrainingError where there are not as many scores as batches.
    """

    def __init__(self, data: Path, scores: Path | None, seed: int):
        self.path, self.table, self.seed = data, pq.ParquetFile(data).read(), seed
        self.scores_path = scores
        self.scores = None if scores is None else np.load(scores, mmap_mode="r")
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))
        if self.scores is not None and len(self.scores) != len(self.table):
            raise TrainingError(f"{scores}: {len(self.scores)} batches of scores for {len(self.table)} in {data}")

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, position: int) -> dict[str, Any]:
        epoch, place = divmod(position, len(self))
        index = int(self._permutation(epoch)[place])
        row = self.table.slice(index, 1).to_pylist()[0]
        if self.scores is not None:
            row["scores"] = np.array(self.scores[index])
            if np.isnan(row["scores"]).any():
                raise ScoreError(
                    f"{self.scores_path}: batch {index} of {self.path} has no scores, for they are of other steps or seeds"
                )
        if "text" not in row:
            return row
        order = np.random.default_rng([self.seed, epoch, index, 1]).permutation(len(row["text"]))
        for name in ("text", "document"):
            if name in row:
                row[name] = [row[name][chunk] for chunk in order]
        if "scores" in row:
            row["scores"] = row["scores"][np.ix_(order, order)]
        return row

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            self._order = epoch, permutation(self.seed, epoch, len(self))
        return self._order[1]


def positions_of(step: int, batches_per_step: int, rank: int, processes: int) -> range:
    """Positions, in the order of training, of the rows that a process has in a step; steps count from 1.

    Where processes share batches, rank and processes are those of groups.
    """
    return range((step - 1) * batches_per_step, step * batches_per_step)[rank::processes]


def seed_of(seed: int, position: int, place: int = 0) -> int:
    """The seed of dropout for the batch at a position of the order of training, or for a part of it, from 0."""
    part = [place] if place else []
    return int(np.random.SeedSequence([seed, position, 3, *part]).generate_state(1, np.uint64)[0])
