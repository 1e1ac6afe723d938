"""An encoder in several processes: each has a device of its own and encodes whole shards of texts.

A shard's embeddings are those that one process would compute, because the same texts are batched alike. They come back
in files, in the order of the shards, and a shard that is there already is not encoded again. So a job that was killed
loses the shards that were in the models, and no others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from multiprocessing.connection import Pipe, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from revela.evaluation import EvaluationError
from revela.lookahead import lookahead

if TYPE_CHECKING:
    from revela.evaluation.encoders import Encoder, Kind

AT_ONCE = 2  # shards that a process has: one in the model, one that is being tokenised
AHEAD = 4  # shards for each process that may be begun before the first of them is done


class Workers:
    """Processes that load the same encoder, each on its own device."""

    def __init__(self, system: tuple[Any, ...], environments: Sequence[dict[str, str]]):
        """system: what `revela.evaluation.worker` loads; environments: variables of each process, which name its device."""
        self.workers = [_Worker(system, variables) for variables in environments]

    def embeddings(
        self, shards: Iterable[list[str]], kind: Kind, name: Callable[[int], str], folder: Path | None
    ) -> Iterator[np.ndarray]:
        """Embeddings [n, d] of each shard, in order.

        Args:
            name: The file of a shard, by its number from 0; it must stand for all that the embeddings depend on.
            folder: Where files wait for their turn, and for a job that goes on; none: a temporary one.

        Raises:
            EvaluationError: A process could not encode a shard, or was killed.
        """
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) if folder is None else nullcontext(folder) as place
        ):
            shards, files, done = enumerate(shards), deque[Path](), None
            left = True
            while left or files:
                while left and len(files) < AHEAD * len(self.workers):
                    worker = min(self.workers, key=lambda worker: len(worker.files))
                    if len(worker.files) == AT_ONCE:
                        break
                    number, texts = next(shards, (None, None))
                    if number is None:
                        left = False
                        break
                    files.append(Path(place, name(number)))
                    if not files[-1].is_file():
                        worker.encode(texts, kind, files[-1])
                if files and not any(files[0] in worker.files for worker in self.workers):
                    yield np.load(files[0])
                    if done:  # only now has the caller kept what it made of that one
                        done.unlink()
                    done = files.popleft()
                elif files:
                    self._receive()
            if done:
                done.unlink()

    def _receive(self) -> None:
        """Waits until a process has encoded a shard. EvaluationError for one that could not, or that ended."""
        busy = {worker.connection: worker for worker in self.workers if worker.files}
        for connection in wait(list(busy)):
            busy[connection].receive()


class _Worker:
    """A process with an encoder, and the files of the shards that it has, oldest first."""

    def __init__(self, system: tuple[Any, ...], variables: dict[str, str]):
        self.connection, theirs = Pipe()
        self.files: deque[Path] = deque()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "revela.evaluation.worker", str(theirs.fileno())],
            env=os.environ | variables,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.connection.send(system)

    def encode(self, texts: list[str], kind: Kind, file: Path) -> None:
        try:
            self.connection.send((texts, kind, file))
        except OSError:
            self._fail()
        self.files.append(file)

    def receive(self) -> None:
        try:
            reason = self.connection.recv()
        except (EOFError, OSError):
            self._fail()
        if reason:
            raise EvaluationError(reason)
        self.files.popleft()

    def _fail(self) -> None:
        """Raises EvaluationError with what the process said last, or how it ended."""
        try:
            while not (reason := self.connection.recv()):
                pass
            raise EvaluationError(reason) from None
        except (EOFError, OSError):
            status = self.process.wait()
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise EvaluationError(
            f"a process that encodes {how}; shards that were finished are kept, and the next attempt goes on from them"
        ) from None

    def __del__(self):
        self.process.kill()
        self.process.wait()


def embeddings(
    encoder: Encoder | Workers,
    shards: Iterable[list[str]],
    kind: Literal["query", "passage"],
    name: Callable[[int], str] = "{}.npy".format,
    folder: Path | None = None,
) -> Iterator[np.ndarray]:
    """Embeddings [n, d] of each shard of texts, in order, by an encoder here or by processes (see `Workers.embeddings`)."""
    if isinstance(encoder, Workers):
        return encoder.embeddings(shards, kind, name, folder)
    return map(encoder.embed, lookahead(lambda shard: encoder.prepare(shard, kind), shards))
