"""What every script begins with: output goes to the job's log, and an error of the project ends it with one line."""

import gc
import os
import signal
import sys
from contextlib import contextmanager

gc.set_threshold(100_000)  # importing torch and transformers makes few cycles; looking for them costs half a second


@contextmanager
def job(snakemake, *, network=False, check_gpus=True, claim_gpus=True):
    """Run the block with stdout and stderr in the job's log, with the network and the GPUs that the job asked for.

    Yields what stderr was before, for lines that people should see at once. The GPUs are checked, unless other processes
    of the job will use them and check them; and claimed, unless the job is on several nodes, where SLURM alone says who
    has which.

    An error that a person can mend (of the project, or of the operating system) is printed as its message; any other
    keeps its traceback, for it is a bug. Either way the job fails, and hands up its reason (`revela.study.reason`). The
    block runs in a process of its own, so that one that is killed has a reason too.
    """
    from revela.errors import RevelaError
    from revela.study import reason
    from revela.training.launch import rest_between

    terminal = os.fdopen(os.dup(2), "w")
    log = os.open(snakemake.log[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.stdout.reconfigure(line_buffering=True)
    if not network:
        os.environ["HF_HUB_OFFLINE"] = "1"
    rest_between(os.environ)
    reason.begin(snakemake.log[0])
    _go_on_in_child(snakemake.log[0])
    gpus = snakemake.resources.get("gpu")

    def end(number, _):
        reason.give(snakemake.log[0], reason.ended(-number))
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    try:
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        elif claim_gpus:
            from revela.training.devices import check, claim

            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(claim(gpus))
            if check_gpus:
                check()
        yield terminal
    except (OSError, RevelaError) as error:
        from revela.text.own_files import as_named_by_user

        message = as_named_by_user(str(error), snakemake.input)
        reason.give(snakemake.log[0], message)
        sys.exit(f"error: {message}")
    except SystemExit as end:
        if end.code:
            said = end.code if isinstance(end.code, str) else reason.ended(end.code)
            reason.give(snakemake.log[0], said, unless_given=True)
            raise
    except BaseException as error:
        reason.give(snakemake.log[0], f"{type(error).__name__}: {error}")
        raise
    reason.done(snakemake.log[0])


def _go_on_in_child(log):
    """Return in a new process; here wait for it, say so if it was killed, and end as it does."""
    from revela.plan.available import most
    from revela.study import reason
    from revela.training.launch import end_with_parent

    child = os.fork()
    if child == 0:
        end_with_parent(signal.SIGTERM)
        return
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a terminal sends to the child as well
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if reason.killed(code):
        reason.give(log, reason.want_of_memory(1024 * used.ru_maxrss, most()), unless_given=True)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
