"""What a training run used: time, GPUs, how busy they were, and their memory; recorded for every attempt.

A thread beside the training asks NVML (pynvml, where it is installed and there is a GPU) and rewrites the attempt's
record, so that the record of a run that was killed lacks the last interval at most. The records of a cell, 000.json,
001.json, ..., are the account of what it cost.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from revela.files import write_json

INTERVAL = 10.0  # seconds between samples


@contextmanager
def record(folder: str | Path, *, gpus: int, nodes: int = 1, interval: float = INTERVAL) -> Iterator[dict[str, Any]]:
    """Keeps the record of one attempt in a folder while the block runs. Yields it; the block sets its `outcome`.

    gpus: how many the attempt holds. `cpu_seconds` are those of the processes that the block has waited for. An attempt
    that was killed leaves the outcome `running`, and no `cpu_seconds`. After a complete attempt the account begins anew.
    """
    folder = Path(folder)
    started, spent, stop, gauges = time.monotonic(), _children(), threading.Event(), _gauges() if gpus else []
    attempt = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "gpus": gpus,
        "seconds": 0.0,
        "cpu_seconds": None,
        "utilisation": None,
        "peak_memory_gb": None,
        "outcome": "running",
    }
    before = attempts(folder)
    if before and before[-1]["outcome"] == "complete":  # the cell is trained again, for which a new account begins
        for old in folder.glob("[0-9]*.json"):
            old.unlink()
    path = folder / f"{len(attempts(folder)):03d}.json"
    busy: list[float] = []

    def write() -> None:
        attempt["seconds"] = round(time.monotonic() - started, 1)
        for utilisation, memory in filter(None, (gauge() for gauge in gauges)):
            busy.append(utilisation)
            attempt["peak_memory_gb"] = max(attempt["peak_memory_gb"] or 0, memory)
        if busy:
            attempt["utilisation"] = round(sum(busy) / len(busy), 3)
        write_json(path, attempt)

    def keep() -> None:
        while not stop.wait(interval):
            write()

    write()
    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield attempt
    finally:
        stop.set()
        thread.join()
        if nodes == 1:  # what runs on others is not waited for here
            attempt["cpu_seconds"] = round(_children() - spent, 1)
        write()


def attempts(folder: str | Path) -> list[dict[str, Any]]:
    """The records of a cell's attempts, oldest first."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(folder).glob("[0-9]*.json"))]


def total(folder: str | Path) -> dict[str, Any] | None:
    """What all attempts of a cell used together; None if there is no record.

    `utilisation` is a share of the time of its GPUs; it and `peak_memory_gb` are None where no GPU was sampled.
    `cpu_seconds` of an attempt that was killed are estimated from those a second of the others.
    """
    records = attempts(folder)
    if not records:
        return None
    sampled = [one for one in records if one["utilisation"] is not None]
    weight = sum(one["seconds"] * one["gpus"] for one in sampled)
    share = sum(one["utilisation"] * one["seconds"] * one["gpus"] for one in sampled) / weight if weight else None
    seconds = sum(one["seconds"] for one in records)
    ended = [one for one in records if one.get("cpu_seconds") is not None]
    known = sum(one["seconds"] for one in ended)
    return {
        "attempts": len(records),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(sum(one["cpu_seconds"] for one in ended) * seconds / known, 1) if known else None,
        "gpu_hours": round(sum(one["seconds"] * one["gpus"] for one in records) / 3600, 4),
        "utilisation": None if share is None else round(share, 3),
        "peak_memory_gb": max((one["peak_memory_gb"] for one in sampled), default=None),
    }


def _children() -> float:
    """CPU seconds of all processes that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _gauges() -> list:
    """A function for each GPU of this job that returns (share of time busy, GB in use), or None; none without NVML."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except (ImportError, OSError) as error:
        return _unavailable(error)
    except pynvml.NVMLError as error:
        return _unavailable(error)

    def gauge(handle):
        def read() -> tuple[float, float] | None:
            try:
                rates, memory = pynvml.nvmlDeviceGetUtilizationRates(handle), pynvml.nvmlDeviceGetMemoryInfo(handle)
            except pynvml.NVMLError:  # this sample is missing; the training goes on
                return None
            return rates.gpu / 100, memory.used / 2**30

        return read

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    by_index, by_uuid = pynvml.nvmlDeviceGetHandleByIndex, pynvml.nvmlDeviceGetHandleByUUID
    try:
        names = range(pynvml.nvmlDeviceGetCount()) if visible is None else filter(None, visible.split(","))
        return [gauge(by_index(int(name)) if str(name).isdigit() else by_uuid(name)) for name in names]
    except pynvml.NVMLError as error:
        return _unavailable(error)


def _unavailable(error: Exception) -> list:
    print(f"GPUs are not sampled: {error}")
    return []
