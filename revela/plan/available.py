"""Memory that a run may take here: the least that the machine and its limits leave.

machine     MemAvailable of /proc/meminfo
cgroup      the limit of the process's own group and of each group above it, less what they use and cannot give
            back: containers, systemd, and SLURM where it enforces its limits (v1 and v2)
SLURM       SLURM_MEM_PER_NODE or SLURM_MEM_PER_CPU, where it enforces nothing
ulimit -v   the address space of each process
GPU         what CUDA says is free
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
MB = 2**20
# Addresses that a run takes and puts nothing behind: code, and stacks and heaps of its threads. In all, and after its start.
ADDRESSES, RESERVED = 2.5 * 2**30, 0.75 * 2**30


@dataclass(frozen=True)
class Room:
    """Bytes that each of some processes may hold, its share of what they have in common."""

    bytes: float
    where: str  # what says so, for people

    def __str__(self) -> str:
        return f"{self.bytes / 2**30:.1f} GiB ({self.where})"


def room(processes: int = 1, *, running: bool = False) -> Room:
    """What each of so many processes may hold in all on this machine.

    running: this is one of them, and what it holds already is part of what it may hold.
    """
    held = _status("VmRSS") if running else 0
    rooms = [Room(free / processes + held, where) for free, where in _shared(processes * held)]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        unused = RESERVED + _status("VmSize") - held if running else ADDRESSES
        rooms.append(Room(max(0, limit - unused), f"ulimit -v of {limit / 2**30:.1f} GiB"))
    return min(rooms, key=lambda one: one.bytes)


def gpu_room() -> Room:
    """What this process may hold on its GPU."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return Room(free + torch.cuda.memory_reserved(), f"of {total / 2**30:.1f} GiB of {torch.cuda.get_device_name()}")


def most() -> float:
    """Bytes that all processes here together may ever hold: of the machine, or what a limit leaves of it."""
    limits = [_meminfo("MemTotal"), *(limit for limit, _, _ in _cgroups()), resource.getrlimit(resource.RLIMIT_AS)[0]]
    return min(limit for limit in limits if limit > 0)  # RLIM_INFINITY is -1


def _shared(held: float) -> Iterator[tuple[float, str]]:
    """(bytes that are free, what says so) for all that processes have in common; they hold so many bytes already."""
    yield _meminfo("MemAvailable"), f"free of {_meminfo('MemTotal') / 2**30:.1f} GiB of this machine"
    for limit, used, name in _cgroups():
        yield max(0, limit - used), f"left by the limit of {limit / 2**30:.1f} GiB of {name}"
    for limit in _slurm():
        yield max(0, limit - held), f"of {limit / 2**30:.1f} GiB that SLURM gives this job"


def _meminfo(key: str) -> int:
    for line in (PROC / "meminfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise KeyError(key)


def _status(key: str) -> int:
    """Bytes of this process."""
    line = (PROC / "self/status").read_text(encoding="utf-8").split(f"{key}:")[1]
    return int(line.split()[0]) * 1024


def _slurm() -> Iterator[int]:
    """Of a job under SLURM, on this node."""
    if node := int(os.environ.get("SLURM_MEM_PER_NODE", "0")):  # 0: all that the node has
        yield node * MB
    elif cpu := int(os.environ.get("SLURM_MEM_PER_CPU", "0")):
        yield cpu * int(os.environ.get("SLURM_CPUS_ON_NODE", "1")) * MB


def _cgroups() -> Iterator[tuple[int, int, str]]:
    """(limit, bytes in use that cannot be given back, name) of each memory group above this process that has a limit."""
    total = _meminfo("MemTotal")
    for folder, top, version in _own_groups():
        files = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        cached = ("active_file", "inactive_file") if version == 2 else ("total_active_file", "total_inactive_file")
        for group in [folder, *folder.parents]:
            try:
                limit = (group / files[0]).read_text(encoding="utf-8").strip()
                if limit != "max" and int(limit) < total:  # without a limit, v1 has a number above all memory
                    stat = dict(line.split() for line in (group / "memory.stat").read_text("utf-8").splitlines())
                    used = int((group / files[1]).read_text("utf-8")) - sum(int(stat.get(name, 0)) for name in cached)
                    yield int(limit), max(0, used), f"the cgroup {group}"
            except FileNotFoundError:  # the topmost has none, and a container sees no group above its own
                pass
            if group == top:
                break


def _own_groups() -> Iterator[tuple[Path, Path, int]]:
    """(folder of this process's group, folder of the hierarchy's top, version) for both kinds of cgroups."""
    try:
        own = [line.split(":", 2) for line in (PROC / "self/cgroup").read_text("utf-8").splitlines()]
        mounts = [line.split() for line in (PROC / "self/mountinfo").read_text("utf-8").splitlines()]
    except FileNotFoundError:  # a kernel without them
        return
    for fields in mounts:
        kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
        if kind != "cgroup2" and not (kind == "cgroup" and "memory" in options):
            continue
        root, top = fields[3], Path(fields[4])
        for number, controllers, path in own:
            if number == "0" if kind == "cgroup2" else "memory" in controllers.split(","):
                inner = path.removeprefix(root).strip("/") if path.startswith(root) else ""
                yield top / inner, top, 2 if kind == "cgroup2" else 1
