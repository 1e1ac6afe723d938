"""One of the processes of `revela.evaluation.workers`: it encodes shards of texts.

    python -m revela.evaluation.worker DESCRIPTOR

Through the descriptor of a connection it receives the system that it is to load, and then shards. It writes each shard's
embeddings into a file, and answers with None, or with the message of an error, after which it ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from itertools import count
from multiprocessing.connection import Connection

import numpy as np

from revela.errors import RevelaError
from revela.evaluation.systems import load_ranker
from revela.files import atomic_write
from revela.lookahead import lookahead


def main(descriptor: int) -> None:
    """Works until the process at the other end closes the connection, or is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the one that started it
    connection = Connection(descriptor)
    try:
        encoder = load_ranker(*connection.recv()).encoder

        def read(_: int):
            texts, kind, file = connection.recv()
            return encoder.prepare(texts, kind), file

        for prepared, file in lookahead(read, count()):  # the next shard is tokenised while this one is in the model
            vectors = encoder.embed(prepared)
            with atomic_write(file) as partial:
                np.save(partial, vectors)
            connection.send(None)
    except EOFError:
        pass
    except (RevelaError, OSError) as error:
        connection.send(str(error))
    except Exception:  # noqa: BLE001 - whatever it is, the process must end
        traceback.print_exc()
        os._exit(1)  # the thread that reads would keep the process alive


if __name__ == "__main__":
    main(int(sys.argv[1]))
