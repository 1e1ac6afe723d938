"""Which settings let a pretrained backbone learn fastest: steps until Sim finds the chunks of the same document.

    python benchmarks/gate.py [--workers N] [--only WORDS]

The demo's cell (SmolLM2-135M as retriever and language model, 64 batches of 16 chunks) is trained for its first 40
batches, once for each of `RUNS` and seed, with one thread. `batches` and `seconds` count until the mean of `same_document`
over five batches has passed one half, where a uniform Sim has a fifth; both are empty where it never does. The seconds are
the CPU's, of the steps alone. `at the end` is the mean of the last five batches. What was stored of other runs is kept, so a
run of the whole benchmark can be stopped and started again. Text and model come from `make demo`'s packages.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean

from learning_curve import prepare, start
from record import machine, save, settle, show, stored

STEPS, WINDOW, HALF = 40, 5, 0.5
# How the demo's settings are changed: a gate of 0.1, LM frozen, tau 0.05, learning rate 1e-3, no V-normalisation.
RUNS = {
    "as the demo": {},
    "gate 1": {"cross_attention": {"gate": 1.0}},
    "LM trained": {"freeze_lm": False},
    "gate 1, LM trained": {"cross_attention": {"gate": 1.0}, "freeze_lm": False},
    "gate 0.03": {"cross_attention": {"gate": 0.03}},
    "gate 0.3": {"cross_attention": {"gate": 0.3}},
    "gate 0.1 to 1 in 40 steps": {"cross_attention": {"gate": 1.0, "ramp": {"start": 0.1, "steps": 40}}},
    "gate learned for each layer from 0.1": {"cross_attention": {"gate": 0.1, "learned": "layer"}},
    "tau 0.02": {"temperature": 0.02},
    "tau 0.1": {"temperature": 0.1},
    "learning rate 5e-4": {"learning_rate": 5e-4},
    "learning rate 2e-3": {"learning_rate": 2e-3},
    "V-normalisation": {"value_norm": True},
}
SEEDS = (42, 1, 2)


def measure(run: str, seed: int) -> None:
    """Trains one run, and prints its row."""
    from revela.training.loop import train

    _, settings, engine, rows = start(prepare(64), RUNS[run] | {"seed": seed})
    shares, spent, reached = [], 0.0, {}
    before = time.process_time()
    for step in train(engine, settings, rows, range(1, STEPS + 1)):
        spent += time.process_time() - before
        shares.append(step.means["same_document"])
        print(f"{run}, seed {seed}, batch {step.number}: {shares[-1]:.2f}", file=sys.stderr, flush=True)
        if not reached and len(shares) >= WINDOW and fmean(shares[-WINDOW:]) > HALF:
            reached = {"batches": step.number, "seconds": round(spent)}
        before = time.process_time()
    row = {"run": run, "seed": seed, "cpu": machine()["cpu"], "precision": settings.precision}
    row |= {"batches": None, "seconds": None} | reached
    row |= {"at the end": round(fmean(shares[-WINDOW:]), 3), "seconds a step": round(spent / STEPS, 2)}
    print(json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, of a thread each")
    parser.add_argument("--only", nargs="+", default=list(RUNS), choices=RUNS, help="these runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, choices=SEEDS)
    parser.add_argument("--measure", nargs=2, metavar=("RUN", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        settle()
        return measure(options.measure[0], int(options.measure[1]))
    prepare(64)
    rows = stored("gate")

    def one(run: str, seed: int) -> dict:
        command = [sys.executable, __file__, "--measure", run, str(seed)]
        made = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True)
        return json.loads(made.stdout.splitlines()[-1])

    waiting = [(run, seed) for seed in options.seeds for run in options.only]
    waiting = [pair for pair in waiting if pair not in {(row["run"], row["seed"]) for row in rows}]
    with ThreadPoolExecutor(options.workers) as pool:
        for row in pool.map(lambda pair: one(*pair), waiting):
            rows.append(row)
            rows.sort(key=lambda row: (list(RUNS).index(row["run"]), SEEDS.index(row["seed"])))
            save("gate", {"steps": STEPS, "window": WINDOW, "half": HALF, "workers": options.workers}, rows)
    show(rows)


if __name__ == "__main__":
    main()
