"""One of the processes of `revela.evaluation.workers`: it encodes shards of texts.

    python -m revela.evaluation.worker DESCRIPTOR

Through the descriptor of a connection it receives the system that it is to load, and then shards. It writes each shard's
embeddings into a file, and answers with None, or with the message of an error, after which it ends.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from revela.errors import RevelaError
from revela.evaluation.systems import load_ranker
from revela.files import atomic_write

if TYPE_CHECKING:
    from revela.evaluation.encoders import Encoder


def main(descriptor: int) -> None:
    """Works until the process at the other end closes the connection, or is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the one that started it
    connection = Connection(descriptor)
    try:
        encoder = load_ranker(*connection.recv()).encoder
        for prepared, file in read_ahead(connection, encoder):
            vectors = encoder.embed(prepared)
            with atomic_write(file) as partial:
                np.save(partial, vectors)
            connection.send(None)
    except EOFError:
        pass
    except (RevelaError, OSError) as error:
        connection.send(str(error))


def read_ahead(connection: Connection, encoder: Encoder) -> Iterator[tuple[Any, Path]]:
    """Shards ready for the model, with their files: the next one is tokenised while this one is in the model.

    The thread that reads waits for a shard that may never come. So nobody waits for the thread, not even the process
    when it ends.
    """
    shards: Queue[tuple[Any, Path] | Exception] = Queue(1)

    def read() -> None:
        try:
            while True:
                texts, kind, file = connection.recv()
                shards.put((encoder.prepare(texts, kind), file))
        except Exception as error:  # noqa: BLE001 - raised in the thread that has the model
            shards.put(error)

    Thread(target=read, daemon=True).start()
    while not isinstance(shard := shards.get(), Exception):
        yield shard
    raise shard


if __name__ == "__main__":
    main(int(sys.argv[1]))
