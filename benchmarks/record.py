"""Where a benchmark's figures go: benchmarks/results/{name}.json, with the machine they are of."""

import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

from revela.files import atomic_write
from revela.provenance import git_commit, versions
from revela.training import launch

RESULTS = Path(__file__).parent / "results"


def machine() -> dict:
    """Name of the processor and of the GPU, cores in use, and how busy the machine is at this moment."""
    import torch

    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": round(os.getloadavg()[0], 1),
    }


def settle() -> None:
    """Starts this program again in the environment that training gives its processes, unless it is in it."""
    environment = dict(os.environ)
    launch.settle(environment)
    if environment != dict(os.environ):  # which is read when a process begins
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def save(name: str, settings: dict, rows: list[dict]) -> Path:
    """Write the rows of a benchmark, and say where they are."""
    path = RESULTS / f"{name}.json"
    content = {
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "commit": git_commit(),
        "versions": versions(),
        "settings": settings,
        "rows": rows,
    }
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\n{path}")
    return path


def stored(name: str) -> list[dict]:
    """The rows that an earlier run of a benchmark has written, of which a later one replaces what it measures again."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def merged(name: str, rows: list[dict], *keys: str) -> list[dict]:
    """The rows, and before them those that are stored of other values of the keys."""
    measured = [[row.get(key) for key in keys] for row in rows]
    return [row for row in stored(name) if [row.get(key) for key in keys] not in measured] + rows


def timed(function, repeats: int) -> dict:
    """Medians of the seconds on the clock and of the CPU over some repetitions."""
    clock, cpu = [], []
    for _ in range(repeats):
        wall, used = time.perf_counter(), time.process_time()
        function()
        clock.append(time.perf_counter() - wall)
        cpu.append(time.process_time() - used)
    return {"seconds": round(statistics.median(clock), 3), "cpu_seconds": round(statistics.median(cpu), 3)}


def show(rows: list[dict]) -> None:
    """The rows as a table."""
    widths = {key: max(len(key), *(len(str(row.get(key, ""))) for row in rows)) for key in rows[0]}
    for row in [dict(zip(widths, widths, strict=True)), *rows]:
        print("  ".join(str(row.get(key, "")).rjust(width) for key, width in widths.items()))


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []
