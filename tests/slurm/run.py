"""The workflow on the cluster, and what a cluster does to it."""

import os
import signal
import subprocess
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TEXTS, make_backbone

R = "results/small"
CELL = "revela/code/random/random/bs4"
SMALL = ("--configfile", "tests/small/config.yaml")
QUICK = ("--slurm-init-seconds-before-status-checks=1", "--latency-wait=5")  # the file system is local
# Jobs of seconds are asked after every second; the executor asks ever less often, up to three minutes.
IMPATIENT = """
import asyncio

import snakemake_executor_plugin_slurm as slurm

slurm.Executor.sleep = lambda self: asyncio.sleep(1)
"""


def write_inputs(checkout):
    """All that the training of a cell needs, made without the workflow."""
    make_backbone(checkout.folder / R / "resources/models/random", bos=True)
    batches = checkout.folder / R / "corpora/code/bs4/batches.parquet"
    batches.parent.mkdir(parents=True)
    texts = [[TEXTS[(row + chunk) % len(TEXTS)] for chunk in range(4)] for row in range(24)]
    rows = {"text": texts, "src": ["packages"] * 24, "document": [list("abcd")] * 24}
    pq.write_table(pa.table(rows), batches)


class Run:
    """`snakemake --profile slurm` at work on the cluster, and what can happen to it."""

    def __init__(self, cluster, checkout, *arguments):
        self.cluster, self.checkout = cluster, checkout
        snakefile = checkout.folder / "Snakefile"
        if IMPATIENT not in snakefile.read_text():
            snakefile.write_text(snakefile.read_text() + IMPATIENT)
        self.printed = checkout.folder / "printed.txt"
        command = checkout.command(*arguments, "--profile", "slurm", *QUICK)
        command = ["env", "--default-signal=INT", *command]  # in the background of a shell it would be ignored
        environment = dict(checkout.environment)
        environment.pop("HF_HUB_OFFLINE")  # jobs set it themselves
        with self.printed.open("a") as file:
            self.process = subprocess.Popen(
                cluster.inside(*command, folder=checkout.folder),
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()
        self.cluster.run("scancel", "--user=root", check=False)

    def wait(self, seconds=1800):
        """Its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds} s:\n{self.text}\n{self.cluster.run('squeue')}")

    def until(self, true, seconds=600):
        """Waits until something is true while the run goes on; returns it."""
        deadline = time.monotonic() + seconds
        while not (value := true()):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, f"{self.text}\n{self.cluster.run('squeue')}"
            time.sleep(0.1)
        return value

    @property
    def text(self):
        return self.printed.read_text()

    # --- jobs

    def jobs(self, rule="", states=("PENDING", "RUNNING")):
        """id -> facts of this run's jobs of a rule."""
        prefix = f"rule_{rule}"
        return {
            job: facts
            for job, facts in self.cluster.jobs().items()
            if facts["WorkDir"] == str(self.checkout.folder)
            and facts["Comment"].startswith(prefix)
            and facts["JobState"] in states
        }

    def workers(self, names=(b".snakemake/scripts/", b"revela.training.entry")):
        """id -> environment of the processes that do the work of this run's jobs."""
        return {
            process["id"]: process["environment"]
            for process in self.cluster.processes_inside()
            if process["folder"] == str(self.checkout.folder) and any(name in process["name"] for name in names)
        }

    def trainers(self):
        return self.workers((b"revela.training.entry",))

    def checkpoint(self, cell):
        """The newest checkpoint of a cell, as a number of steps."""
        folders = (self.checkout.folder / R / "checkpoints" / cell).glob("step-*")
        return max((int(folder.name.removeprefix("step-")) for folder in folders), default=0)

    def steps(self, cell):
        """Steps that a cell has done."""
        return len((self.checkout.folder / R / "checkpoints" / cell / "log.jsonl").read_text().splitlines())

    # --- what happens

    def kill(self):
        """kill -9 of Snakemake, not of its jobs."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def interrupt(self):
        """Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill_work(self):
        """kill -9 of what jobs run."""
        for process in self.workers():
            os.kill(process, signal.SIGKILL)

    def cancel(self):
        """scancel of whatever runs."""
        for job in self.jobs(states=("RUNNING",)):
            self.cluster.run("scancel", job, check=False)

    def requeue(self):
        """The scheduler takes a job from its node and lets it wait again."""
        for job in self.jobs(states=("RUNNING",)):
            self.cluster.run("scontrol", "requeue", job, check=False)

    def preempt(self):
        """A job of a partition with precedence takes the whole node for a moment."""
        urgent = ("sbatch", "--parsable", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
        self.cluster.run(*urgent)

    def lose_node(self):
        """The node goes down with all that runs on it, and comes back."""
        self.cluster.lose_node()

    def time_limit(self):
        """One minute, the shortest there is, which a training that hangs runs into."""
        for job in self.jobs(states=("RUNNING",)):
            self.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=1")
        for process in self.trainers():
            os.kill(process, signal.SIGSTOP)
        self.until(lambda: self.jobs(states=("TIMEOUT",)))

    def restart_node(self):
        """slurmd is killed and started again before SLURM misses it."""
        self.cluster.stop("slurmd", signal.SIGKILL)
        self.cluster.start_node()

    def restart_controller(self, seconds=0):
        """slurmctld goes down while jobs run, and is started again.

        Not by SIGKILL: it would forget what was submitted in its last seconds, give the same number again, and drain
        the node on which the first job of that number runs. That is for an administrator to mend.
        """
        self.cluster.stop("slurmctld")
        time.sleep(seconds)
        self.cluster.start_controller()
