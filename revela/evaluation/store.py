"""Embeddings kept on disk by their text, for query sets that share documents (FEVER and ClimateFEVER)."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from revela.evaluation import EvaluationError
from revela.files import PARTIAL, atomic_write

if TYPE_CHECKING:
    from revela.evaluation.encoders import Encoder, Kind


class Store:
    """An encoder that looks texts up in a folder first, and adds those that it had to encode.

    For each shard that was encoded the folder holds ``{name}.npy`` with embeddings [n, d] in float32 and
    ``{name}.keys.npy`` with the 16-byte hashes [n] of their texts; `name` is the hash of all of them. Keys are
    written last, so a shard is whole or not there, and several jobs may share a folder. Embeddings are mapped into
    memory, not read. Keys are held in memory, 16 bytes a text.

    All embeddings of a folder must come from the same model and length. The folder's name has to ensure that.
    """

    def __init__(self, encoder: Encoder, folder: str | Path):
        self.encoder, self.folder = encoder, Path(folder)
        files = sorted(path for path in self.folder.glob("*.keys.npy") if not path.name.startswith(PARTIAL))
        keys = [np.load(path) for path in files]
        self._vectors = [_mapped(path, len(found)) for path, found in zip(files, keys, strict=True)]
        self._keys = np.concatenate(keys) if keys else np.empty(0, "S16")
        self._file = np.repeat(np.arange(len(keys)), [len(found) for found in keys])
        self._row = np.concatenate([np.arange(len(found)) for found in keys]) if keys else np.empty(0, np.int64)
        self._order = np.argsort(self._keys, kind="stable")

    def prepare(self, texts: list[str], kind: Kind) -> Any:
        keys = np.array([_key(text, kind) for text in texts], "S16")
        place = np.searchsorted(self._keys, keys, sorter=self._order)
        place = self._order[np.minimum(place, len(self._keys) - 1)] if len(self._keys) else place
        known = self._keys[place] == keys if len(self._keys) else np.zeros(len(keys), bool)
        new = [text for text, found in zip(texts, known, strict=True) if not found]
        return keys, place, known, self.encoder.prepare(new, kind) if new else None

    def embed(self, prepared: Any) -> np.ndarray:
        keys, place, known, new = prepared
        fresh = None
        if new is not None:
            fresh = np.ascontiguousarray(self.encoder.embed(new), np.float32)
            self._write(keys[~known], fresh)
        width = (self._vectors[0] if fresh is None else fresh).shape[1]
        vectors = np.empty((len(keys), width), np.float32)
        if fresh is not None:
            vectors[~known] = fresh
        for row in np.flatnonzero(known):
            vectors[row] = self._vectors[self._file[place[row]]][self._row[place[row]]]
        return vectors

    def _write(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        name = hashlib.blake2b(keys.tobytes(), digest_size=16).hexdigest()
        for suffix, array in ((".npy", vectors), (".keys.npy", keys)):
            own = self.folder / f"{PARTIAL}{uuid.uuid4().hex}{suffix}"  # another job may be writing the same texts
            with atomic_write(own) as partial:
                np.save(partial, array)
            own.replace(self.folder / (name + suffix))


def _key(text: str, kind: Kind) -> bytes:
    """16 bytes. The last one is not 0, since numpy would cut it off."""
    digest = hashlib.blake2b(f"{kind}\0{text}".encode("utf-8", "surrogatepass"), digest_size=15).digest()
    return digest + b"."


def _mapped(keys: Path, rows: int) -> np.ndarray:
    path = keys.with_name(keys.name.removesuffix(".keys.npy") + ".npy")
    try:
        vectors = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: embeddings that cannot be read ({error}); remove {keys}") from None
    if len(vectors) != rows:
        raise EvaluationError(f"{path}: {len(vectors)} embeddings for the {rows} texts of {keys}; remove both")
    return vectors
