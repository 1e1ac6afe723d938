"""How many steps of training fit into a number of minutes: a few are taken to see how long each lasts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from revela.command import running
from revela.command.own_study import OwnStudyError
from revela.files import write_json
from revela.study.base import read_yaml
from revela.study.cell import Cell
from revela.study.study import Study

VARIANT = "pace"  # of the cell, with these settings; it stands in the configuration like any other
TRIAL = f"variants.{VARIANT}.max_steps=5"  # the first step begins threads and kernels and does not count
RECORD = "pace.json"


def write_for(
    minutes: float, out: Path, write: Callable[..., tuple[Study, Cell]], *, cores: int, overwrite: bool
) -> tuple[Study, Cell]:
    """Writes a study whose training takes `minutes` on this machine.

    The pace is measured once for each folder of results and kept there, so that the same command goes on with the same
    number of steps.

    Args:
        minutes: Of training alone, without chunks, export and evaluation.
        out: The folder of the study.
        write: Writes the study there with the setting `TRIAL`, and returns it and its cell; takes `steps` and
            `overwrite`.
        cores: CPU cores.
        overwrite: Replace a configuration that says otherwise.

    Raises:
        OwnStudyError: Not one step fits, or what `write` raises.
        RunError: The trial failed.
    """
    record = out / RECORD
    if not record.is_file():
        study, cell = write(overwrite=overwrite)
        trial = replace(cell, variant=VARIANT)
        running.run(out / "config.yaml", study.layout, [study.layout.cell(trial)], cores=cores)
        write_json(record, {"seconds_per_step": seconds_per_step(Path(study.layout.cell_log(trial)))})
    seconds = json.loads(record.read_text(encoding="utf-8"))["seconds_per_step"]
    steps = int(60 * minutes / seconds)
    if steps == 0:
        raise OwnStudyError(f"--minutes {minutes:g}: a step takes {seconds:.0f} seconds here; give more minutes")
    measured_only = read_yaml(out / "config.yaml")["training"]["max_steps"] is None
    return write(steps=steps, overwrite=overwrite or measured_only)


def seconds_per_step(log: Path) -> float:
    """The median of the seconds between the steps of a training log."""
    elapsed = [json.loads(line)["elapsed"] for line in log.read_text(encoding="utf-8").splitlines()]
    return median(later - earlier for earlier, later in pairwise(elapsed))
