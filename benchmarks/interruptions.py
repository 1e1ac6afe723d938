"""Tiny runs that are killed eight times each, at random moments, end in the weights and losses of undisturbed ones.

    python benchmarks/interruptions.py [--quick] [--kills 8] [--steps 44]

For one and two processes and ZeRO stages 1 and 3. The runs are of tiny's models and batches of 4, which
`snakemake results/tiny/corpora/code/bs4/batches.parquet results/tiny/resources/models/tiny-4m --configfile
config/tiny.yaml` makes; adapters or whole models by turns. A kill is SIGKILL to all processes of a run, as a
machine's failure ends them: between steps, in a step or while they save. tests/training/test_training.py has a sample of this.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from record import save, show

from revela.study.cell import Cell
from revela.study.study import load

ROOT = Path(__file__).parents[1]
CELL = "revela/code/tiny-4m/tiny-4m/bs4"
LORA = {"rank": 16, "alpha": 16, "dropout": 0.1}


def write_job(folder: Path, stage: int, lora: dict | None, steps: int) -> Path:
    """The job of tiny's cell, cut short, with frequent checkpoints."""
    study = load(ROOT / "config/tiny.yaml")
    settings = study.training_settings(Cell.parse(CELL)).model_dump(mode="json")
    settings |= {"zero_stage": stage, "lora": lora, "max_steps": steps, "batches_per_step": 2}
    model, data = (str(ROOT / path) for path in (study.layout.model("tiny-4m"), study.layout.batches("code", 4)))
    job = {"cell": CELL, "training": settings, "checkpoint_every": 3, "retriever": model, "lm": model, "data": data}
    job |= {"output": str(folder / "output"), "checkpoints": str(folder / "checkpoints")}
    folder.mkdir()
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return path


def start(job: Path, processes: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "revela.training.launch", str(job), "--processes", str(processes)]
    with open(job.with_name("messages"), "a") as messages:
        return subprocess.Popen(command, cwd=ROOT, stdout=messages, stderr=messages)


def finish(job: Path, processes: int) -> None:
    if status := start(job, processes).wait():
        sys.exit(f"exit status {status}:\n{job.with_name('messages').read_text()[-2000:]}")


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def kill(job: Path, processes: int, moments: random.Random) -> int | None:
    """Starts the run and kills it some steps, and a part of one, later. The step it was in; None if it was through."""
    log = job.parent / "checkpoints/log.jsonl"
    log.unlink(missing_ok=True)  # it is written anew from the checkpoint
    run = start(job, processes)
    steps, rest = moments.randint(0, 5), moments.random()
    first = None
    while run.poll() is None:
        done = lines(log)
        if first is None and log.exists():
            first = done
        if first is not None and done - first >= steps:
            time.sleep(rest)
            break
        time.sleep(0.02)
    if run.poll() is not None:
        return None
    run.send_signal(signal.SIGSTOP)  # so that it does nothing about the end of the others
    others = psutil.Process(run.pid).children(recursive=True)
    for process in others:
        process.kill()
    run.kill()
    run.wait()
    psutil.wait_procs(others, timeout=60)
    return lines(log)


def result(job: Path) -> tuple[dict[str, str], list[float]]:
    """SHA-256 of each file of weights, and the losses."""
    output = job.parent / "output"
    files = sorted(output.rglob("*.safetensors"))
    hashes = {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    losses = [json.loads(line)["loss"] for line in (output / "log.jsonl").read_text().splitlines()]
    return hashes, losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two kills of one kind of run")
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--steps", type=int, default=44)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="kinds of runs (default: 1 2)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    kinds = [(1, 1, LORA), (1, 3, None), (2, 1, None), (2, 3, LORA)]
    kinds = kinds[:1] if options.quick else [kind for kind in kinds if kind[0] in options.processes]
    kills = 2 if options.quick else options.kills
    rows = []
    for processes, stage, lora in kinds:
        moments = random.Random(f"{options.seed} {processes} {stage}")
        with tempfile.TemporaryDirectory() as folder:
            undisturbed, job = (write_job(Path(folder) / name, stage, lora, options.steps) for name in ("a", "b"))
            finish(undisturbed, processes)
            at: list[int] = []
            while len(at) < kills and (step := kill(job, processes, moments)) is not None:
                at.append(step)
            if len(at) == kills:
                finish(job, processes)
            (weights, losses), (expected, expected_losses) = result(job), result(undisturbed)
        row = {"processes": processes, "stage": stage, "adapters": lora is not None}
        row |= {"killed after steps": " ".join(map(str, at))}
        row |= {"same weights": weights == expected, "same losses": losses == expected_losses}
        rows.append(row)
        print(row, flush=True)
    show(rows)
    save("interruptions", {"steps": options.steps, "kills": kills, "cell": CELL}, rows)
    if not all(row["same weights"] and row["same losses"] for row in rows):
        sys.exit("a run that was killed ended differently")


if __name__ == "__main__":
    main()
