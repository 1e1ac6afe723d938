"""Which GPUs a job uses.

A GPU belongs to the job that holds the lock on its file. The lock ends with the process, in whatever way it ends. So
jobs that run side by side on a workstation, or in one SLURM allocation, use different GPUs, whoever started them.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from revela.errors import RevelaError

LOCKS = Path("/tmp/revela-gpus")
_held: list[IO] = []  # open for as long as the process lives


class DeviceError(RevelaError):
    """More GPUs are asked for than there are. The message is one line."""


def claim(wanted: int, locks: Path = LOCKS) -> list[str]:
    """Waits until `wanted` GPUs are free, holds them, and returns their names as in CUDA_VISIBLE_DEVICES.

    Raises DeviceError where there are not that many.
    """
    devices = visible()
    allocation = os.environ.get("SLURM_JOB_ID")
    scope = f"{allocation}-" if allocation else ""  # SLURM may number the GPUs of each allocation from 0
    if wanted > len(devices):
        raise DeviceError(
            f"this job asks for {wanted} GPUs, and there are {len(devices)}: add --resources gpu={len(devices)}"
            if devices
            else f"this job asks for {wanted} GPUs, and there are none: set training_gpus and evaluation_gpus to 0"
        )
    if not locks.is_dir():
        locks.mkdir(exist_ok=True)
        locks.chmod(0o777)  # whatever the umask, because other users' jobs look for free GPUs here as well
    while True:
        free = [(device, file) for device in devices if (file := _lock(locks / f"{scope}{device}.lock"))]
        if len(free) >= wanted:
            break
        for _, file in free:
            file.close()
        time.sleep(1)
    for _, file in free[wanted:]:
        file.close()
    _held.extend(file for _, file in free[:wanted])
    return [device for device, _ in free[:wanted]]


def visible() -> list[str]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, or all of the machine's."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def _lock(path: Path) -> IO | None:
    """An open file that holds the lock; None if another process does."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CREAT, 0o666))  # to read, as it may be another user's
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
