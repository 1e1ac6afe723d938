"""Why a job failed, as data: a JSON file beside its log, which the job itself writes and whoever started it reads.

From its start the file holds {"running": its process}, so that a job which was killed, and could say nothing, leaves that
behind. A job that fails puts {"reason": a sentence} there, and one that succeeds takes the file away.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from revela.files import write_json

SUFFIX = ".reason.json"


def reason_file(log: str | Path) -> Path:
    """Where the reason of the job stands that has this log, or this file of its task."""
    return Path(str(log).removesuffix(".log").removesuffix(".json") + SUFFIX)


def begin(log: str | Path) -> None:
    """Notes that the job has begun, in this process."""
    write_json(reason_file(log), {"running": os.getpid()})


def give(log: str | Path, reason: str, *, unless_given: bool = False) -> None:
    """Notes in one line why the job fails; with `unless_given` only where no process of the job has said so before."""
    if not (unless_given and "reason" in _read(reason_file(log))):
        write_json(reason_file(log), {"reason": " ".join(reason.split())})


def done(log: str | Path) -> None:
    """Notes that the job has succeeded."""
    reason_file(log).unlink(missing_ok=True)


def ended(status: int) -> str:
    """What the exit status of a process, or the signal that ended it, says."""
    number = -status if status < 0 else status - 128
    if number == signal.SIGKILL:
        return "killed by SIGKILL, as the kernel does where memory runs out: free some, or have the job use less"
    if number in set(signal.Signals):
        return f"ended by {signal.Signals(number).name}"
    return f"ended with status {status}"


def read(path: Path) -> str | None:
    """The reason in a file of this kind; None where the job is at work."""
    found = _read(path)
    if "running" in found and not Path(f"/proc/{found['running']}").exists():
        return ended(-signal.SIGKILL)  # all other ends leave a reason
    return found.get("reason")


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
