"""Memory of real runs under real limits: what was decided, what was held, and what was left undone."""

import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from conftest import TEXTS

from revela.plan import memory
from revela.plan.flops import Shape
from revela.study.settings import Training
from revela.training.fitting import largest
from revela.training.job import Job

TINY = Path(__file__).parents[2] / "resources/backbones/tiny-4m"
SHAPE = Shape.from_config(json.loads((TINY / "config.json").read_text()))
B = 16
SETTINGS = Training(
    temperature=0.05,
    learning_rate=1e-3,
    warmup_steps=1,
    batches_per_step=1,
    max_steps=2,
    precision="fp32",
    zero_stage=0,
)
PLAIN, SPARED = (
    memory.peak(SETTINGS, [SHAPE, SHAPE], B, 1, checkpointing=way, gpu=False) / 2**30 for way in (False, True)
)
RESERVED = 2.5  # GiB of addresses, about, that a process takes without memory behind them: code, and space for threads
ENTRY = """
import sys
from revela.training.entry import main
status = main(sys.argv[1:])
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
sys.exit(status)
"""


def write(folder, words=170):
    """The job of a run of two steps, whose chunks are longer than the models read, if they have so many words."""
    rng, text = random.Random(0), " ".join(TEXTS).split()
    rows = [{"src": "x", "text": [" ".join(rng.choices(text, k=words)) for _ in range(B)]} for _ in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "batches.parquet")
    job = {
        "cell": f"revela/x/tiny-4m/tiny-4m/bs{B}",
        "training": SETTINGS.model_dump(mode="json"),
        "retriever": str(TINY),
        "lm": str(TINY),
        "data": str(folder / "batches.parquet"),
        "output": str(folder / "output"),
        "checkpoints": str(folder / "checkpoints"),
    }
    (folder / "job.json").write_text(json.dumps(job))
    return folder / "job.json"


def train(job, limit):
    """(exit status, what it said, GiB that it held at most) of a run in a process with so many GiB of addresses."""
    command = ("sh", "-c", f'ulimit -v {int(limit * 2**20)}; exec "$0" "$@"', sys.executable, "-c", ENTRY, str(job))
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=job.parent)
    return done.returncode, done.stderr, int(done.stdout or 0) / 2**20


def test_a_run_takes_what_was_estimated(tmp_path):
    """With and without gradient checkpointing, which changes no weight by a bit."""
    ways = {"off": (PLAIN, 1.2 * PLAIN + RESERVED), "on": (SPARED, (PLAIN + SPARED) / 2 + RESERVED)}
    weights = {}
    for way, (estimate, limit) in ways.items():
        folder = tmp_path / way
        folder.mkdir()
        status, said, held = train(write(folder), limit)
        assert status == 0, said
        line = re.search(r"^memory: .*", said, re.MULTILINE)[0]
        assert f"gradient checkpointing is {way}" in line and "ulimit -v" in line
        assert 0.75 * estimate < held < 1.25 * estimate
        parts = (folder / f"output/{part}/model.safetensors" for part in ("retriever", "lm"))
        weights[way] = [part.read_bytes() for part in parts]
        # How the machine did it is no part of the cell's settings.
        assert json.loads((folder / "output/settings.json").read_text()) == SETTINGS.model_dump(mode="json")
    assert weights["off"] == weights["on"]


def test_a_run_that_does_not_fit_is_refused_at_once(tmp_path):
    started = time.monotonic()
    status, said, _ = train(write(tmp_path), RESERVED)
    assert status == 1 and time.monotonic() - started < 60
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "training needs" in error and "all that and batch size 8" in error and "Traceback" not in said
    assert not list((tmp_path / "checkpoints").glob("*")) and not (tmp_path / "output").exists()


def test_the_largest_batch_is_counted(tmp_path):
    """By its tokens as they will be read: prefix and EOS included, cut at the limits, over chunks of the file."""
    job = Job.model_validate_json(write(tmp_path, words=20).read_text())
    rows = [{"text": ["one two"] * B}, {"text": ["one two three four"] * B}, {"text": ["one"] * B}]
    parts = [pa.Table.from_pylist(rows[:1]), pa.Table.from_pylist(rows[1:])]
    found = largest(job, pa.concat_tables(parts))
    assert found == largest(job, pa.Table.from_pylist(rows[1:2])) and found[0] > 2 * found[1] > 0
    assert largest(job, pa.Table.from_pylist([{"text": ["word " * 500] * B}])) == (2 * B * 157, B * 156)
    long, many = {"text": ["internationalisation"] * B}, {"text": ["a b c d e f g h"] * B}
    one, other = (largest(job, pa.Table.from_pylist([row])) for row in (long, many))
    assert largest(job, pa.Table.from_pylist([long, many])) == tuple(map(max, one, other))
    pairs = job.model_copy(update={"lm": None})
    row = {"query": "word " * 500, "passages": ["word " * 500] * B, "src": "x"}
    assert largest(pairs, pa.Table.from_pylist([row])) == ((1 + B) * 157, 0)
