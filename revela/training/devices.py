"""Which GPUs a job uses.

A GPU belongs to the job that holds the lock on its file. The lock ends with the process, in whatever way it ends. So
jobs that run side by side on a workstation, or in one SLURM allocation, use different GPUs, whoever started them.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import IO

from revela.errors import RevelaError, first_line

LOCKS = Path("/tmp/revela-gpus")
DRIVER = Path("/proc/driver/nvidia/version")
# CUDA of a build -> the lowest driver (docs.nvidia.com/deploy/cuda-compatibility)
LOWEST_DRIVER = {"11": "450", "12": "525", "13": "580"}
_held: list[IO] = []  # open for as long as the process lives


class DeviceError(RevelaError):
    """More GPUs are asked for than there are, or torch cannot use one. The message is one line."""


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
            else f"this job asks for {wanted} GPUs, and there are none: set all of training_gpus, evaluation_gpus and scoring_gpus to 0"
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
        names = (name.strip() for name in named.split(","))
        return list(takewhile(lambda name: name not in ("", "-1"), names))  # as CUDA reads it
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def check(numbers: Iterable[int] | None = None) -> None:
    """Uses each GPU that CUDA_VISIBLE_DEVICES names, or those of these numbers, once; does nothing if it names none.

    Otherwise a job that asked for GPUs would quietly run on a CPU where torch was built for CPUs, or where the driver is
    too old. Raises DeviceError with the driver, the build and the remedy.
    """
    wanted = visible() if os.environ.get("CUDA_VISIBLE_DEVICES") else []
    if not wanted:
        return
    import torch

    build = torch.version.cuda
    if build is None:
        raise DeviceError(
            f"this job has {len(wanted)} GPUs, but torch {torch.__version__} is a build without CUDA; {_driver()}: "
            "install a build with CUDA (docs/cluster.md), or set all of training_gpus, evaluation_gpus and scoring_gpus to 0"
        )
    try:
        for number in range(len(wanted)) if numbers is None else numbers:
            torch.ones(1, device=f"cuda:{number}").sum().item()
        found = torch.cuda.device_count()
        reason = None if found >= len(wanted) else f"it sees {found}"
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error).rstrip(". ")
    if reason:
        lowest = LOWEST_DRIVER.get(build.partition(".")[0])
        needed = f", which needs driver {lowest} or newer" if lowest else ""
        raise DeviceError(
            f"this job has {len(wanted)} GPUs ({','.join(wanted)}), but torch {torch.__version__} cannot use them "
            f"({reason}): it is built for CUDA {build}{needed}; {_driver()}: update the driver, or install a build of "
            "torch for an older CUDA (docs/cluster.md)"
        )


def _driver() -> str:
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", DRIVER.read_text(encoding="utf-8"))
    except OSError:
        return "no NVIDIA driver is loaded"
    return f"the driver is {found[1]}" if found else "the driver is of an unknown version"


def _lock(path: Path) -> IO | None:
    """An open file that holds the lock; None if another process does."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CREAT, 0o666))  # to read, as it may be another user's
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
