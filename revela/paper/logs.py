"""The training log of a cell, as figures and lineage read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from revela.paper import PaperError


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a training log: step, loss, elapsed (seconds), gpu_hours and more.

    Raises PaperError if there is no such file, or a line lacks one of these.
    """
    try:
        log = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        if not log or not all({"step", "loss", "elapsed", "gpu_hours"} <= line.keys() for line in log):
            raise ValueError("a line without step, loss, elapsed, gpu_hours, or none at all")
    except (OSError, ValueError, AttributeError) as error:
        raise PaperError(f"{path}: not a training log ({error})") from None
    return log


def comparable(curve: pd.DataFrame, uniform: float, steps: int) -> pd.Series:
    """The share over a number of steps, as it would be in batches to which a uniform Sim gives `uniform`.

    Batches are made of few documents or of many. What counts is how far Sim has come from the uniform one's share of a
    batch towards all of the weight; batches of a single document say nothing.
    """
    window = curve[["share", "uniform"]].rolling(steps, center=True, min_periods=1).sum()
    number = curve["share"].rolling(steps, center=True, min_periods=1).count()
    room = (number - window["uniform"]).where(lambda value: value > 1e-9)
    return uniform + (1 - uniform) * (window["share"] - window["uniform"]) / room
