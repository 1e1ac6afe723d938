"""The account that is kept of each attempt at training a cell."""

import json
import os
import subprocess
import sys
import time

from revela.plan import usage


def test_attempts_add_up(tmp_path):
    for outcome in ("resubmit", "complete"):
        with usage.record(tmp_path, gpus=0, interval=0.01) as attempt:
            time.sleep(0.05)
            attempt["outcome"] = outcome
    records = usage.attempts(tmp_path)
    assert [record["outcome"] for record in records] == ["resubmit", "complete"]
    assert all(record["seconds"] >= 0 and record["utilisation"] is None for record in records)
    assert usage.total(tmp_path)["attempts"] == 2
    assert usage.total(tmp_path)["gpu_hours"] == 0


def test_a_cell_that_is_trained_again_has_a_new_account(tmp_path):
    for outcome in ("resubmit", "complete", "complete"):
        with usage.record(tmp_path, gpus=0) as attempt:
            attempt["outcome"] = outcome
    assert [record["outcome"] for record in usage.attempts(tmp_path)] == ["complete"]


def test_the_time_of_processes_that_were_started(tmp_path):
    """Not of one that was killed; by those of the other attempt."""
    code = "import time\nwhile time.process_time() < 0.3: pass"
    with usage.record(tmp_path, gpus=0):
        subprocess.run([sys.executable, "-c", code], check=True)
    (record,) = usage.attempts(tmp_path)
    assert 0.3 <= record["cpu_seconds"] < 1.5
    killed = record | {"seconds": 3 * record["seconds"], "cpu_seconds": None}
    (tmp_path / "001.json").write_text(json.dumps(killed))
    assert abs(usage.total(tmp_path)["cpu_seconds"] - 4 * record["cpu_seconds"]) < 0.2


def test_no_record():
    assert usage.total("nowhere") is None


def test_an_error_is_no_completion(tmp_path):
    try:
        with usage.record(tmp_path, gpus=0):
            raise OSError("disk full")
    except OSError:
        pass
    assert usage.attempts(tmp_path)[0]["outcome"] == "running"


def test_of_a_killed_attempt_the_last_interval_is_missing(tmp_path):
    code = """
import os, sys, time
from revela.plan.usage import record
with record(sys.argv[1], gpus=0, interval=0.05):
    time.sleep(0.4)
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=os.environ, check=False)
    (record,) = usage.attempts(tmp_path)
    assert record["outcome"] == "running" and record["seconds"] >= 0.1


def test_gpus_are_weighted_by_time(tmp_path, monkeypatch):
    """Two GPUs, sampled by gauges that stand in for NVML's."""
    monkeypatch.setattr(usage, "_gauges", lambda: [lambda: (0.5, 30.0), lambda: (0.9, 40.0)])
    with usage.record(tmp_path, gpus=2) as attempt:
        attempt["outcome"] = "complete"
        time.sleep(0.2)  # seconds are kept to a tenth
    total = usage.total(tmp_path)
    assert total["utilisation"] == 0.7 and total["peak_memory_gb"] == 40.0


def test_nvml(tmp_path, monkeypatch):
    """The calls to NVML, by a module in its place: devices by number and by UUID, in the job's order."""

    class Rates:
        gpu = 80

    class Memory:
        used = 2**31

    asked = []

    class pynvml:
        NVMLError = OSError
        nvmlInit = staticmethod(lambda: None)
        nvmlDeviceGetCount = staticmethod(lambda: 4)
        nvmlDeviceGetHandleByIndex = staticmethod(lambda index: asked.append(index))
        nvmlDeviceGetHandleByUUID = staticmethod(lambda uuid: asked.append(uuid))
        nvmlDeviceGetUtilizationRates = staticmethod(lambda handle: Rates)
        nvmlDeviceGetMemoryInfo = staticmethod(lambda handle: Memory)

    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5f")
    assert [gauge() for gauge in usage._gauges()] == [(0.8, 2.0), (0.8, 2.0)]
    assert asked == [2, "GPU-5f"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert len(usage._gauges()) == 4

    def lost(handle):
        raise pynvml.NVMLError("GPU is lost")

    pynvml.nvmlDeviceGetMemoryInfo = lost
    with usage.record(tmp_path, gpus=4) as attempt:
        attempt["outcome"] = "complete"
    assert usage.total(tmp_path)["utilisation"] is None
    pynvml.nvmlDeviceGetCount = lambda: lost(None)
    assert usage._gauges() == []


def test_without_nvml_nothing_is_sampled(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert usage._gauges() == []
    assert "GPUs are not sampled" in capsys.readouterr().out
