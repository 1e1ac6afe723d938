"""The order in which training sees the rows of its file: it follows from the seed."""

from __future__ import annotations

import numpy as np


def permutation(seed: int, epoch: int, rows: int) -> np.ndarray:
    """The rows of an epoch, which counts from 0, in the order in which they are seen: int [rows]."""
    return np.random.default_rng([seed, epoch, 2]).permutation(rows)


def seen(seed: int, rows: int, positions: int | None) -> np.ndarray:
    """The rows, ascending, int [n], that stand at the first `positions` places of that order over all epochs; None: all."""
    if positions is None or positions >= rows:
        return np.arange(rows)
    return np.sort(permutation(seed, 0, rows)[:positions])
