"""Own text for real: articles to a retriever that plain sentence-transformers loads, and the same numbers from both.

All of the articles and of CosQA, instead of some, and 60 steps, instead of two: `pytest -s -m by_hand
tests/command/test_own_corpus.py`.
"""

import json
import pydoc_data.topics
import time
from pathlib import Path
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_folders import cosqa_of_distinct, shared_data, write_beir
from retrievers import PREFIXES
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from revela.command.cli import main
from revela.evaluation.runs import read_run
from revela.evaluation.tasks import load_task
from revela.retriever import Retriever
from revela.study.sheets import Task

ROOT = Path(__file__).parents[2]
BACKBONE = ROOT / "resources/backbones/tiny-4m"
WORDS = 100  # in a passage


def training(steps, length):
    """Options of so many steps on texts cut at so many tokens."""
    return [f"--steps={steps}", *(f"--set=training.{limit}_max_length={length}" for limit in ("retriever", "lm"))]


def command(*arguments):
    """Whether a command of the project succeeds."""
    return main([str(argument) for argument in arguments]) == 0


def write_leads(folder, articles):
    """A benchmark in BEIR's layout: an article's first sentence finds the article's passages, but for the first."""
    documents, queries, qrels = {}, {}, {}
    for number, text in enumerate(articles):
        words = text.split()
        passages = [" ".join(words[start : start + WORDS]) for start in range(WORDS, len(words), WORDS)]
        if passages:
            found = {f"a{number}p{place}": passage for place, passage in enumerate(passages)}
            documents |= {name: ("", passage) for name, passage in found.items()}
            queries[f"a{number}"] = text.partition(". ")[0]
            qrels[f"a{number}"] = dict.fromkeys(found, 1)
    return write_beir(folder, "leads", documents=documents, queries=queries, qrels=qrels) / "leads"


@pytest.fixture(scope="module", params=["some", pytest.param("all", marks=pytest.mark.by_hand)], ids=["some", "all"])
def place(request, tmp_path_factory):
    """A folder with articles, a study `out` of them, and an export `before` of the backbone as it came."""
    folder, whole = tmp_path_factory.mktemp("own"), request.param == "all"
    wikitext = shared_data() / "wikitext/data"
    if wikitext.is_dir():
        articles = pq.read_table(wikitext)["text"].to_pylist()[: None if whole else 4]
    elif whole:
        pytest.skip(f"needs the articles in {wikitext}")
    else:
        articles = [text for text in pydoc_data.topics.topics.values() if len(text.split()) > 5 * WORDS][:4]
    (folder / "articles").mkdir()
    pq.write_table(pa.table({"text": articles}), folder / "articles/articles.parquet")
    write_leads(folder, articles)
    options = ["train", "--text", folder / "articles", "--backbone", BACKBONE, "--out", folder / "out", "--json"]
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        assert command(*options, *(training(60, 64) if whole else training(2, 40)))
    print(f"trained in {time.monotonic() - started:.0f} s")
    assert whole or not command(*options, "--steps=3")  # the study in `out` says otherwise
    Retriever.from_backbone(BACKBONE, **PREFIXES, max_length=512).save(folder / "start")
    assert command("export", folder / "start", folder / "before")
    return folder


def test_articles_become_a_retriever(place):
    """The chain by Snakemake, on a CPU: chunks, batches, training, export."""
    out, cell = place / "out", "revela/mine/tiny-4m/tiny-4m/bs16"
    assert (out / "retriever").resolve() == out / "exports" / cell
    assert f"`mine`: local files `{place}/articles`" in (out / "retriever/README.md").read_text()
    losses = [json.loads(line)["loss"] for line in (out / "models" / cell / "log.jsonl").read_text().splitlines()]
    assert min(losses) > 0
    first, last = fmean(losses[:10]), fmean(losses[-10:])
    assert last < first or len(losses) < 20  # two steps are of different text, and tell nothing
    chunks = pq.read_table(out / "corpora/mine/chunks.parquet").to_pylist()
    assert len(chunks) >= 4 and all(row["document"].startswith("mine/") for row in chunks)
    print(f"{first:.3f} -> {last:.3f} in {len(losses)} steps, means of ten")


@pytest.mark.parametrize("model", ["before", "out/retriever"])
@pytest.mark.parametrize("layout", ["beir", "coir"])
def test_numbers_are_those_of_sentence_transformers(place, layout, model, request, tmp_path, capsys):
    """On a folder in BEIR's layout, and on the real CosQA in CoIR's, by the InformationRetrievalEvaluator.

    All judgements are 1, as the evaluator takes them, and no two documents are the same text, so that none tie.
    """
    folder, options, part = place / "leads", [], "leads"
    if layout == "coir":
        some = () if "all" in request.node.name else (40, 300)
        folder, options, part = cosqa_of_distinct(tmp_path, *some), ["--layout=coir", "--part=cosqa"], "cosqa"
    capsys.readouterr()
    assert command(
        "evaluate", place / model, folder, *options, "--precision=fp32", "--run", tmp_path / "r.run.gz", "--json"
    )
    found = json.loads(capsys.readouterr().out)

    task = Task(scale="x", benchmark="x", task="x", label="x", layout=layout, dataset="x", parts=part)
    (loaded,) = load_task(task, folder)
    assert found["queries"] == len(loaded.queries) == len(dict(read_run(tmp_path / "r.run.gz")))
    evaluator = InformationRetrievalEvaluator(
        loaded.queries,
        dict(loaded.corpus),
        {query: set(judged) for query, judged in loaded.qrels.items()},
        precision_recall_at_k=[10],
        map_at_k=[1000],
        write_csv=False,
    )
    theirs = evaluator(SentenceTransformer(str(place / model), device="cpu"))
    named = {"nDCG@10": "ndcg@10", "MRR@10": "mrr@10", "Recall@10": "recall@10", "MAP": "map@1000"}
    ours = {name: found["metrics"][name] for name in named}
    theirs = {name: float(theirs[f"cosine_{one}"]) for name, one in named.items()}
    print(json.dumps({"here": ours, "there": theirs}, indent=1))
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert 0 < ours["MAP"] < 1
