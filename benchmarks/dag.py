"""Time and memory of planning: every table and figure of the paper, and every cell on every benchmark.

    python benchmarks/dag.py [--quick]

Each plan is `snakemake -n` in a process of its own, in a clean copy of the project. Limits: 30 seconds of CPU and
1.5 GB. CPU seconds count, for planning is one process and the machine may have other work; the clock stands beside.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import save, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from checkout import ROOT, Checkout

from revela.study.study import load

SECONDS, GIGABYTES = 30.0, 1.5


def targets() -> dict[str, list[str]]:
    """What is planned, by name."""
    os.chdir(ROOT)
    study = load("config/config.yaml")
    systems = [run.system for run in study.runs] + [m.system for m in study.models.values() if m.kind != "api"]
    everything = [f"results/scores/{system}/{benchmark}.json" for system in systems for benchmark in study.benchmarks]
    shown = [f"results/tables/{table}.md" for table in study.config.tables]
    shown += [f"results/figures/{figure}.pdf" for figure in study.config.figures]
    return {
        "table 1": ["results/tables/table1.tex"],
        "all tables and figures": ["all", "models", *shown],
        "all systems on all benchmarks": ["all", "models", *shown, *everything],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="table 1 alone")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        checkout = Checkout(Path(temporary) / "checkout")
        for name, wanted in list(targets().items())[: 1 if arguments.quick else None]:
            begin = time.perf_counter()
            command = checkout.command("-n", *wanted, "--quiet", "rules", "host", "reason")
            with open(Path(temporary) / "printed", "w+") as printed:
                process = subprocess.Popen(
                    command, cwd=checkout.folder, env=checkout.environment, stdout=printed, stderr=subprocess.STDOUT
                )
                _, status, used = os.wait4(process.pid, 0)
                seconds = time.perf_counter() - begin
                printed.seek(0)
                lines = printed.read().splitlines()
            if status:
                sys.exit("\n".join(lines[-5:]))
            jobs = next(int(line.split()[1]) for line in lines if line.startswith("total"))
            cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
            row = {"plan": name, "jobs": jobs, "seconds": round(seconds, 1)}
            rows.append(row | {"cpu_seconds": round(cpu, 1), "gigabytes": round(memory, 2)})
    show(rows)
    save("dag", {"limit_cpu_seconds": SECONDS, "limit_gigabytes": GIGABYTES, "quick": arguments.quick}, rows)
    failed = any(row["cpu_seconds"] > SECONDS or row["gigabytes"] > GIGABYTES for row in rows)
    print(f"limits: {SECONDS:g} CPU seconds and {GIGABYTES:g} GB: {'exceeded' if failed else 'kept'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
