"""A system that `revela.evaluation.worker` loads in tests: it needs no model, and can be made to fail at a text."""

import hashlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from revela.evaluation import EvaluationError

HERE = {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"}


@dataclass
class System:
    """trouble: what happens at a shard that holds the text `at`. log: a file that gets a line for each shard."""

    log: Path
    at: str = ""
    trouble: str = ""
    module: str = "worker_systems"


def load(system, layout, compute):
    return SimpleNamespace(encoder=Encoder(system))


class Encoder:
    def __init__(self, system):
        self.system = system
        if system.trouble == "load":
            raise EvaluationError("no such model")

    def prepare(self, texts, kind):
        return texts

    def embed(self, texts):
        if self.system.at in texts:
            if self.system.trouble == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.system.trouble == "error":
                raise EvaluationError("the embedding of a text is not finite")
            if self.system.trouble == "bug":
                raise RuntimeError("out of memory")
        with open(self.system.log, "a") as file:
            file.write(f"{texts[0]}\n")
        return np.stack([vector(text) for text in texts])


def vector(text):
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())
    return np.random.default_rng(seed).standard_normal(5).astype(np.float32)
