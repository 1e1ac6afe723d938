"""What to say to a run that did not fit into memory."""

from __future__ import annotations

import torch

from revela.plan import available
from revela.training.fitting import load_of
from revela.training.job import Job


def out_of_memory(job: Job, error: BaseException) -> str:
    """A sentence on a run that did not fit, with the settings under which it would."""
    room = device_memory()
    load = load_of(job)
    fitting = load.fitting(0.9 * room, load.changes(checkpointing=bool(job.gradient_checkpointing)))
    reason = str(error).split(". ")[0] or type(error).__name__
    return f"out of memory ({reason}); by estimate these would fit into {room / 2**30:.1f} GiB: {fitting} ({job.cell})"


def exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on a GPU, or on a CPU under `ulimit -v`."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)


def device_memory() -> float:
    """Bytes that the process's GPU has, or what a limit or the machine gives all processes where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1]
    return available.most()
