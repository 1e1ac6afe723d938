"""Training over two nodes of a real SLURM: two slurmd on this machine."""

import json

import numpy as np
import pytest
from checkout import Checkout
from cluster import started
from run import CELL, SMALL, R, Run, write_inputs


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    yield from started(tmp_path_factory, nodes=2)


def prepared(folder, *changes):
    """A checkout in which everything is there to train a cell, with changes of its configuration."""
    checkout = Checkout(folder)
    for change in changes:
        checkout.edit("tests/small/config.yaml", *change)
    write_inputs(checkout)
    return checkout


TWO_NODES = ("  training_processes: 1\n", "  training_nodes: 2\n  training_processes: 2\n")


def test_two_nodes_share_batches(cluster, tmp_path):
    """One task on each; the losses are those of one process."""
    shared = prepared(tmp_path / "two", TWO_NODES, ("  zero_stage: 0\n", "  zero_stage: 1\n  processes_per_batch: 2\n"))
    with Run(cluster, shared, f"{R}/models/{CELL}", *SMALL, "--retries", "0") as run:
        assert run.wait(300) == 0, run.text + "".join(p.read_text() for p in shared.folder.rglob("logs/train/**/*.log"))
        (job,) = run.jobs("train", ("COMPLETED",)).values()
    assert (job["NumNodes"], job["NumTasks"], job["NodeList"]) == ("2", "2", f"{cluster.host}-[0-1]")
    alone = prepared(tmp_path / "one")
    printed, status = alone.snakemake(f"{R}/models/{CELL}", *SMALL, "--cores", "1")
    assert status == 0, printed
    found, expected = (
        [json.loads(line)["loss"] for line in (checkout.folder / R / "models" / CELL / "log.jsonl").open()]
        for checkout in (shared, alone)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    manifest = json.loads((shared.folder / R / "models" / CELL / "manifest.json").read_text())
    assert manifest["processes"] == 2
