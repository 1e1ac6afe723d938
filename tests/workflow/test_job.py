"""What every job does around its work: how it ended is told as data."""

import subprocess
import sys
from pathlib import Path

import pytest

from revela.study import reason

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"
SCRIPT = """
import os, signal, sys
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
        ("os.kill(os.getpid(), signal.SIGKILL)", -9, KILLED),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15, "ended by SIGTERM"),
    ],
)
def test_a_job_says_how_it_ended(tmp_path, work, status, said):
    command = [sys.executable, "-c", SCRIPT, str(SCRIPTS), work]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == status
    assert reason.read(tmp_path / "x.reason.json") == said
    assert (tmp_path / "x.reason.json").exists() == (said is not None)


def test_what_a_process_of_the_job_has_said_stands(tmp_path):
    reason.begin(tmp_path / "x.log")
    reason.give(tmp_path / "x.json", "its time is up")
    reason.give(tmp_path / "x.log", reason.ended(75), unless_given=True)
    assert reason.read(tmp_path / "x.reason.json") == "its time is up"
    reason.done(tmp_path / "x.log")
    assert reason.read(tmp_path / "x.reason.json") is None
