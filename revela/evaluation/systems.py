"""Systems: whatever answers the queries of a task with ranked documents. To the evaluation they all look alike.

A system's name says what it is: the path of a trained cell, ``untrained/{model}`` for a backbone as it
came, or a row of models.tsv that is BM25 or an off-the-shelf encoder.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from revela.config import Cell, Evaluation, Model, Study, Task
from revela.evaluation import EvaluationError
from revela.evaluation.benchmarks import Part, load_task
from revela.evaluation.runs import write_run
from revela.evaluation.search import Ranking, best_documents, search

if TYPE_CHECKING:
    import numpy as np

UNTRAINED = "untrained/"


class System(Protocol):
    """What the evaluation asks of a system."""

    name: str

    def search(self, part: Part, top_k: int) -> Iterator[tuple[str, Ranking]]:
        """(query id, its `top_k` best documents) for each query of the part, in order."""
        ...


def load_system(name: str, study: Study) -> System:
    """The system of that name, ready to search. Models are read from the folders of the study's results.

    Raises:
        EvaluationError: The name is unknown, or names a system that cannot be run here.
        ConfigError: The name is a cell's path with an unknown part.
    """
    results = Path(study.config.results)
    if name.count("/") == 4:
        cell = study.check_cell(Cell.parse(name))
        return _trained(name, results / "models" / cell.path / "retriever", study.config.evaluation)
    model = study.models.get(name.removeprefix(UNTRAINED))
    if model is None or (model.kind == "backbone") != name.startswith(UNTRAINED):
        valid = [model.system for model in study.models.values()]
        hint = difflib.get_close_matches(name, valid, n=1)
        meant = f"; did you mean {hint[0]!r}?" if hint else "."
        raise EvaluationError(f"unknown system {name!r}{meant} Valid: a cell's path, {', '.join(valid)}")
    folder = results / "resources" / "models" / model.name
    return _LOADERS[model.kind](model, folder, study.config.evaluation)


def run_task(system: System, settings: Evaluation, task: Task, dataset_folder: str | Path, output: str | Path) -> None:
    """Let a system answer a task and write its run file, whole or not at all.

    Not in the run are the document with a query's own id (as in beir; it matters on ArguAna) and, where the settings
    say so, the query's excluded documents. They are removed before the cut, so that they cost no place.

    Raises:
        BenchmarkError: The benchmark cannot be read.
        EvaluationError: The system cannot answer it.
    """
    parts = load_task(task, dataset_folder, document_text=settings.document_text)
    write_run(output, _rankings(system, parts, settings), system.name)


def _rankings(system: System, parts: list[Part], settings: Evaluation) -> Iterator[tuple[str, Ranking]]:
    for part in parts:
        barred = {query: {query} | (part.excluded[query] if settings.exclude else set()) for query in part.queries}
        depth = settings.top_k + max(map(len, barred.values()))
        for query, ranking in system.search(part, depth):
            kept = [(document, score) for document, score in ranking if document not in barred[query]]
            yield part.key(query), kept[: settings.top_k]


class BM25:
    """BM25 as in bm25s (method lucene, k1 1.5, b 0.75) on stemmed English words of two letters or more.

    A document that shares no word with the query has the score 0 and is not retrieved. Title and text are one
    text: whatever stands between them is no part of a word.
    """

    def __init__(self, name: str = "bm25"):
        self.name = name

    def search(self, part: Part, top_k: int) -> Iterator[tuple[str, Ranking]]:
        import bm25s
        import Stemmer
        from bm25s.stopwords import STOPWORDS_EN
        from bm25s.tokenization import Tokenizer

        tokenizer = Tokenizer(
            lower=True,
            splitter=r"(?u)\b\w\w+\b",
            stopwords=list(STOPWORDS_EN),  # Lucene's 33
            stemmer=Stemmer.Stemmer("english"),
        )
        documents = list(tokenizer.streaming_tokenize((text for _, text in part.corpus), allow_empty=False))
        if not any(documents):
            raise EvaluationError(f"{part.name}: no document has a word that BM25 could index")
        index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
        index.index((documents, tokenizer.get_vocab_dict()), show_progress=False)
        words = tokenizer.streaming_tokenize(part.queries.values(), update_vocab=False, allow_empty=False)
        for query, ids in zip(part.queries, words, strict=True):
            yield query, best_documents(part.corpus, index.get_scores_from_ids(ids), top_k)


class Dense:
    """An encoder of queries and documents, and exact search by inner product or cosine."""

    def __init__(
        self,
        name: str,
        encode: Callable[[list[str]], np.ndarray],
        settings: Evaluation,
        *,
        query_prefix: str,
        passage_prefix: str,
        similarity: str,
        device: str = "cpu",
    ):
        """encode: texts -> [n, d]; device: where scores are taken."""
        self.name, self.encode, self.settings = name, encode, settings
        self.similarity, self.device = similarity, device
        self.query_prefix, self.passage_prefix = query_prefix, passage_prefix

    def search(self, part: Part, top_k: int) -> Iterator[tuple[str, Ranking]]:
        prefix = self.query_prefix
        if "{task}" in prefix:
            if not part.instruction:
                raise EvaluationError(f"{part.name}: the prefix {prefix!r} needs an instruction in benchmarks.tsv")
            prefix = prefix.replace("{task}", part.instruction)
        rankings = search(
            self.encode(_prefixed(prefix, part.queries.values())),
            part.corpus,
            lambda texts: self.encode(_prefixed(self.passage_prefix, texts)),
            top_k=top_k,
            shard_documents=self.settings.shard_documents,
            similarity=self.similarity,
            device=self.device,
            description=part.name,
        )
        return zip(part.queries, rankings, strict=True)


def _prefixed(prefix: str, texts: Iterable[str]) -> list[str]:
    """Prefix and text, without white space around them, as in mteb's RepLLaMA wrapper, which the paper used."""
    return [(prefix + text).strip() for text in texts]


# --- what a name stands for


def _trained(name: str, folder: Path, settings: Evaluation) -> Dense:
    """A trained cell. It normalises its embeddings itself."""
    from revela.retriever import Retriever

    device = _device()
    retriever = Retriever.load(
        folder, device=device, query_prefix="", passage_prefix="", max_length=settings.max_length
    )
    return Dense(
        name,
        partial(retriever.encode, batch_tokens=settings.batch_tokens),
        settings,
        query_prefix=settings.query_prefix,
        passage_prefix=settings.passage_prefix,
        similarity="dot",
        device=device,
    )


def _untrained(model: Model, folder: Path, settings: Evaluation) -> Dense:
    """A backbone before training, used as a cell is: EOS pooling, the same prefixes, cosine."""
    import torch

    from revela.retriever import Retriever

    device = _device()
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    retriever = Retriever.from_backbone(folder, max_length=settings.max_length, dtype=dtype).to(device)
    return Dense(
        model.system,
        partial(retriever.encode, batch_tokens=settings.batch_tokens),
        settings,
        query_prefix=settings.query_prefix,
        passage_prefix=settings.passage_prefix,
        similarity="dot",
        device=device,
    )


def _encoder(model: Model, folder: Path, settings: Evaluation) -> Dense:
    """An off-the-shelf encoder as its row says; without a pooling, as its sentence-transformers folder says."""
    device = _device()
    max_length = min(model.max_length or settings.max_length, settings.max_length)
    if model.pooling:
        from revela.retriever import Retriever

        # float32 on a CPU, as stored on a GPU: these numbers are compared with published ones
        dtype = "auto" if device == "cuda" else "float32"
        retriever = Retriever.from_backbone(
            folder, max_length=max_length, pooling=model.pooling, normalize=False, dtype=dtype
        )
        encode = partial(retriever.to(device).encode, batch_tokens=settings.batch_tokens)
    elif (folder / "modules.json").is_file():
        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(str(folder), device=device, local_files_only=True)
        encoder.max_seq_length = min(encoder.max_seq_length or max_length, max_length)
        encode = partial(encoder.encode, show_progress_bar=False)
    else:
        raise EvaluationError(f"{folder}: no modules.json, so models.tsv must give the pooling of {model.name}")
    return Dense(
        model.system,
        encode,
        settings,
        query_prefix=model.query_prefix.replace("\\n", "\n"),
        passage_prefix=model.passage_prefix.replace("\\n", "\n"),
        similarity=model.similarity or "cosine",
        device=device,
    )


def _bm25(model: Model, folder: Path, settings: Evaluation) -> BM25:
    return BM25(model.system)


def _api(model: Model, folder: Path, settings: Evaluation) -> System:
    raise EvaluationError(f"{model.name}: there is no adapter for the API {model.source!r}, so it cannot be run here")


_LOADERS = {"bm25": _bm25, "backbone": _untrained, "encoder": _encoder, "api": _api}


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
