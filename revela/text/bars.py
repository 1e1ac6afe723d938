"""The progress bar of the jobs on text. Scripts hand it to the code that computes, so a change here reruns nothing."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def bar(**options: Any) -> tqdm:
    """A bar that moves on a terminal, and is written once a minute to the log of a job."""
    return tqdm(**options, mininterval=0.1 if sys.stderr.isatty() else 60.0)
