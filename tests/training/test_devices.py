"""GPUs of a machine without a scheduler: each belongs to one job at a time."""

import os
import subprocess
import sys

import pytest
import torch

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


@pytest.mark.parametrize("named, expected", [("0, 1", ["0", "1"]), ("-1", []), ("2,-1,3", ["2"]), ("", [])])
def test_which_are_visible(monkeypatch, named, expected):
    """As CUDA reads it: what follows a device that is none is hidden."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert devices.visible() == expected


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


# --- what torch makes of them

VERSION = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023
GCC version:  gcc version 11.4.0
"""
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
OLD = "The NVIDIA driver on your system is too old (found version 12020).\nPlease update your GPU driver."


@pytest.fixture
def torch_of(monkeypatch, tmp_path):
    """Puts a torch in place: its build, the GPUs that it sees, the error of using one, and the driver's file."""

    def put(cuda, count=4, error=None, driver=VERSION):
        used = []

        def ones(_, *, device):
            used.append(device)
            if error:
                raise error
            return torch.zeros(1)

        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch, "ones", ones)
        (tmp_path / "version").write_text(driver)
        monkeypatch.setattr(devices, "DRIVER", tmp_path / ("version" if driver else "none"))
        return used

    return put


def refusal(match):
    with pytest.raises(devices.DeviceError, match=match) as error:
        devices.check()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_each_gpu_is_used_once(torch_of):
    used = torch_of("13.0")
    devices.check()
    assert used == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    devices.check([2])
    assert used[4:] == ["cuda:2"]


@pytest.mark.parametrize("named", ["", None])
def test_a_job_without_gpus_may_run_on_a_cpu(torch_of, monkeypatch, named):
    used = torch_of(None)
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    devices.check()
    assert used == []


def test_a_build_of_torch_without_cuda(torch_of):
    torch_of(None)
    message = refusal(r"has 4 GPUs, but torch \S+ is a build without CUDA; the driver is 535\.129\.03: install")
    assert "scoring_gpus to 0" in message
    torch_of(None, driver="")
    refusal("no NVIDIA driver is loaded")


def test_a_driver_that_is_too_old(torch_of):
    torch_of("13.0", count=0, error=RuntimeError(OLD))
    refusal(
        r"\(0,1,GPU-2,3\), but torch \S+ cannot use them \(The NVIDIA driver .* \(found version 12020\)\): it is built "
        r"for CUDA 13\.0, which needs driver 580 or newer; the driver is 535\.129\.03: update the driver, or install"
    )


def test_fewer_gpus_than_were_claimed(torch_of):
    torch_of("13.0", count=3, driver=OPEN)
    refusal(r"cannot use them \(it sees 3\).*the driver is 580\.65\.06")


def test_a_training_process_ends_with_the_line(tmp_path):
    """In a process of its own, whose torch cannot use the GPU that it was given."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "99", "LOCAL_RANK": "0"}
    command = [sys.executable, "-m", "revela.training.entry", str(tmp_path / "no.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "error: this job has 1 GPUs" in done.stderr
    assert "Traceback" not in done.stderr
