"""GPUs of a machine without a scheduler: each belongs to one job at a time."""

import os
import subprocess
import sys

import pytest

from revela.training import devices

HOLD = """
import sys, time
from pathlib import Path
from revela.training.devices import claim
print(*claim(2, Path(sys.argv[1])), flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def four_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,GPU-2,3")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(devices, "_held", [])


def test_jobs_side_by_side_use_different_gpus(tmp_path):
    assert devices.claim(1, tmp_path) == ["0"]
    assert devices.claim(2, tmp_path) == ["1", "GPU-2"]
    assert devices.claim(1, tmp_path) == ["3"]


def test_each_allocation_of_slurm_has_gpus_of_its_own(tmp_path, monkeypatch):
    """By the same numbers; jobs in one of them share it out."""
    for allocation in ("17", "18"):
        monkeypatch.setenv("SLURM_JOB_ID", allocation)
        assert devices.claim(3, tmp_path) == ["0", "1", "GPU-2"]
        assert devices.claim(1, tmp_path) == ["3"]


def test_other_users_find_the_locks_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    devices.claim(1, tmp_path / "locks")
    os.umask(before)
    assert (tmp_path / "locks").stat().st_mode & 0o777 == 0o777
    assert devices._held[0].mode == "r"  # another user's file may be read only


def test_a_killed_job_gives_its_gpus_back(tmp_path, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline().split() == ["0", "1"]
        assert devices.claim(2, tmp_path) == ["GPU-2", "3"]
        waits = []
        monkeypatch.setattr(devices.time, "sleep", lambda _: (waits.append(1), other.kill(), other.wait()))
        assert devices.claim(1, tmp_path) == ["0"]
        assert waits


def test_more_than_there_are(tmp_path, monkeypatch):
    with pytest.raises(devices.DeviceError, match="asks for 8 GPUs, and there are 4: add --resources gpu=4"):
        devices.claim(8, tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(devices.DeviceError, match="there are none"):
        devices.claim(1, tmp_path)
