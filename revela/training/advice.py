"""What to say to a run that did not fit into memory."""

from __future__ import annotations

import json
import os

import torch
import torch.distributed as dist

from revela.plan import flops, memory
from revela.study.cell import Cell
from revela.training.job import Job


def out_of_memory(job: Job, error: torch.OutOfMemoryError) -> str:
    """A sentence on a run that did not fit, with the settings under which it would."""
    paths = [job.retriever] if job.lm is None else [job.retriever, job.lm]
    shapes = [flops.Shape.from_config(json.loads((path / "config.json").read_text("utf-8"))) for path in paths]
    cell = Cell.parse(job.cell)
    least = cell.needs.least_batch
    needs = memory.alternatives(job.training, shapes, cell.batch_size, dist.get_world_size(), least_batch=least)
    room = device_memory()
    fitting = [f"{change} ({need / 2**30:.1f} GiB)" for change, need in needs.items() if need < 0.9 * room]
    reason = str(error).split(". ")[0]
    return (
        f"out of memory ({reason}); by estimate these would fit into {room / 2**30:.1f} GiB: "
        f"{', '.join(fitting) or 'none of ' + ', '.join(needs)} ({job.cell})"
    )


def device_memory() -> int:
    """Bytes that the process's GPU has, or the machine where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
