"""How the code of corpora reports its progress: its caller hands in what makes a bar, and by default there is none."""

from __future__ import annotations

import functools
from collections.abc import Callable

from tqdm import tqdm

Progress = Callable[..., tqdm]  # takes the options of tqdm
silent: Progress = functools.partial(tqdm, disable=True)
