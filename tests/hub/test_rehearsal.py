"""A slice of the paper's plan in miniature, from the imitation of the hub to tables: the whole is `make rehearse`."""

import csv
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from checkout import ROOT, Checkout
from hub import build
from rehearse import HERE, environment, prepare

TABLES = ("table18",)  # a trained cell and its language model
# ten tasks, adapters, encoders, BM25; eleven cells, of which each trains for half a minute
MORE = ("released1", "table1", "table7")
FIGURE = "results/figures/figure6.pdf"
RUN = "results/runs/unixcoder/coir/apps.run.gz"


def files(tables):
    return [f"results/tables/{name}.csv" for name in tables]


def rehearse(folder, *arguments):
    command = [sys.executable, HERE / "rehearse.py", "--folder", folder, "--cores", "2", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """The folder of a rehearsal of the slice."""
    folder = tmp_path_factory.mktemp("rehearsal")
    done = rehearse(folder, *files(TABLES), FIGURE, RUN)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return folder


def columns(folder, table):
    """label -> the values of a column."""
    with (folder / f"checkout/results/tables/{table}.csv").open() as file:
        rows = list(csv.reader(file))
    return {name: [row[number] for row in rows[1:]] for number, name in enumerate(rows[0]) if number}


@pytest.mark.by_hand
def test_the_large_tables(rehearsed):
    done = rehearse(rehearsed, *files(MORE))
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    for table in MORE:
        test_every_column_has_its_values(rehearsed, table)


@pytest.mark.parametrize("table", TABLES)
def test_every_column_has_its_values(rehearsed, table):
    found = columns(rehearsed, table)
    assert found
    for label, values in found.items():
        assert all(values), (table, label, values)
        assert all(0 <= float(value) <= 100 for value in values), (table, label, values)


def test_the_figure_is_drawn(rehearsed):
    assert (rehearsed / "checkout" / FIGURE).read_bytes().startswith(b"%PDF")


def test_a_fork_ranks_as_a_fresh_interpreter(rehearsed):
    path = rehearsed / "checkout" / RUN
    forked = path.read_bytes()
    path.unlink()
    done = rehearse(rehearsed, RUN, "--cold")
    assert done.returncode == 0, done.stderr[-3000:]
    assert path.read_bytes() == forked


@pytest.mark.by_hand
def test_killed_at_random_moments_it_ends_in_the_same_tables(rehearsed, tmp_path):
    """Everything that the rehearsal has started is killed twenty times."""
    command = [
        sys.executable,
        HERE / "rehearse.py",
        "--folder",
        tmp_path,
        "--cores",
        "2",
        *files(TABLES),
        FIGURE,
    ]
    moments, seen = random.Random(0), []
    for _ in range(20):
        with open(tmp_path / "printed", "w") as printed:
            run = subprocess.Popen(command, cwd=ROOT, stdout=printed, stderr=printed, start_new_session=True)
        while run.poll() is None and "Select jobs" not in (tmp_path / "printed").read_text():
            time.sleep(0.1)  # planning takes its time, and writes nothing
        try:
            run.wait(moments.uniform(0, 30))
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        seen.append((tmp_path / "printed").read_text().count("Finished jobid"))
        time.sleep(0.5)
    print("\njobs finished before each kill:", seen)
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    for name in TABLES:
        assert columns(tmp_path, name) == columns(rehearsed, name), name


@pytest.mark.by_hand
def test_the_same_under_slurm(rehearsed, tmp_path):
    """On the one node of tests/slurm, with the imitation of the hub inside its namespaces; from fetching to a table."""
    sys.path.append(str(ROOT / "tests/slurm"))
    from cluster import Cluster, why_not
    from run import Run

    if reason := why_not():
        pytest.skip(reason)
    build(tmp_path / "hub")
    checkout = Rehearsed(tmp_path)
    with Cluster(tmp_path / "cluster") as cluster:
        serving = cluster.inside(sys.executable, HERE / "hub.py", tmp_path / "hub", PORT)
        hub = subprocess.Popen(serving, cwd=ROOT)
        try:
            with Run(cluster, checkout, *SLURM_SLICE) as run:
                assert run.wait() == 0, run.text[-6000:]
                print("\njobs of SLURM:", len(run.jobs(states=("COMPLETED",))))
        finally:
            hub.kill()
    for name in SLURM_SLICE:
        assert (checkout.folder / name).read_bytes() == (rehearsed / "checkout" / name).read_bytes(), name


PORT = "8017"  # of a network that nobody else is in
SLURM_SLICE = ["results/tables/table18.csv"]


class Rehearsed(Checkout):
    """The checkout of a rehearsal, as `Run` starts Snakemake in it."""

    def __init__(self, folder):
        self.base, self.folder = folder, prepare(folder)

    @property
    def environment(self):
        return environment(self.base, f"http://127.0.0.1:{PORT}") | {"HF_HUB_OFFLINE": "0", "COLUMNS": "200"}
