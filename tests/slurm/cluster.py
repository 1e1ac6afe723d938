"""A SLURM of one node or more, real but for its GPUs: munged, slurmctld and slurmd of Debian's packages, started as root.

Each node, a slurmd on this machine, says that it has 64 CPUs, 512 GB and four A100s, which are device files, so that every scheduling decision is
SLURM's own. All of it lives in one folder, and in namespaces of its own: there the folder is /etc/slurm, and the network knows
nothing but itself, so no job reaches another machine, and no port is taken.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare", "nsenter")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=/etc/slurm/munge.socket,cred_expire=15
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.log
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,default_queue_depth=1000
SchedulerType=sched/backfill
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=2
SlurmdTimeout=6
SlurmctldTimeout=6
ReturnToService=2
MinJobAge=3600
GresTypes=gpu
SlurmdParameters=config_overrides
{nodes}
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=requeued Nodes=ALL MaxTime=INFINITE State=UP PreemptMode=REQUEUE PriorityTier=1
PartitionName=cancelled Nodes=ALL MaxTime=INFINITE State=UP PreemptMode=CANCEL PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PreemptMode=OFF PriorityTier=100
PartitionName=closed Nodes=ALL MaxTime=INFINITE State=DOWN
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=64 RealMemory=512000 Gres=gpu:a100:4 Feature=a100_80gb"

# The first process of the namespaces. Without iproute2: brings the loopback device up, with an address that glibc does not take for no network at all.
INIT = """
import fcntl, pathlib, signal, socket, struct, subprocess
subprocess.run(["mount", "--bind", ".", "/etc/slurm"], check=True)
def interface(name, request, value):
    fcntl.ioctl(socket.socket(), request, struct.pack("16s16s", name, value))
address = lambda text: struct.pack("H2x4s", socket.AF_INET, socket.inet_aton(text))
interface(b"lo", 0x8914, struct.pack("H", 0x41))  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING
interface(b"lo:1", 0x8916, address("10.0.0.1"))  # SIOCSIFADDR
pathlib.Path("init.up").touch()
signal.pause()
"""


def why_not() -> str | None:
    """Why no cluster can be started here; None if one can."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return f"{', '.join(missing)} not installed (apt-get install slurm-wlm munge util-linux)"
    if os.getuid() != 0:
        return "SLURM's daemons are started as root"
    if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False).returncode:
        return "no permission to make namespaces"
    return None


def started(tmp_path_factory, nodes=1):
    """Yields a cluster to the tests of a module, which are skipped where none can be started."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm") / "cluster", nodes) as cluster:
        yield cluster


class Cluster:
    """The daemons, and commands run beside them. To be used in a `with` block, which stops what it has started."""

    def __init__(self, folder, nodes=1):
        self.folder = Path(folder)
        self.host = socket.gethostname().split(".")[0]
        self.nodes = [self.host] if nodes == 1 else [f"{self.host}-{number}" for number in range(nodes)]
        self.processes = {}

    def __enter__(self):
        os.makedirs("/etc/slurm", exist_ok=True)  # covered in the cluster's own namespace
        for name in ("state", *(f"spool-{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True)
        os.chmod(self.folder, 0o755)
        nodes = [NODE.format(name=name, host=self.host, port=17001 + n) for n, name in enumerate(self.nodes)]
        conf = CONF.format(host=self.host, folder=self.folder, nodes="\n".join(nodes))
        (self.folder / "slurm.conf").write_text(conf)
        (self.folder / "gres.conf").write_text(f"Name=gpu Type=a100 File={self.folder}/gpu[0-3]\n")
        for gpu in range(4):
            os.mknod(self.folder / f"gpu{gpu}", 0o666 | 0o020000, os.makedev(1, 3))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        try:
            self._start("init", "unshare", "--net", "--mount", sys.executable, "-c", INIT, inside=False)
            self._wait((self.folder / "init.up").exists, "the namespaces")
            names = ("key-file", "pid-file", "log-file", "seed-file", "socket")
            files = [f"--{name}={self.folder}/munge.{name.split('-')[0]}" for name in names]
            self._start("munged", "munged", "--foreground", "--force", "--num-threads=2", *files)
            self._wait((self.folder / "munge.socket").exists, "munged")
            self.start_controller()
            self.start_node()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if "slurmctld" in self.processes:
            self.run("scancel", "--user=root", "--signal=KILL", check=False)
            self.run("scancel", "--user=root", check=False)
        for name in reversed(list(self.processes)):
            self.stop(name)

    # --- daemons

    def start_controller(self):
        self._start("slurmctld", "slurmctld", "-D")
        self._wait(lambda: "is UP" in self.run("scontrol", "ping", check=False), "slurmctld")

    def start_node(self):
        """All of them, if there are several."""
        for node in self.nodes:
            self._start("slurmd" if node == self.host else f"slurmd-{node}", "slurmd", "-D", "-N", node)
        self.wait_for_state("idle", "mixed", "allocated", "completing")

    def wait_for_state(self, *states):
        """Waits until the node is in one of these states."""
        self._wait(lambda: self._state() in states, f"the node to be {' or '.join(states)}")

    def stop(self, name, how=signal.SIGTERM):
        process = self.processes.pop(name)
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def lose_node(self):
        """The node goes down with all that runs on it, and comes back later."""
        self.stop("slurmd", signal.SIGKILL)
        for mark in (b"slurmstepd", b"SLURM_JOB_ID="):  # the first would report how its job ended
            for process in self.processes_inside():
                if mark in process["name"] or mark in process["environment"]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process["id"], signal.SIGKILL)
        self.wait_for_state("down")
        self.start_node()

    # --- commands

    def processes_inside(self):
        """Id, name, environment and folder of each process in the cluster's namespaces."""
        network, found = os.readlink(f"/proc/{self.processes['init'].pid}/ns/net"), []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(folder / "ns/net") == network:
                    name, environment = ((folder / kind).read_bytes() for kind in ("cmdline", "environ"))
                    cwd = os.readlink(folder / "cwd")
                    found.append({"id": int(folder.name), "name": name, "environment": environment, "folder": cwd})
        return found

    def inside(self, *command, folder=None):
        """A command line that runs in the cluster's namespaces, in a folder."""
        process = self.processes["init"].pid
        enter = ["nsenter", f"--net=/proc/{process}/ns/net", f"--mount=/proc/{process}/ns/mnt"]
        return [*enter, "sh", "-c", 'cd "$0" && exec "$@"', *map(str, (folder or self.folder, *command))]

    def run(self, *command, check=True):
        """What a command of SLURM's says."""
        done = subprocess.run(self.inside(*command), capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout

    def jobs(self):
        """id -> facts of every job that the controller remembers, by SLURM's own names for them."""
        shown = self.run("scontrol", "--oneliner", "show", "job")
        jobs = [dict(fact.split("=", 1) for fact in line.split() if "=" in fact) for line in shown.splitlines()]
        return {job["JobId"]: job for job in jobs if "JobId" in job}

    def wait_for_jobs(self):
        """Waits until all jobs have ended."""
        self._wait(lambda: not self.run("squeue", "--noheader"), "the end of all jobs")

    # --- helpers

    def _start(self, name, *command, inside=True):
        with open(self.folder / f"{name}.out", "ab") as out:
            self.processes[name] = subprocess.Popen(
                self.inside(*command) if inside else command,
                cwd=self.folder,
                stdout=out,
                stderr=out,
            )

    def _state(self):
        return self.run("sinfo", "-h", "-p", "batch", "-o", "%T", check=False).strip().rstrip("*$~#!%@^-")

    def _wait(self, ready, what, seconds=120):
        deadline = time.monotonic() + seconds
        while not ready():
            logs = "".join(path.read_text()[-2000:] for path in self.folder.glob("*.out"))
            assert time.monotonic() < deadline, f"waited in vain for {what}:\n{logs}"
            time.sleep(0.1)
