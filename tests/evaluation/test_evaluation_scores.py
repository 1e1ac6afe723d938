"""Scores by hand, run files to the last byte, and agreement with beir on real data."""

import gzip
import json
import math

import numpy as np
import pytest
from benchmark_folders import Encoder, real_cosqa, run_spec, task, write_beir, write_bright, write_coir

from revela.evaluation import EvaluationError
from revela.evaluation.anchors import check_anchors, write_anchors
from revela.evaluation.bm25 import BM25
from revela.evaluation.dense import Dense
from revela.evaluation.ranking import run_task
from revela.evaluation.runs import read_run, write_run
from revela.evaluation.scores import METRICS, PROTOCOL, Evaluator, score_benchmark, score_task
from revela.evaluation.tasks import load_task
from revela.study.specification import AnchorSpec, ScoreSpec
from revela.study.system import Api, Bm25, Untrained

LOG = math.log2
AS_RUN = {"document_text": "title+text", "top_k": 1000}


def ranked(*documents):
    """A run of one query: documents, best first, without ties."""
    return {document: float(-place) for place, document in enumerate(documents)}


def evaluate(qrels, run, **options):
    """Measures of each query of a whole run."""
    evaluator = Evaluator(qrels, **options)
    for query, documents in run.items():
        evaluator.add(query, documents)
    return evaluator.per_query


# --- measures by hand


def test_one_relevant_document_at_second_place():
    scores = evaluate({"q": {"a": 1}}, {"q": ranked("b", "a", "c")})
    assert scores == {
        "q": {
            "nDCG@1": 0,
            "nDCG@10": pytest.approx(1 / LOG(3)),
            "nDCG@100": pytest.approx(1 / LOG(3)),
            "MAP": 0.5,
            "MRR@10": 0.5,
            "Recall@10": 1,
            "Recall@100": 1,
            "Recall@1000": 1,
        }
    }


def test_graded_relevance_with_linear_gain():
    scores = evaluate({"q": {"a": 2, "b": 1, "x": 0, "lost": 1}}, {"q": ranked("b", "x", "a")})["q"]
    ideal = 2 + 1 / LOG(3) + 1 / LOG(4)
    assert scores["nDCG@10"] == pytest.approx((1 + 2 / LOG(4)) / ideal)
    assert scores["nDCG@1"] == pytest.approx(1 / 2)
    assert scores["MAP"] == pytest.approx((1 / 1 + 2 / 3) / 3)
    assert scores["Recall@10"] == pytest.approx(2 / 3)
    assert scores["MRR@10"] == 1


@pytest.mark.parametrize(("place", "mrr", "recall"), [(10, 1 / 10, 1), (11, 0, 0)])
def test_the_cut_at_ten(place, mrr, recall):
    others = [f"x{number}" for number in range(20)]
    scores = evaluate({"q": {"a": 1}}, {"q": ranked(*others[: place - 1], "a", *others[place - 1 :])})["q"]
    assert (scores["MRR@10"], scores["Recall@10"]) == (pytest.approx(mrr), recall)
    assert scores["nDCG@10"] == pytest.approx(recall / LOG(1 + place))
    assert scores["nDCG@100"] == pytest.approx(1 / LOG(1 + place))


def test_ties_fall_by_descending_id():
    tied = {"q": {"d1": 1.0, "d9": 1.0, "d10": 1.0}}
    places = {document: 1 / evaluate({"q": {document: 1}}, tied)["q"]["MRR@10"] for document in tied["q"]}
    assert places == pytest.approx({"d9": 1, "d10": 2, "d1": 3})


def test_scores_are_compared_as_float32():
    """So trec_eval keeps them: what differs only beyond float32 is a tie."""
    assert evaluate({"q": {"a": 1}}, {"q": {"a": 1 + 1e-12, "b": 1.0}})["q"]["MRR@10"] == 0.5


def test_queries_without_results_count_and_without_relevant_documents_do_not():
    scores = evaluate(
        {"found": {"a": 1}, "lost": {"a": 1}, "empty": {"a": 1}, "none": {"a": 0}},
        {
            "found": ranked("a"),
            "empty": {},
            "none": ranked("a"),
            "unjudged": ranked("a"),
        },
    )
    assert {query: values["nDCG@10"] for query, values in scores.items()} == {"found": 1, "lost": 0, "empty": 0}


def test_no_measure_looks_deeper_than_the_run():
    deep = {name for name, (_, depth) in METRICS.items() if depth > 50}
    assert deep == {"nDCG@100", "Recall@100", "Recall@1000"}
    assert set(evaluate({"q": {"a": 1}}, {"q": ranked("a")}, top_k=50)["q"]) == set(METRICS) - deep


# --- run files


RANKINGS = [("q 1", [("doc one", 0.1), ("50%", np.float32(1 / 3).item())]), ("q2", []), ("ü", [("d", -1e-30)])]


def test_a_run_survives_to_the_last_bit(tmp_path):
    write_run(tmp_path / "a.run.gz", RANKINGS, "my folder/system")
    lines = gzip.decompress((tmp_path / "a.run.gz").read_bytes()).decode()
    assert lines.splitlines()[0] == "q%201 Q0 doc%20one 1 0.1 my%20folder/system"
    run = dict(read_run(tmp_path / "a.run.gz"))
    assert list(run) == ["q 1", "ü"]
    assert {document: np.float32(score) for document, score in run["q 1"].items()} == {
        "doc one": np.float32(0.1),
        "50%": np.float32(1 / 3),
    }
    assert np.float32(run["ü"]["d"]) == np.float32(-1e-30)


def test_equal_runs_are_equal_bytes(tmp_path):
    for name in ("a.run.gz", "b.run.gz"):
        write_run(tmp_path / name, RANKINGS, "system")
    first, second = ((tmp_path / name).read_bytes() for name in ("a.run.gz", "b.run.gz"))
    assert first == second
    assert first[4:8] == bytes(4)  # gzip's time stamp


def test_nothing_half_written_stays(tmp_path):
    def rankings():
        yield "q", [("d", 1.0)]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_run(tmp_path / "a.run.gz", rankings(), "system")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("q Q0 d 1 0.5 s\nq Q0 d 2\n", ":2: not a whole run file"),
        ("q Q0 d 1 half s\n", ":1: not a whole run file"),
        ("q Q0 d 1 0.5 s\nq Q0 d 2 0.4 s\n", ":2: .*document 'd' stands twice for query 'q'"),
        ("q Q0 d 1 0.5 s\np Q0 d 1 0.4 s\nq Q0 e 2 0.4 s\n", ":3: .*query 'q' stands in two places"),
        ("q Q0 d 1 nan s\n", ":1: .*score 'nan'"),
        ("q Q0 d 1 0.5 s\n\n", ":2: not a whole run file"),
    ],
)
def test_broken_runs(tmp_path, lines, fault):
    path = tmp_path / "a.run.gz"
    path.write_bytes(gzip.compress(lines.encode()))
    with pytest.raises(EvaluationError, match=r"a\.run\.gz" + fault):
        list(read_run(path))


def test_truncated_run(tmp_path):
    path = tmp_path / "a.run.gz"
    write_run(path, [(f"q{number}", [("d", 0.5)]) for number in range(1000)], "system")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(EvaluationError, match=r"a\.run\.gz:\d+: not a whole run file"):
        list(read_run(path))


# --- tasks and benchmarks


def test_mean_over_parts_is_unweighted(tmp_path):
    write_coir(tmp_path, "go", qrels={"q1": {"d1": 1}, "q2": {"d9": 1}})
    write_coir(tmp_path, "ruby", qrels={"q1": {"d1": 1}})
    row = task("coir", parts="go;ruby")
    run = [("go/q1", [("d1", 1.0)]), ("go/q2", [("d1", 1.0), ("d9", 0.5)]), ("ruby/q1", [("d2", 1.0)])]
    write_run(tmp_path / "run.gz", run, "system")
    scores = score_task(row, tmp_path, tmp_path / "run.gz", **AS_RUN)
    go = (1 + 1 / LOG(3)) / 2
    assert scores["parts"]["go"]["metrics"]["nDCG@10"] == pytest.approx(go)
    assert scores["parts"]["ruby"]["metrics"]["nDCG@10"] == 0
    assert scores["metrics"]["nDCG@10"] == pytest.approx(go / 2)


def test_a_benchmark_as_json(tmp_path):
    write_beir(tmp_path, "one", qrels={"q1": {"d1": 1}, "q2": {"d9": 0}})
    write_beir(tmp_path, "two", documents={"d1": ("", "same"), "d2": ("", "same")}, qrels={"q1": {"d1": 1}})
    rows = [task("beir", "one"), task("beir", "two")]
    write_run(tmp_path / "one.gz", [("q1", [("d2", 2.0), ("d1", 1.0)]), ("q2", [("d9", 1.0)])], "system")
    write_run(tmp_path / "two.gz", [], "system")
    bm25 = Bm25(name="system", k1=1.5, b=0.75, weigh_queries=False)
    spec = ScoreSpec(system=bm25, benchmark="beir", tasks=rows, document_text="title+text", exclude=True, top_k=20)
    runs = {row.task: tmp_path / f"{row.task}.gz" for row in rows}
    score_benchmark(spec, {"set": tmp_path}, runs, tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["system"], scores["benchmark"], list(scores["tasks"])) == ("system", "beir", ["one", "two"])
    assert scores["protocol"]["document_text"] == "title+text"
    assert (scores["protocol"]["k1"], scores["protocol"]["exclude"], scores["protocol"]["top_k"]) == (1.5, True, 20)
    assert set(scores["provenance"]["runs"]) == {"one", "two"}
    assert set(scores["provenance"]["datasets"]) == {"set"}
    one, two = (scores["tasks"][name]["parts"][name] for name in ("one", "two"))
    assert one["counts"] == {
        "documents": 4,
        "different documents": 4,
        "queries": 1,
        "queries without a relevant document": 1,
        "queries without a result": 0,
        "relevant judgements": 1,
    }
    assert one["queries"] == ["q1"] and one["per_query"]["nDCG@10"] == [0.63093]
    assert scores["tasks"]["one"]["metrics"]["nDCG@10"] == pytest.approx(1 / LOG(3))
    assert two["counts"]["different documents"] == 1 and two["counts"]["queries without a result"] == 1
    assert scores["tasks"]["two"]["metrics"]["nDCG@10"] == 0
    assert "nDCG@100" not in one["metrics"]


@pytest.mark.parametrize(
    ("system", "keys"),
    [
        (
            Untrained(name="untrained/tiny", query_prefix="Q: ", passage_prefix="", max_length=9, batch_tokens=64),
            {"query_prefix": "Q: ", "passage_prefix": "", "max_length": 9, "batch_tokens": 64, "precision": "fp32"},
        ),
        (
            Api(name="ada", provider="openai", model="ada-002", price=0.1, max_length=9),
            {"provider": "openai", "model": "ada-002", "max_length": 9},
        ),
    ],
)
def test_the_protocol_says_how_the_system_read_texts(tmp_path, system, keys):
    """A model card quotes the prefixes and the length from here."""
    write_beir(tmp_path)
    write_run(tmp_path / "run.gz", [], system.name)
    spec = ScoreSpec(
        system=system, benchmark="beir", tasks=[task("beir")], document_text="text", exclude=False, top_k=10
    )
    scores = score_benchmark(spec, {"set": tmp_path}, {"t": tmp_path / "run.gz"}, tmp_path / "scores.json")
    assert scores["system"] == system.name
    assert scores["protocol"] == {**keys, "document_text": "text", "exclude": False, "top_k": 10, **PROTOCOL}


def test_a_run_of_another_task(tmp_path):
    write_beir(tmp_path)
    write_run(tmp_path / "run.gz", [("q3", [("d1", 1.0)])], "system")
    row = task("beir")
    with pytest.raises(EvaluationError, match=r"run\.gz: query 'q3' is not a query of beir/t"):
        score_task(row, tmp_path, tmp_path / "run.gz", **AS_RUN)


def test_no_relevant_document_at_all(tmp_path):
    write_beir(tmp_path, qrels={"q1": {"d1": 0}})
    write_run(tmp_path / "run.gz", [("q1", [("d1", 1.0)])], "system")
    row = task("beir")
    with pytest.raises(EvaluationError, match="no query of t has a relevant document"):
        score_task(row, tmp_path, tmp_path / "run.gz", **AS_RUN)


# --- from a folder to the numbers, by hand


class Table(Encoder):
    """An encoder that knows the vector of each text."""

    def __init__(self, **vectors):
        super().__init__(lambda texts: np.array([vectors[text.replace(" ", "_")] for text in texts], np.float32))


def numbers(ranker, row, folder, **options):
    """nDCG@10 of each query, through a run file."""
    spec = run_spec(row, **options)
    run_task(ranker, spec, folder, folder / "run.gz")
    read_as = {"document_text": spec.document_text, "top_k": spec.top_k}
    [scores] = score_task(row, folder, folder / "run.gz", **read_as)["parts"].values()
    return dict(zip(scores["queries"], scores["per_query"]["nDCG@10"], strict=True)), scores["metrics"]["nDCG@10"]


def dense(**vectors):
    return Dense("dense", Table(**vectors), shard_documents=50_000)


def test_one_query_whose_answer_has_duplicates(tmp_path):
    """A set of one query. Its document, which has no title, ties with two duplicates. The order is d2, which is better,
    then d9, d5, d1."""
    documents = {"d1": ("", "same"), "d2": ("a", "better"), "d5": ("", "same"), "d9": ("", "same"), "d0": ("", "")}
    write_beir(tmp_path, documents=documents, queries={"q": "ask"}, qrels={"q": {"d1": 1}})
    system = dense(ask=[1.0], same=[0.5], a_better=[0.75], **{"": [0.0]})
    found, mean = numbers(system, task("beir"), tmp_path)
    assert found == {"q": round(1 / LOG(5), 6)} and mean == pytest.approx(1 / LOG(5))


def test_arguments_do_not_retrieve_themselves(tmp_path):
    """Without the own id the answer is first for `a`; for `b`, which is no document's id, it is second."""
    documents = {"a": ("", "claim"), "c": ("", "counter")}
    qrels = {"a": {"c": 1}, "b": {"c": 1}, "n": {"c": 0}}
    write_beir(tmp_path, documents=documents, queries=dict.fromkeys("abn", "claim"), qrels=qrels)
    found, mean = numbers(dense(claim=[1.0], counter=[0.5]), task("beir"), tmp_path)
    assert found == {"a": 1.0, "b": round(1 / LOG(3), 6)}  # n has no relevant document
    assert mean == pytest.approx((1 + 1 / LOG(3)) / 2)


@pytest.mark.parametrize("exclude", [True, False])
def test_excluded_documents_of_bright(tmp_path, exclude):
    """Twelve documents rank before the gold one, eleven of which are excluded for one query and none for the other."""
    names = [f"d{number:02}" for number in range(12)]
    write_bright(
        tmp_path,
        documents={name: name for name in [*names, "gold"]},
        queries={"0": "ask", "1": "ask"},
        gold={"0": ["gold"], "1": ["gold"]},
        excluded={"0": names[1:]},
    )
    vectors = {name: [2.0 + place] for place, name in enumerate(names)} | {"gold": [1.0], "ask": [1.0]}
    found, _ = numbers(dense(**vectors), task("bright"), tmp_path, exclude=exclude, top_k=10)
    assert found == {"0": round(1 / LOG(3), 6) if exclude else 0.0, "1": 0.0}


def test_an_error_leaves_nothing(tmp_path):
    write_beir(tmp_path / "data", documents={"d": ("", "x")}, queries={"q": "ask"}, qrels={"q": {"d": 1}})
    ranker = dense(ask=[1.0], x=[np.nan])
    (tmp_path / "runs").mkdir()
    with pytest.raises(EvaluationError, match="the embedding of document 'd' is not finite"):
        run_task(ranker, run_spec(task("beir")), tmp_path / "data", tmp_path / "runs" / "run.gz")
    assert list((tmp_path / "runs").iterdir()) == []


# --- anchors


def test_anchors(tmp_path):
    """Second place is worth 1 / log2(3): 63.09 in percent."""
    write_beir(tmp_path, qrels={"q1": {"d1": 1}})
    write_run(tmp_path / "run.gz", [("q1", [("d2", 2.0), ("d1", 1.0)])], "system")
    published = {"right": 63.1, "near": 62.5, "wrong": 70.0}
    spec = AnchorSpec(systems=list(published), tasks=[task("beir")] * 3, ndcg10=list(published.values()), **AS_RUN)
    rows = check_anchors(spec, {"set": tmp_path}, [tmp_path / "run.gz"] * 3)
    assert rows == [
        ["right", "beir", "t", "63.10", "63.09", "-0.01", "OK"],
        ["near", "beir", "t", "62.50", "63.09", "+0.59", "close"],
        ["wrong", "beir", "t", "70.00", "63.09", "-6.91", "FAIL"],
    ]
    write_anchors(rows, tmp_path / "anchors.csv", tmp_path / "anchors.md")
    assert (tmp_path / "anchors.csv").read_text().splitlines()[1] == "right,beir,t,63.10,63.09,-0.01,OK"
    assert (tmp_path / "anchors.md").read_text().splitlines()[2] == "| " + " | ".join(rows[0]) + " |"


# --- against other harnesses, on real data


def test_bm25_on_cosqa_as_by_beir_and_bm25s(tmp_path):
    """Through this project, and through bm25s' own functions with beir's evaluation.

    bm25s fills a ranking up with documents of score 0, which share no word with the query. Here they are not
    retrieved, so they are taken out there as well; they touch Recall@1000 alone (0.924 without, 0.928 with them).
    """
    import bm25s
    import Stemmer
    from beir.retrieval.evaluation import EvaluateRetrieval

    folder, row = real_cosqa(), task("coir", "cosqa")
    run_task(BM25(), run_spec(row), folder, tmp_path / "run.gz")
    scores = score_task(row, folder, tmp_path / "run.gz", **AS_RUN)["metrics"]

    [part] = load_task(row, folder)
    words = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    ids, texts = zip(*part.corpus, strict=True)
    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    index.index(bm25s.tokenize(list(texts), **words), show_progress=False)
    queries = bm25s.tokenize(list(part.queries.values()), **words)
    found, values = index.retrieve(queries, k=1000, show_progress=False)
    theirs = {
        query: {ids[document]: float(score) for document, score in zip(documents, scored, strict=True) if score > 0}
        for query, documents, scored in zip(part.queries, found, values, strict=True)
    }
    # beir's MRR keeps the order of documents with equal scores, in which bm25s leaves them as numpy's partition on this
    # CPU does; its other metrics, trec_eval's, take the greater id first.
    theirs = {q: dict(sorted(of.items(), key=lambda item: item[::-1], reverse=True)) for q, of in theirs.items()}
    ndcg, mean_ap, recall, _ = EvaluateRetrieval.evaluate(part.qrels, theirs, [1, 10, 100, 1000])
    mrr = EvaluateRetrieval.evaluate_custom(part.qrels, theirs, [10], "mrr")
    for ours, other in {
        "nDCG@1": ndcg["NDCG@1"],
        "nDCG@10": ndcg["NDCG@10"],
        "nDCG@100": ndcg["NDCG@100"],
        "MAP": mean_ap["MAP@1000"],
        "MRR@10": mrr["MRR@10"],
        "Recall@10": recall["Recall@10"],
        "Recall@100": recall["Recall@100"],
        "Recall@1000": recall["Recall@1000"],
    }.items():
        assert scores[ours] == pytest.approx(other, abs=1e-4), ours
