"""Why a job failed, as data: a JSON file beside its log, which the job itself writes and whoever started it reads.

From its start the file holds {"running": its process}, so that a job which was killed, and could say nothing, leaves that
behind; and perhaps a "note", for people who wait. A job that fails puts {"reason": a sentence} there, and one that
succeeds takes the file away.
"""

from __future__ import annotations

import glob
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from revela.files import write_json

SUFFIX = ".reason.json"
SPARING = (
    "run fewer jobs at a time (--cores, or --resources mem_mb=...), or lower compute.shard_documents, "
    "evaluation.batch_tokens or, in training, the batch size"
)


def reason_file(log: str | Path) -> Path:
    """Where the reason of the job stands that has this log, or this file of its task."""
    return Path(str(log).removesuffix(".log").removesuffix(".json") + SUFFIX)


def begin(log: str | Path) -> None:
    """Notes that the job has begun, in this process."""
    write_json(reason_file(log), {"running": os.getpid()})


def note(log: str | Path, line: str) -> None:
    """Tells whoever waits for a job that has begun something about it."""
    found = _read(reason_file(log))
    if "running" in found:
        write_json(reason_file(log), found | {"note": line})


def noted(log: str | Path) -> str | None:
    """What a job has told."""
    return _read(reason_file(log)).get("note")


def give(log: str | Path, reason: str, *, unless_given: bool = False) -> None:
    """Notes in one line why the job fails; with `unless_given` only where no process of the job has said so before."""
    if unless_given and "reason" in _read(reason_file(log)):
        return
    given = {"reason": " ".join(reason.split())}
    try:
        write_json(reason_file(log), given)
    except FileNotFoundError:  # another process of the job gives its own at the same moment
        pass
    except OSError:  # the disk is full: the room of what the job noted when it began is left
        with suppress(OSError), reason_file(log).open("r+", encoding="utf-8") as file:
            file.write(json.dumps(given))
            file.truncate()


def done(log: str | Path) -> None:
    """Notes that the job has succeeded."""
    reason_file(log).unlink(missing_ok=True)


def ended(status: int) -> str:
    """What the exit status of a process, or the signal that ended it, says."""
    number = _signal(status)
    if number == signal.SIGKILL:
        return "killed by SIGKILL, as the kernel does where memory runs out: free some, or have the job use less"
    if number in set(signal.Signals):
        return f"ended by {signal.Signals(number).name}"
    return f"ended with status {status}"


def killed(status: int) -> bool:
    """Whether a process with this exit status was ended by SIGKILL."""
    return _signal(status) == signal.SIGKILL


def want_of_memory(peak: float, there: float, advice: str = SPARING) -> str:
    """What to say of a job that was killed. peak: bytes of its largest process; there: of the machine, or of its limit."""
    return (
        f"killed, most likely for want of memory: peak {peak / 2**30:.1f} of {there / 2**30:.1f} GiB in one process; "
        f"try this: {advice}"
    )


def _signal(status: int) -> int:
    return -status if status < 0 else status - 128


def read(path: Path) -> str | None:
    """The reason in a file of this kind; None where the job is at work."""
    found = _read(path)
    if "running" in found and not Path(f"/proc/{found['running']}").exists():
        return ended(-signal.SIGKILL)  # all other ends leave a reason
    return found.get("reason")


def given(logs: str, since: float) -> Iterator[str]:
    """The reasons of jobs that have failed since a time, each with its log, the last one first. logs: a pattern."""
    files = [Path(name) for name in glob.glob(str(reason_file(logs)), recursive=True)]
    times = {file: file.stat().st_mtime for file in files}
    for file in sorted(files, key=times.get, reverse=True):
        if times[file] >= since and (said := read(file)):
            yield f"{said} (log: {str(file).removesuffix(SUFFIX)}.log)"


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
