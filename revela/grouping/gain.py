"""What the models of a trained cell make of a corpus's batches: how sharp Sim is, and what the language model gains by it."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch

from revela.files import write_json
from revela.grouping.sample import drawn, rows_at
from revela.objectives.revela import Revela
from revela.provenance import read_manifest
from revela.text.progress import Progress, silent
from revela.training.engine import load_models, set_arithmetic
from revela.training.start import check_backbones, load_weights
from revela.training.watch import kinds_of_sim, losses_under, watching

if TYPE_CHECKING:
    from revela.study.grouping import GainSpec
    from revela.study.settings import Training


def write_gain(
    spec: GainSpec,
    batches: str | Path,
    cell: str | Path,
    retriever: str | Path,
    lm: str | Path,
    output: str | Path,
    *,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure batches that are drawn by the seed, and write a JSON file.

    Args:
        spec: The cell's settings, and how many batches.
        batches: A corpus's batches.parquet.
        cell: The cell's folder; retriever, lm: those of its backbones.
        output: The JSON file.

    Returns:
        What was written: ``cell``, ``batches`` (of each its row as ``batch``, and what `measured` says) and ``mean``, over
        the batches.

    Raises:
        TrainingError: The cell was trained from other backbones, or has other weights than its settings ask for.
    """
    set_arithmetic()
    objective = trained_objective(spec.settings, Path(cell), Path(retriever), Path(lm))
    rows, found = rows_at(batches, drawn(batches, spec.seed, spec.batches)), []
    with progress(desc="batches", total=len(rows)) as bar:
        for place, row in rows.items():
            found.append({"batch": place, **measured(objective, row, documents=spec.documents)})
            bar.update()
    means = {name: round(mean(one[name] for one in found), 6) for name in found[0] if name != "batch"}
    report = {"cell": spec.cell, "mean": means, "batches": found}
    write_json(output, report)
    return report


def trained_objective(settings: Training, cell: Path, retriever: Path, lm: Path) -> Revela:
    """The objective of a cell as its last step left it, on a GPU if there is one."""
    check_backbones(cell, retriever, lm)
    objective = Revela(settings, *load_models(settings, retriever, lm))
    load_weights(objective, cell)
    objective.step = read_manifest(cell)["steps"] + 1  # by which a gate on a ramp goes
    return objective.to("cuda" if torch.cuda.is_available() else "cpu")


def measured(objective: Revela, row: dict[str, Any], *, documents: bool) -> dict[str, float]:
    """Of a batch: the mean ``entropy`` of Sim's rows in nats, its share ``of_uniform``, and the `losses_under` each Sim.

    documents: whether the batch names its documents.
    """
    batch = objective.collate(row)
    if not documents:
        batch.pop("document", None)
    with watching(objective, batch) as here:
        sims = kinds_of_sim(objective, here)
        entropy = float(torch.special.entr(sims["learned"]).sum(1).mean())
        others = len(row["text"]) - 1
        share = entropy / math.log(others) if others > 1 else 1.0  # of one chunk alone there is only the uniform Sim
        return {"entropy": round(entropy, 6), "of_uniform": round(share, 6), **losses_under(objective, here, sims)}
