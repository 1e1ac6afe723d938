"""Systems: whatever answers the queries of a task with ranked documents. To the evaluation they all look alike.

A system's name says what it is: the path of a trained cell, ``untrained/{model}`` for a backbone as it
came, or a row of models.tsv that is BM25, an off-the-shelf encoder (an adapter on a backbone, too) or an API.
"""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from revela.evaluation import EvaluationError
from revela.evaluation.encoders import Encoder, Replicas, RetrieverEncoder, SentenceTransformerEncoder
from revela.evaluation.runs import write_run
from revela.evaluation.search import Ranking, best_documents, search
from revela.evaluation.store import Store
from revela.evaluation.tasks import Part, load_task
from revela.files import sha256_json
from revela.provenance import folder_sha256
from revela.study.study import Cell, Evaluation, Model, Study, Task

UNTRAINED = "untrained/"


class System(Protocol):
    """What the evaluation asks of a system."""

    name: str

    def search(self, part: Part, top_k: int, state: Path | None) -> Iterator[tuple[str, Ranking]]:
        """(query id, its `top_k` best documents) for each query of the part, in order.

        `state` is a file from which a search that takes long may go on after it was stopped. Raises EvaluationError for
        a part that the system cannot search.
        """
        ...


def load_system(name: str, study: Study) -> System:
    """The system of that name, ready to search. Models are read from the folders of the study's results.

    Raises:
        EvaluationError: The name is unknown, or names a system that cannot be run here.
        ConfigError: The name is a cell's path with an unknown part.
    """
    results = Path(study.config.results)
    if name.count("/") == 4:
        study.check_cell(Cell.parse(name))
        return _trained(name, results, study.evaluation_settings(name))
    model = study.models.get(name.removeprefix(UNTRAINED))
    if model is None or (model.kind == "backbone") != name.startswith(UNTRAINED):
        valid = [model.system for model in study.models.values()]
        hint = difflib.get_close_matches(name, valid, n=1)
        meant = f"; did you mean {hint[0]!r}?" if hint else "."
        raise EvaluationError(f"unknown system {name!r}{meant} Valid: a cell's path, {', '.join(valid)}")
    return _LOADERS[model.kind](model, results, study.config.evaluation)


def run_task(
    system: System,
    settings: Evaluation,
    task: Task,
    dataset_folder: str | Path,
    output: str | Path,
    *,
    state: str | Path | None = None,
) -> None:
    """Let a system answer a task and write its run file, whole or not at all.

    `state` is a folder that is there while the task is under way: if the job is killed, the next one goes on from it
    after the last whole shard, and writes the same bytes.

    Not in the run are the document with a query's own id (as in beir; it matters on ArguAna) and, where the settings
    say so, the query's excluded documents. They are removed before the cut, so that they cost no place.

    Raises:
        BenchmarkError: The benchmark cannot be read.
        EvaluationError: The system cannot answer it.
    """
    parts = load_task(task, dataset_folder, document_text=settings.document_text)
    write_run(output, _rankings(system, parts, settings, state and Path(state)), system.name)
    if state:
        shutil.rmtree(state, ignore_errors=True)


def _rankings(
    system: System, parts: list[Part], settings: Evaluation, state: Path | None
) -> Iterator[tuple[str, Ranking]]:
    for part in parts:
        barred = {query: {query} | (part.excluded[query] if settings.exclude else set()) for query in part.queries}
        depth = settings.top_k + max(map(len, barred.values()))
        for query, ranking in system.search(part, depth, state and state / f"{part.name}.npz"):
            kept = [(document, score) for document, score in ranking if document not in barred[query]]
            yield part.key(query), kept[: settings.top_k]


class BM25:
    """BM25 as in bm25s (method lucene, k1 1.5, b 0.75) on stemmed English words of two letters or more.

    A document that shares no word with the query has the score 0 and is not retrieved. Title and text are one
    text: whatever stands between them is no part of a word.

    With `weigh_queries` the words of a query are weighed as those of a document are: query-side BM25, which the
    authors of BRIGHT took (k1 0.9, b 0.4; Ge, Sharifymoghaddam and Lin 2025, arXiv 2509.02558). In queries as long as
    theirs it keeps words that stand there often from counting as often.
    """

    def __init__(self, name: str = "bm25", *, k1: float = 1.5, b: float = 0.75, weigh_queries: bool = False):
        self.name, self.k1, self.b, self.weigh_queries = name, k1, b, weigh_queries

    def search(self, part: Part, top_k: int, state: Path | None = None) -> Iterator[tuple[str, Ranking]]:
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
        index = bm25s.BM25(method="lucene", k1=self.k1, b=self.b)
        index.index((documents, tokenizer.get_vocab_dict()), show_progress=False)
        words = tokenizer.streaming_tokenize(part.queries.values(), update_vocab=False, allow_empty=False)
        length = np.mean([len(document) for document in documents])
        for query, ids in zip(part.queries, words, strict=True):
            found = self._weighed(index, ids, length) if self.weigh_queries else index.get_scores_from_ids(ids)
            yield query, best_documents(part.corpus, found, top_k)

    def _weighed(self, index: Any, words: list[int], average: float) -> np.ndarray:
        """Scores [n] of all documents: sums over words of the weight in the query times that in the document."""
        weights, documents, starts = (index.scores[name] for name in ("data", "indices", "indptr"))
        size = index.scores["num_docs"]
        words, counts = np.unique(np.array(words, np.int64), return_counts=True)
        having = starts[words + 1] - starts[words]
        idf = np.log(1 + (size - having + 0.5) / (having + 0.5))
        in_query = idf * counts / (counts + self.k1 * (1 - self.b + self.b * counts.sum() / average))
        scores = np.zeros(size, np.float32)
        for word, weight in zip(words, in_query, strict=True):
            entries = slice(starts[word], starts[word + 1])
            scores[documents[entries]] += weight * weights[entries]
        return scores


class Dense:
    """An encoder of queries and documents, and exact search by inner product or cosine."""

    def __init__(
        self,
        name: str,
        encoder: Encoder,
        settings: Evaluation,
        *,
        query_prefix: str = "",
        passage_prefix: str = "",
        passage_prefixes: Mapping[str, str] | None = None,
        similarity: str = "dot",
        device: str = "cpu",
        identity: str = "",
    ):
        """passage_prefixes: of parts that have another one. device: where scores are taken.

        identity: what tells encoders of the same model apart.
        """
        self.name, self.encoder, self.settings, self.identity = name, encoder, settings, identity
        self.similarity, self.device = similarity, device
        self.query_prefix, self.passage_prefix = query_prefix, passage_prefix
        self.passage_prefixes = passage_prefixes or {}

    def search(self, part: Part, top_k: int, state: Path | None = None) -> Iterator[tuple[str, Ranking]]:
        prefix = self.query_prefix
        if "{task}" in prefix:
            if not part.instruction:
                raise EvaluationError(f"{part.name}: the prefix {prefix!r} needs an instruction in benchmarks.tsv")
            prefix = prefix.replace("{task}", part.instruction)
        # White space around prefix and text is removed, as in mteb's RepLLaMA wrapper, which the paper used.
        queries = [(prefix + text).strip() for text in part.queries.values()]
        rankings = search(
            self.encoder.embed(self.encoder.prepare(queries, "query")),
            part.corpus,
            self.encoder,
            top_k=top_k,
            shard_documents=self.settings.shard_documents,
            prefix=self.passage_prefixes.get(part.name, self.passage_prefix),
            similarity=self.similarity,
            device=self.device,
            description=part.name,
            state=state,
            identity=self.identity,
        )
        return zip(part.queries, rankings, strict=True)


# --- what a name stands for


def _trained(name: str, results: Path, settings: Evaluation) -> Dense:
    """A trained cell. It normalises its embeddings itself."""
    folder = results / "models" / name / "retriever"

    def load(device: str) -> Encoder:
        from revela.retriever import Retriever

        options = {"query_prefix": "", "passage_prefix": "", "max_length": settings.max_length}
        return RetrieverEncoder(Retriever.load(folder, device=device, **options), settings.batch_tokens)

    how = {"max_length": settings.max_length}
    return _dense(name, results, load, [folder], how, settings, _prefixes(settings), "dot")


def _untrained(model: Model, results: Path, settings: Evaluation) -> Dense:
    """A backbone before training, used as a cell is: EOS pooling, the same prefixes, cosine."""
    folder = _folder(results, model.name)

    def load(device: str) -> Encoder:
        import torch

        from revela.retriever import Retriever

        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        retriever = Retriever.from_backbone(folder, max_length=settings.max_length, dtype=dtype)
        return RetrieverEncoder(retriever.to(device), settings.batch_tokens)

    how = {"max_length": settings.max_length}
    return _dense(model.system, results, load, [folder], how, settings, _prefixes(settings), "dot")


def _encoder(model: Model, results: Path, settings: Evaluation) -> Dense:
    """An off-the-shelf encoder as its row says; without a pooling, as its sentence-transformers folder says."""
    folder = _folder(results, model.name)
    base = _folder(results, model.base) if model.base else None
    max_length = min(model.max_length or settings.max_length, settings.max_length)
    if not model.pooling and not (folder / "modules.json").is_file():
        raise EvaluationError(f"{folder}: no modules.json, so models.tsv must give the pooling of {model.name}")

    def load(device: str) -> Encoder:
        if not model.pooling:
            from sentence_transformers import SentenceTransformer

            encoder = SentenceTransformer(str(folder), device=device, local_files_only=True)
            encoder.max_seq_length = min(encoder.max_seq_length or max_length, max_length)
            return SentenceTransformerEncoder(encoder)
        from revela.retriever import Retriever, load_adapter

        # float32 on a CPU, as stored on a GPU: these numbers are compared with published ones
        options = {"pooling": model.pooling, "normalize": False, "dtype": "float32" if device == "cpu" else "auto"}
        retriever = Retriever.from_backbone(base or folder, max_length=max_length, **options)
        if base:
            retriever.backbone = load_adapter(retriever.backbone, folder)
        return RetrieverEncoder(retriever.to(device), settings.batch_tokens)

    prefixes = {
        "query_prefix": model.query_prefix.replace("\\n", "\n"),
        "passage_prefix": model.passage_prefix.replace("\\n", "\n"),
        "passage_prefixes": dict(pair.split("=", 1) for pair in filter(None, model.passage_prefixes.split(";"))),
    }
    folders = [folder, base] if base else [folder]
    how = {"max_length": max_length, "pooling": model.pooling}
    return _dense(model.system, results, load, folders, how, settings, prefixes, model.similarity or "cosine")


def _bm25(model: Model, results: Path, settings: Evaluation) -> BM25:
    match = re.fullmatch(r"k1=([\d.]+);b=([\d.]+)(;weigh-queries)?", model.source or "k1=1.5;b=0.75")
    if not match:
        raise EvaluationError(
            f"{model.name}: source {model.source!r} of models.tsv is no setting of BM25; valid: k1=0.9;b=0.4, and "
            ";weigh-queries after it"
        )
    return BM25(model.system, k1=float(match[1]), b=float(match[2]), weigh_queries=bool(match[3]))


def _api(model: Model, results: Path, settings: Evaluation) -> Dense:
    from revela.evaluation.apis import ApiEncoder

    encoder = ApiEncoder(
        model, results / "api" / f"{model.name}.sqlite", budget=settings.api_budget, max_length=settings.max_length
    )
    return Dense(model.system, encoder, settings, similarity="cosine")


_LOADERS = {"bm25": _bm25, "backbone": _untrained, "encoder": _encoder, "api": _api}


def _folder(results: Path, model: str) -> Path:
    return results / "resources" / "models" / model


def _prefixes(settings: Evaluation) -> dict[str, Any]:
    return {"query_prefix": settings.query_prefix, "passage_prefix": settings.passage_prefix}


def _dense(
    name: str,
    results: Path,
    load: Callable[[str], Encoder],
    folders: list[Path],
    how: dict[str, int | str],
    settings: Evaluation,
    prefixes: dict[str, Any],
    similarity: str,
) -> Dense:
    """A system with an encoder on each GPU there is, or on the CPU, and a store where the settings ask for one.

    folders: what the encoder is loaded from. how: what else its embeddings of a text depend on. prefixes: as `Dense`
    takes them.
    """
    devices = _devices()
    how |= {"devices": devices, "batch_tokens": settings.batch_tokens}
    encoders = [load(device) for device in devices]
    encoder: Encoder = Replicas(encoders) if len(encoders) > 1 else encoders[0]
    if settings.store_embeddings:
        key = sha256_json([how, *map(folder_sha256, folders)])[:16]
        encoder = Store(encoder, results / "embeddings" / name / key)
    return Dense(
        name,
        encoder,
        settings,
        similarity=similarity,
        device=devices[0],
        identity=sha256_json(how),
        **prefixes,
    )


def _devices() -> list[str]:
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
