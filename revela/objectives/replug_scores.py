"""REPLUG's scores: how badly each document of a batch explains each other one, by a language model (App. B.3).

l_ij = -log g(D_i | D_j) depends on the language model and the batch alone, so it is computed once for all training runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedTokenizerBase

from revela.files import PARTIAL, atomic_write, sha256_file, sha256_json
from revela.objectives.tokens import NoTokenError, ObjectiveError, language_model_ids, pad
from revela.order import seen
from revela.pretrained import load_model, load_tokenizer, output_head
from revela.provenance import folder_sha256

if TYPE_CHECKING:
    from revela.study.specification import ReplugScoreSpec

LOGITS = 2**26  # float32 logits at a time, at most: 256 MB


@torch.no_grad()
def score_batch(
    lm: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: list[str], spec: ReplugScoreSpec, *, rows: int = 16
) -> Tensor:
    """l_ij = -log g(D_i | D_j), float32 [B, B]: how badly D_j explains D_i.

    The language model reads BOS (where its tokenizer has one), the tokens of D_j, and the tokens of D_i with nothing in
    between. It predicts all tokens of D_i, the first from the last of D_j. Both texts are cut as for Revela, at
    `spec.lm_max_length` tokens, BOS included. With `spec.length_normalised` l_ij is the mean over D_i's tokens,
    otherwise the sum.

    Each D_j runs through the model once; its keys and values serve all D_i, `rows` of them at a time.
    """
    training, device = lm.training, next(lm.parameters()).device
    lm.eval()
    prefixes = language_model_ids(tokenizer, texts, spec.lm_max_length)
    documents = [row[1:] if row[0] == tokenizer.bos_token_id else row for row in prefixes]
    prefixes, prefix_lengths = (x.to(device) for x in pad(prefixes))
    documents, lengths = (x.to(device) for x in pad(documents))
    # Pads stand on the right, where no token sees them.
    seen = lm.get_decoder()(input_ids=prefixes, past_key_values=DynamicCache(), use_cache=True)
    losses = torch.empty(len(texts), len(texts), device=device)
    for j, length in enumerate(prefix_lengths.tolist()):
        last = seen.last_hidden_state[j, length - 1]  # from which the first token of each D_i is predicted
        for chunk in torch.arange(len(texts), device=device).split(rows):
            ids = documents[chunk, : lengths[chunk].max()]
            cache = _repeat(seen.past_key_values, j, length, len(chunk))
            hidden = lm.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
            hidden = torch.cat([last.expand(len(chunk), 1, -1), hidden[:, :-1]], 1)
            predicted = torch.arange(ids.shape[1], device=device) < lengths[chunk, None]
            nll = torch.zeros(ids.shape, device=device)
            nll[predicted] = _token_losses(lm, hidden[predicted], ids[predicted])
            losses[chunk, j] = nll.sum(1)
    lm.train(training)
    return (losses / lengths[:, None] if spec.length_normalised else losses).cpu()


def write_scores(
    lm: str | Path,
    batches: str | Path,
    output: str | Path,
    spec: ReplugScoreSpec,
    *,
    workers: int = 1,
    progress: Callable[..., Iterable] = lambda rows, total: rows,
) -> None:
    """`score_batch` of the rows of a batches.parquet that training sees, float32 [batches, B, B], as an npy file.

    Other rows stay NaN. An interrupted run goes on where it was, with as many workers as it is given then. Until it is
    complete, the file stands beside the output under another name, with a hash of all that the scores depend on.

    lm: folder of the language model, which is loaded in `spec.precision`, on a GPU where there is one.
    workers: processes that share the rows, each with one of the GPUs. One: this process.
    progress: passes the rows on, `total` of them, and may show how far they are; of one worker.
    Raises ObjectiveError as `score_rows` does.
    """
    output = Path(output)
    origin = sha256_json([sha256_file(batches), folder_sha256(lm), spec.model_dump(mode="json")])
    begun = output.with_name(f"{PARTIAL}{origin[:12]}-{output.name}")
    with pq.ParquetFile(batches) as file:
        rows = seen(spec.seed, file.metadata.num_rows, spec.positions)
        if not begun.exists():
            size = len(next(file.iter_batches(batch_size=1, columns=["text"]))["text"][0])
            _write_unknown(begun, (file.metadata.num_rows, size, size))
    if workers == 1:
        score_rows(lm, batches, begun, spec, rows, progress)
    else:
        _share(lm, batches, begun, spec, workers)
    begun.replace(output)
    for other in output.parent.glob(f"{PARTIAL}{'?' * 12}-{output.name}"):  # begun with other inputs
        other.unlink()


def score_rows(
    lm: str | Path,
    batches: str | Path,
    begun: str | Path,
    spec: ReplugScoreSpec,
    rows: np.ndarray,
    progress: Callable[..., Iterable] = lambda rows, total: rows,
) -> None:
    """Fill rows, int [n], ascending, of an npy file of scores [batches, B, B], as far as they are NaN.

    Other processes may fill others. Raises ObjectiveError, which names batch and document, for a chunk without a token
    and for a score that is not finite.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
    model, tokenizer = load_model(AutoModelForCausalLM, lm, dtype).to(device), load_tokenizer(lm)
    scores = np.load(begun, mmap_mode="r+")
    for index, texts in progress(_texts(batches, rows), total=len(rows)):
        if np.isnan(scores[index]).any():
            try:
                found = score_batch(model, tokenizer, texts, spec).numpy()
            except NoTokenError as error:
                raise ObjectiveError(f"{error}, {_named(batches, index, error.place)} of batch {index}") from None
            if not np.isfinite(found).all():
                pair = [_named(batches, index, place) for place in np.argwhere(~np.isfinite(found))[0]]
                raise ObjectiveError(
                    f"{lm}: a score of batch {index} is not finite: {pair[0]} after {pair[1]}; try precision: fp32"
                )
            scores[index] = found
    scores.flush()


def _named(batches: str | Path, row: int, place: int) -> str:
    """A chunk of a batches.parquet, as errors name it."""
    return f"chunk {place} ({pq.read_table(batches, columns=['document'])['document'][row][place]})"


def _texts(batches: str | Path, rows: np.ndarray) -> Iterator[tuple[int, list[str]]]:
    """(row, its texts) of some rows, ascending, of a batches.parquet."""
    first, size = 0, 64
    with pq.ParquetFile(batches) as file:
        for group in file.iter_batches(batch_size=size, columns=["text"]):
            start, end = np.searchsorted(rows, [first, first + len(group)])
            for row in rows[start:end].tolist():
                yield row, group["text"][row - first].as_py()
            first += len(group)


def _share(lm: str | Path, batches: str | Path, begun: Path, spec: ReplugScoreSpec, workers: int) -> None:
    """`score_rows` in several processes (`revela.objectives.replug_worker`), each with its share of the rows and of the GPUs."""
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    processes = []
    for number in range(workers):
        job = {"lm": str(lm), "batches": str(batches), "begun": str(begun), "spec": spec.model_dump(), "of": workers}
        command = [sys.executable, "-m", "revela.objectives.replug_worker", json.dumps(job | {"number": number})]
        own = {"CUDA_VISIBLE_DEVICES": gpus[number]} if gpus else {}
        processes.append(subprocess.Popen(command, env=os.environ | own, stdout=subprocess.PIPE, text=True))
    try:
        waiting = set(processes)
        while waiting:
            for process in [process for process in waiting if process.poll() is not None]:
                waiting.discard(process)
                if process.returncode:
                    said = process.stdout.read().strip() or f"it ended with status {process.returncode}"
                    raise ObjectiveError(f"scoring in {workers} processes: {said}")
            time.sleep(0.2)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


def _write_unknown(path: Path, shape: tuple[int, int, int]) -> None:
    """An npy file of NaN. It is written and not mapped, because a full disk kills a process that writes to a map."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        batch = np.full(shape[1:], np.nan, np.float32).tobytes()
        for _ in range(shape[0]):
            file.write(batch)


def _repeat(cache: DynamicCache, row: int, length: int, times: int) -> DynamicCache:
    """Keys and values of the first tokens of one row, as a cache of `times` equal rows."""
    repeated = DynamicCache()
    for index, layer in enumerate(cache.layers):
        keys, values = (x[row, :, :length].expand(times, -1, -1, -1) for x in (layer.keys, layer.values))
        repeated.update(keys, values, index)
    return repeated


def _token_losses(lm: nn.Module, hidden: Tensor, labels: Tensor) -> Tensor:
    """-log p of each label [n] in float32 from the hidden state [n, hidden] before it, a piece at a time."""
    piece = max(1, LOGITS // lm.config.vocab_size)
    pieces = zip(hidden.split(piece), labels.split(piece))
    return torch.cat([F.cross_entropy(output_head(lm)(h).float(), y, reduction="none") for h, y in pieces])
