"""What every job does around its work: how it ended is told as data."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from revela.plan import available
from revela.study import reason

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"
SCRIPT = """
import os, signal, sys, time
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
from job import job
from revela.errors import RevelaError
with job(SimpleNamespace(log=["x.log"], resources={}, input=[])):
    exec(sys.argv[2])
"""
KILLED = "killed by SIGKILL, as the kernel does where memory runs out: free some, or have the job use less"


@pytest.mark.parametrize(
    "work, status, said",
    [
        ("pass", 0, None),
        ("sys.exit(0)", 0, None),
        ("raise RevelaError('a.txt: not\\n text')", 1, "a.txt: not text"),
        ("open('nowhere')", 1, "[Errno 2] No such file or directory: 'nowhere'"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("sys.exit(75)", 75, "ended with status 75"),
        ("sys.exit(-9)", 247, KILLED),  # as the training's launcher ended
        ("os.kill(os.getpid(), signal.SIGTERM)", -15, "ended by SIGTERM"),
    ],
)
def test_a_job_says_how_it_ended(tmp_path, work, status, said):
    command = [sys.executable, "-c", SCRIPT, str(SCRIPTS), work]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == status
    assert reason.read(tmp_path / "x.reason.json") == said
    assert (tmp_path / "x.reason.json").exists() == (said is not None)


BLOCK = "block = bytearray(200 * 2**20); os.kill(os.getpid(), signal.SIGKILL)"


def test_a_job_that_was_killed_has_its_peak_told(tmp_path):
    """As the kernel kills what has taken too much: the process can say nothing, the one that waits for it does."""
    command = [sys.executable, "-c", SCRIPT, str(SCRIPTS), BLOCK]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == -9
    said = reason.read(tmp_path / "x.reason.json")
    found = re.fullmatch(
        r"killed, most likely for want of memory: peak (\S+) of (\S+) GiB in one process; try .+", said
    )
    assert 0.2 <= float(found[1]) < 0.4 and float(found[2]) == pytest.approx(available.most() / 2**30, abs=0.1)


def test_a_job_whose_waiting_process_is_killed_as_well_is_missed(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(SCRIPTS), "os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == -9
    deadline = time.monotonic() + 20  # the job gets SIGTERM then, and ends
    while not (said := reason.read(tmp_path / "x.reason.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert said in (KILLED, "ended by SIGTERM")


def test_a_job_tells_those_who_wait(tmp_path):
    log = tmp_path / "x.log"
    reason.note(log, "before it has begun")
    assert reason.noted(log) is None and not reason.reason_file(log).exists()
    reason.begin(log)
    reason.note(tmp_path / "x.json", "memory: enough")
    assert reason.noted(log) == "memory: enough" and reason.read(reason.reason_file(log)) is None


def test_the_reasons_of_a_run(tmp_path):
    """The last one first, and none from before."""
    for number, name in enumerate(["old", "train/a", "run/b"]):
        log = tmp_path / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        reason.give(log, f"because of {name}")
        os.utime(reason.reason_file(log), (number, number))
    assert list(reason.given(f"{tmp_path}/**/*.log", 1)) == [
        f"because of {name} (log: {tmp_path}/{name}.log)" for name in ("run/b", "train/a")
    ]


def test_what_a_process_of_the_job_has_said_stands(tmp_path):
    reason.begin(tmp_path / "x.log")
    reason.give(tmp_path / "x.json", "its time is up")
    reason.give(tmp_path / "x.log", reason.ended(75), unless_given=True)
    assert reason.read(tmp_path / "x.reason.json") == "its time is up"
    reason.done(tmp_path / "x.log")
    assert reason.read(tmp_path / "x.reason.json") is None
