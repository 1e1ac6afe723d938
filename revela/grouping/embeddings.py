"""The embeddings of all chunks of a corpus's batches, a shard at a time: a job that is killed goes on after its last one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from revela.evaluation.workers import embeddings
from revela.files import sha256_file, sha256_json, write_json
from revela.grouping import GroupingError
from revela.provenance import folder_sha256
from revela.text.parquet import read_table
from revela.text.progress import Progress, silent

if TYPE_CHECKING:
    from revela.evaluation.dense import Dense


def write_embeddings(
    ranker: Dense,
    models: Sequence[str | Path],
    batches: str | Path,
    batch_size: int,
    output: str | Path,
    *,
    state: str | Path,
    progress: Progress = silent,
) -> None:
    """Write a .npy file of embeddings [chunks, d] in float16, of unit length: each chunk as the ranker reads a passage.

    Args:
        ranker: An encoder, here or in several processes.
        models: The folders that it was loaded from.
        batches: The corpus's batches.parquet; row r is chunk r % B of batch r // B.
        output: The file.
        state: A folder that exists while this is under way. Shards that were finished stand there, and another attempt
            with the same models, batches and ranker begins with the next one.

    Raises:
        GroupingError: An embedding that is not finite.
    """
    folder, size = Path(state), ranker.shard_documents
    vectors_file, state_file = folder / "vectors.npy", folder / "state.json"
    prefix, number = ranker.passage_prefix, batch_size * pq.read_metadata(batches).num_rows
    mark = sha256_json([ranker.identity, prefix, size, sha256_file(batches), *map(folder_sha256, models)])
    done = _done(state_file, mark) if vectors_file.is_file() else 0
    if not done:  # its vectors are about to be written over, even if this attempt ends in its first shard
        state_file.unlink(missing_ok=True)
    texts = ((prefix + text).strip() for text in islice(_texts(batches), done, None))
    shards = iter(lambda: list(islice(texts, size)), [])
    vectors = np.lib.format.open_memmap(vectors_file, "r+") if done else None
    name = lambda shard, first=done: f"{mark[:32]}-{first + shard * size}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    with progress(desc="chunks", total=number, initial=done, unit=" chunks") as bar:
        for found in embeddings(ranker.encoder, shards, "passage", name, folder):
            if vectors is None:
                shape = (number, found.shape[1])
                vectors = np.lib.format.open_memmap(vectors_file, "w+", np.float16, shape)
            vectors[done : done + len(found)] = _unit(found, done)
            vectors.flush()
            done += len(found)
            write_json(state_file, {"mark": mark, "done": done})
            bar.update(len(found))
    del vectors
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    os.replace(vectors_file, output)
    shutil.rmtree(folder)


def _texts(batches: str | Path) -> Iterator[str]:
    for row in read_table(batches):
        yield from row["text"]


def _done(state: Path, mark: str) -> int:
    """Chunks that an earlier attempt has finished; what another model or corpus left there counts for nothing."""
    if not state.is_file():
        return 0
    found = json.loads(state.read_text(encoding="utf-8"))
    return found["done"] if found["mark"] == mark else 0


def _unit(vectors: np.ndarray, first: int) -> np.ndarray:
    """Embeddings [n, d] of chunks from number `first` on, scaled to unit length."""
    vectors = np.asarray(vectors, np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise GroupingError(f"the embedding of chunk {first + int(np.argmin(finite))} is not finite")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
