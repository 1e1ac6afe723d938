"""Peaks of memory of training runs on a CPU against the estimate that decides about them (`revela.plan.memory`).

    python benchmarks/training_memory.py [--quick] [--backbones FOLDER ...] [--tokens 32 64]

Runs of two steps in fresh processes, with gradient checkpointing and without: 16 chunks, all of them as long as the
settings let them be. A narrow backbone is trained as `config/tiny.yaml` says, a wide one as `config/demo.yaml` does, which
freezes the language model, and with adapters on both models. The default backbone comes with the project; what is
stored was measured on SmolLM2-135M as well, of 30 layers. A wide one runs in the precision that the machine is fast in;
what was stored of the other is kept.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from record import merged, save, show

from revela.command.own_study import DEMO, NARROW, TINY
from revela.plan.fit import GB, Load
from revela.plan.flops import read_shape
from revela.root import root
from revela.study.base import read_yaml
from revela.study.settings import Training
from revela.training import launch
from revela.training.job import Job

B = 16
PREFIX = 5  # tokens of a prefix and EOS, at most
WORDS = ("the", "river", "runs", "past", "a", "mill", "that", "grinds", "corn")


def ways(backbone: Path) -> dict[str, dict]:
    """Settings of training by what is trained."""
    narrow = read_shape(backbone / "config.json").hidden < NARROW
    found = read_yaml(root() / (TINY if narrow else DEMO))["training"] | {"max_steps": 2}
    if narrow:
        return {"all weights": found}
    adapters = found["lora"] | {"dropout": 0.1}
    return {"retriever's adapters": found, "adapters of both": found | {"freeze_lm": False, "lora": adapters}}


def measure(settings: Training, backbone: Path, checkpointing: bool, threads: int) -> dict:
    """The peak of a fresh process, beside the estimate."""
    load = Load(settings, [read_shape(backbone / "config.json")] * 2, B, 1, gpu=False, least_batch=2)
    rng = random.Random(0)
    rows = [
        {"src": "x", "text": [" ".join(rng.choices(WORDS, k=2 * settings.lm_max_length)) for _ in range(B)]}
        for _ in range(2)
    ]
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            cell=f"revela/x/a/a/bs{B}",
            training=settings,
            gradient_checkpointing=checkpointing,
            retriever=backbone.resolve(),
            lm=backbone.resolve(),
            data=Path(folder, "batches.parquet"),
            output=Path(folder, "output"),
            checkpoints=Path(folder, "checkpoints"),
        )
        pq.write_table(pa.Table.from_pylist(rows), job.data)
        Path(folder, "job.json").write_text(job.model_dump_json())
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        launch.settle(environment)
        command = [sys.executable, __file__, "--job", f"{folder}/job.json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    estimate, measured = load.need(checkpointing=checkpointing) / GB, int(done.stdout.split()[-1]) / 2**20
    return {
        "estimate_gb": round(estimate, 2),
        "measured_gb": round(measured, 2),
        "ratio": round(estimate / measured, 2),
    }


def take(job: str) -> int:
    """The run of a job, and KiB that its process held at most."""
    from revela.training.entry import main

    status = main([job])
    print(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])
    return status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one length; nothing is stored")
    parser.add_argument(
        "--backbones", type=Path, nargs="+", default=[root() / "resources/backbones/tiny-4m"], help="(default: tiny-4m)"
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 64], help="of a chunk (default: 32 64)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--job", help=argparse.SUPPRESS)  # in a fresh process: a run
    options = parser.parse_args()
    if options.job:
        sys.exit(take(options.job))
    rows = []
    for backbone in options.backbones:
        for trained, section in ways(backbone).items():
            for tokens in options.tokens[: 1 if options.quick else None]:
                lengths = {"lm_max_length": tokens, "retriever_max_length": tokens + PREFIX}
                settings = Training(**section | lengths)
                for checkpointing in (False, True):
                    about = {"backbone": backbone.name, "trained": trained, "precision": settings.precision}
                    about |= {"tokens": tokens, "checkpointing": checkpointing}
                    rows.append(about | measure(settings, backbone, checkpointing, options.threads))
                    print(rows[-1], flush=True)
    show(rows)
    if not options.quick:
        rows = merged("training_memory", rows, "backbone", "trained", "precision", "tokens", "checkpointing")
        save("training_memory", {"batch": B, "steps": 2, "threads": options.threads}, rows)


if __name__ == "__main__":
    main()
