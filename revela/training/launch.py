"""Starts a training run with one process or several, and passes on how it ended.

    python -m revela.training.launch JOB.json --processes 4 --threads 16
    srun ... python -m revela.training.launch JOB.json --processes 8 --threads 16 --nodes 2 --meet HOST:PORT

One process runs by itself; several run under torchrun, whose own exit status is 1 whatever theirs was. The exit status
here is theirs (`revela.training.entry`): 0 complete, 75 submit again, anything else an error. Over several nodes this command
runs once on each; torchrun's rendezvous is on the node that is named first.

What the processes inherit is decided here: a shell may hold another launcher's variables, and those of its own run.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import re
import signal
import sys
from collections.abc import MutableMapping

from revela.study.reason import ended

RESUBMIT = 75
CUT_OFF = 76  # of a process that ends because it no longer hears from another
# Read when a process begins: torch puts its large blocks on a CPU on huge pages, and glibc the rest of what it hands out.
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# Of torchrun, of its options (PET_NNODES), of accelerate (which would have transformers load no weights), of Azure's and
# SageMaker's clusters, which DeepSpeed asks for.
OF_LAUNCHERS = re.compile(
    r"(LOCAL_|GROUP_|ROLE_|CROSS_)?(RANK|WORLD_SIZE)|(LOCAL|CROSS)_SIZE|ROLE_NAME|NODE_RANK|MASTER_(ADDR|PORT)"
    r"|(TORCHELASTIC|PET|ACCELERATE|FSDP|AZUREML|AZ_BATCH)_\w+|SM_TRAINING_ENV|DLTS_JOB_ID"
)
SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")  # how OpenMP's threads wait for others


def main(arguments: list[str]) -> int:
    """Runs the job and returns the exit status; does not return for one process."""
    parser = argparse.ArgumentParser(prog="python -m revela.training.launch", description=__doc__.split("\n")[0])
    parser.add_argument("job", help="JSON file of the job")
    parser.add_argument("--processes", type=int, default=1, help="processes on all nodes; one for each GPU")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of all processes of a node together")
    parser.add_argument("--nodes", type=int, default=1, help="nodes, each of which runs this command")
    parser.add_argument("--meet", metavar="HOST:PORT", help="where the nodes meet: a free port of one of them")
    options = parser.parse_args(arguments)
    clear(os.environ)
    here = options.processes // options.nodes
    threads = str(max(1, options.threads // here))
    os.environ |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}  # the second overrules the first
    settle(os.environ)
    end_with_parent(signal.SIGTERM)  # on which it saves
    if options.processes == 1:
        os.execv(sys.executable, [sys.executable, "-m", "revela.training.entry", options.job])
    # Processes that are told to stop end the step and save. The scheduler decides how long that may take.
    grace = f"--shutdown-timeout={24 * 3600}"
    meeting = ["--standalone"]
    if options.nodes > 1:
        meeting = [f"--nnodes={options.nodes}", "--rdzv_backend=c10d", f"--rdzv_endpoint={options.meet}"]
    return torchrun([*meeting, grace, f"--nproc_per_node={here}", "-m", "revela.training.entry", options.job])


def clear(environment: MutableMapping[str, str]) -> None:
    """Takes out what the launcher of another run has left, which would have processes wait for others for ever."""
    for name in [name for name in environment if OF_LAUNCHERS.fullmatch(name)]:
        del environment[name]


def settle(environment: MutableMapping[str, str]) -> None:
    """Memory and threads of a process that computes on a CPU, as far as the user has not decided."""
    for name, value in HUGE_PAGES.items():
        environment.setdefault(name, value)
    rest_between(environment)


def rest_between(environment: MutableMapping[str, str]) -> None:
    """Has OpenMP's threads sleep while they wait for each other, unless the user has said how they wait.

    Threads that spin keep the cores from the one that they wait for: beside one busy core, training on a CPU is more than
    20 times slower. Read when OpenMP is loaded, so to be called before torch is imported.
    """
    if not any(name in environment for name in SPINNING):
        environment["OMP_WAIT_POLICY"] = "passive"


def end_with_parent(number: signal.Signals) -> None:
    """Has this process get the signal when the one that started it has ended, in whatever way."""
    ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


def configure_malloc(chunks: int) -> None:
    """Has glibc return freed blocks of 8 MB and more to the system, for up to 16 chunks of a batch in this process.

    Blocks that it keeps leave gaps between activations, a quarter more memory than is in use. Blocks that it returns have
    to be cleared when they are wanted again. Most blocks of larger batches are so large that clearing them would take a
    quarter of the time, so none is returned there.
    """
    glibc = ctypes.CDLL(None)
    glibc.mallopt(-4, 65536 if chunks <= 16 else 0)  # M_MMAP_MAX
    glibc.mallopt(-3, 8 * 2**20)  # M_MMAP_THRESHOLD
    glibc.mallopt(-1, 256 * 2**20)  # M_TRIM_THRESHOLD


def torchrun(arguments: list[str]) -> int:
    """Runs the command of that name, and returns the exit status of the process that failed first.

    Processes whose connections to it broke have not failed of themselves. A process that was killed is told of here.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes explain themselves
    try:
        run.run(run.parse_args(arguments))
    except ChildFailedError as error:
        own = {rank: failure for rank, failure in error.failures.items() if failure.exitcode != CUT_OFF}
        if not own:
            print("error: a process on another node has ended, so those on this one stop", file=sys.stderr)
            return 1
        rank = min(own, key=lambda rank: own[rank].timestamp)
        status = own[rank].exitcode
        if status < 0:
            print(f"error: process {rank} of the run was {ended(status)}", file=sys.stderr)
            return 128 - status  # as a shell tells it
        return status
    except SignalException:  # the processes got the signal as well, and had the time to save
        return RESUBMIT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
