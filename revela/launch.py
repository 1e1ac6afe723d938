"""Starts a training run with one process or several, and passes on how it ended.

    python -m revela.launch JOB.json --processes 4 --threads 16

One process runs by itself; several run under torchrun, whose own exit status is 1 whatever theirs was. The exit status
here is that of `revela.training`: 0 complete, 75 submit again, anything else an error.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

RESUBMIT = 75
# glibc keeps freed memory of up to 32 MB for itself, where activations leave gaps: a third more than is in use on a CPU.
# What is larger than this goes back to the system.
MMAP_THRESHOLD = 2**21


def main(arguments: list[str]) -> int:
    """Runs the job and returns the exit status; does not return for one process."""
    parser = argparse.ArgumentParser(prog="python -m revela.launch", description=__doc__.split("\n")[0])
    parser.add_argument("job", help="JSON file of the job")
    parser.add_argument("--processes", type=int, default=1, help="processes; one for each GPU")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of all processes together")
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = str(max(1, options.threads // options.processes))
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(MMAP_THRESHOLD))
    if options.processes == 1:
        os.execv(sys.executable, [sys.executable, "-m", "revela.training", options.job])
    return torchrun(["--standalone", f"--nproc_per_node={options.processes}", "-m", "revela.training", options.job])


def torchrun(arguments: list[str]) -> int:
    """Does what the command of that name does, and returns the exit status of the process that failed first."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes explain themselves
    try:
        run.run(run.parse_args(arguments))
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    except SignalException:  # the processes were told, too, and were given time to save
        return RESUBMIT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
