"""What one run of training reads and writes, and what its weights depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist
from pydantic import Field, ValidationError

from revela.files import sha256_file
from revela.provenance import folder_sha256
from revela.study.base import Strict
from revela.study.cell import Cell
from revela.study.methods import METHODS
from revela.study.settings import Training
from revela.training import TrainingError

# What a run reads -> how it is hashed.
INPUTS = {"retriever": folder_sha256, "lm": folder_sha256, "data": sha256_file, "scores": sha256_file}
INPUTS |= {"start": folder_sha256}


class Job(Strict):
    """What one run reads and writes; paths are relative to the working directory.

    training: all that the result depends on besides the inputs. gradient_checkpointing: None: where memory asks for it.
    checkpoint_every: steps between checkpoints.
    time_budget_minutes: after so long the run saves and stops, to be started again; None: never.
    start: a trained cell with whose weights the run begins; None: with those of retriever and lm.
    """

    cell: str
    training: Training
    gradient_checkpointing: bool | None = None
    checkpoint_every: int = Field(500, ge=1)
    time_budget_minutes: float | None = Field(None, gt=0)
    retriever: Path
    lm: Path | None = None
    data: Path
    scores: Path | None = None
    start: Path | None = None
    output: Path
    checkpoints: Path


def read_job(arguments: list[str]) -> Job:
    """The job of a JSON file, with inputs that exist. Raises TrainingError that names the key."""
    if len(arguments) != 1:
        raise TrainingError("usage: python -m revela.training.entry JOB.json")
    path = Path(arguments[0])
    try:
        job = Job.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        raise TrainingError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}"
        ) from None
    if Cell.parse(job.cell).method not in METHODS:
        raise TrainingError(f"{path}: cell: {job.cell}: unknown method; valid are {', '.join(METHODS)}")
    size, shared = Cell.parse(job.cell).batch_size, job.training.processes_per_batch
    if size % shared:
        raise TrainingError(f"{path}: training.processes_per_batch: {shared} do not share {size} chunks evenly")
    if (job.start is None) != (job.training.start == "backbone"):
        raise TrainingError(f"{path}: start: {job.start}, and training.start is {job.training.start}")
    for name in INPUTS:
        value = getattr(job, name)
        if value is not None and not value.exists():
            raise TrainingError(f"{path}: {name}: {value} does not exist")
    return job


def inputs(job: Job) -> dict[str, str]:
    """SHA-256 of each input."""
    return {name: sha256(path) for name, sha256 in INPUTS.items() if (path := getattr(job, name)) is not None}


def fingerprint(job: Job) -> dict[str, Any]:
    """All that the weights depend on, by name, apart from code and versions."""
    settings = job.training.model_dump(mode="json")
    return {"cell": job.cell, **settings, **inputs(job), "processes": dist.get_world_size()}
