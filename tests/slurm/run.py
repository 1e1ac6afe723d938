"""The workflow on the cluster, and what a cluster does to it."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SMALL = ("--configfile", "tests/small/config.yaml")
# There is no accounting database, jobs of seconds are asked after often, and the file system is local.
QUICK = ("--slurm-status-command=squeue", "--slurm-init-seconds-before-status-checks=1", "--latency-wait=5")


class Run:
    """`snakemake --profile slurm` at work on the cluster, and what can happen to it."""

    def __init__(self, cluster, checkout, *arguments, **environment):
        self.cluster, self.checkout = cluster, checkout
        self.printed = checkout.folder / "printed.txt"
        command = checkout.command(*arguments, "--profile", "slurm", *QUICK)
        with self.printed.open("a") as file:
            self.process = subprocess.Popen(
                cluster.inside(*command, folder=checkout.folder),
                env=checkout.environment | environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.cluster.run("scancel", "--user=root", check=False)

    def wait(self, seconds=1800):
        """Its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds} s:\n{self.text}\n{self.cluster.run('squeue')}")

    def until(self, true, seconds=1800):
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

    def trainers(self):
        """Ids of the training processes in this checkout."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command, folder = (process / "cmdline").read_bytes(), os.readlink(process / "cwd")
            except OSError:
                continue
            if b"revela.training" in command and folder == str(self.checkout.folder):
                found.append(int(process.name))
        return found

    def checkpoint(self, cell):
        """The newest checkpoint of a cell, as a number of steps."""
        folders = (self.checkout.folder / "results/small/checkpoints" / cell).glob("step-*")
        return max((int(folder.name.removeprefix("step-")) for folder in folders), default=0)

    # --- what a cluster does

    def kill_trainer(self):
        """kill -9."""
        for process in self.trainers():
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
        """slurmd is killed; SLURM gives the node up, and gets it back later."""
        self.cluster.stop("slurmd", signal.SIGKILL)
        self.cluster.wait_for_state("down")
        self.cluster.start_node()

    def restart_node(self):
        """slurmd is killed and started again before SLURM misses it."""
        self.cluster.stop("slurmd", signal.SIGKILL)
        self.cluster.start_node()

    def restart_controller(self):
        """slurmctld is killed and started again while jobs run."""
        self.cluster.stop("slurmctld", signal.SIGKILL)
        self.cluster.start_controller()
