"""What a run may take of a machine's memory, under made-up limits and under real ones."""

import resource
import subprocess
import sys

import pytest

from revela.plan import available

GB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes a machine of 64 GiB, of which 40 are free, and returns a function that adds memory groups to it."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    groups.mkdir()
    (proc / "meminfo").write_text(f"MemTotal: {64 * 2**20} kB\nMemAvailable:   {40 * 2**20} kB\n")
    (proc / "self/status").write_text(f"VmSize:\t{4 * 2**20} kB\nVmRSS:\t{2**20} kB\n")
    (proc / "self/cgroup").write_text("")
    (proc / "self/mountinfo").write_text("")
    monkeypatch.setattr(available, "PROC", proc)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)

    def place(version, own, root="/"):
        """The process is in the group `own`; the hierarchy's `root` is mounted."""
        kind, options = ("cgroup2", "rw") if version == 2 else ("cgroup", "rw,memory")
        (proc / "self/cgroup").write_text(f"{'0::' if version == 2 else '4:memory:'}{own}\n")
        (proc / "self/mountinfo").write_text(f"30 25 0:26 {root} {groups} rw,nosuid - {kind} {kind} {options}\n")

    def group(path, limit, used, cached=0, version=2):
        files = ("memory.max", "memory.current", "inactive_file")
        if version == 1:
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        folder = groups / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / files[0]).write_text(f"{limit}\n")
        (folder / files[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{files[2]} {cached}\n")

    return place, group


def test_what_is_free_is_shared_by_the_processes(machine):
    assert available.room().bytes == 40 * GB and available.most() == 64 * GB
    assert available.room(2, running=True).bytes == (20 + 1) * GB  # each holds one already
    assert str(available.room()) == "40.0 GiB (free of 64.0 GiB of this machine)"


@pytest.mark.parametrize("version", [1, 2])
def test_a_group_above_the_own_may_be_the_tightest(machine, version):
    place, group = machine
    place(version, "/slurm/job_7/step_0")
    group("slurm", 50 * GB, 20 * GB, version=version)
    group("slurm/job_7", 16 * GB, 10 * GB, 4 * GB, version=version)
    group("slurm/job_7/step_0", 9223372036854771712 if version == 1 else "max", GB, version=version)
    room = available.room()
    assert room.bytes == 10 * GB and "limit of 16.0 GiB" in room.where and room.where.endswith("slurm/job_7")
    assert available.most() == 16 * GB


@pytest.mark.parametrize("own", ["/", "/docker/abc", "/../elsewhere"])
def test_a_container_sees_its_own_group_as_the_topmost(machine, own):
    place, group = machine
    place(2, own, root="/docker/abc" if own == "/docker/abc" else "/")
    group(".", 8 * GB, 2 * GB)
    assert available.room().bytes == 6 * GB


def test_slurm_without_enforcement(machine, monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "8192")
    assert available.room(2, running=True).bytes == 4 * GB
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")  # the whole node
    assert available.room().bytes == 40 * GB
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1024")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert available.room().bytes == 6 * GB and "SLURM" in available.room().where


def test_ulimit_is_of_each_process(machine, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (6 * GB, 6 * GB))
    assert available.room(4).bytes == 6 * GB - available.ADDRESSES and "ulimit -v of 6.0 GiB" in available.room(4).where
    assert available.room(running=True).bytes == 3 * GB - available.RESERVED  # 3 of its 4 GiB of addresses hold nothing


def test_a_real_limit_is_seen():
    ask = "from revela.plan.available import room; print(room(running=True).bytes)"
    limit = ("sh", "-c", 'ulimit -v 4000000; exec "$0" "$@"', sys.executable, "-c", ask)
    found = float(subprocess.run(limit, capture_output=True, text=True, check=True).stdout)
    assert 0.5 < (found + available.RESERVED) / 4096e6 < 1
    assert available.room().bytes <= available.most()
