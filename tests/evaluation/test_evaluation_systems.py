"""Systems: BM25 by hand, dense systems end to end on tiny models, what a run leaves out, wrong names, and closures."""

import json
import math

import numpy as np
import pytest
from benchmark_folders import Encoder, run_spec, task, write_bright, write_coir

from revela.errors import RevelaError
from revela.evaluation import EvaluationError
from revela.evaluation.bm25 import BM25
from revela.evaluation.dense import Dense
from revela.evaluation.ranking import run_task
from revela.evaluation.runs import read_run
from revela.evaluation.systems import load_ranker
from revela.evaluation.tasks import load_task
from revela.study.base import ConfigError
from revela.study.cell import Cell
from revela.study.code import import_closure
from revela.study.settings import Compute, Config, Evaluation
from revela.study.sheets import Model
from revela.study.study import Study
from revela.study.study import load as load_study
from revela.study.system import Api, Bm25, Trained, Untrained
from revela.study.system import Encoder as OffTheShelf


def model(name, kind, **columns):
    source = {"source": "path:anywhere"} if kind in ("backbone", "encoder") else {}
    return Model(scale="test", name=name, kind=kind, **source | columns)


def load(name, study):
    """The ranker of a system of a study."""
    return load_ranker(study.system(name), study.layout, study.config.compute)


def study(results, *models):
    config = Config(
        scale="test",
        results=str(results),
        datasets={"text": {"path": "."}},
        evaluation=Evaluation(query_prefix="Q:  ", passage_prefix="P:  ", max_length=32),
        compute=Compute(shard_documents=2),
        corpora={"wiki": {"sources": [{"dataset": "text"}]}},
    )
    return Study(config=config, models={row.name: row for row in models}, runs=[], tasks=[])


def part(folder, **content):
    return load_task(task("coir"), write_coir(folder, **content))[0]


class Fixed:
    """A system that ranks the same documents for every query."""

    name = "fixed"

    def __init__(self, *documents):
        self.ranking = [(document, float(-place)) for place, document in enumerate(documents)]

    def search(self, part, top_k, state=None):
        self.top_k = top_k
        return ((query, self.ranking[:top_k]) for query in part.queries)


# --- BM25


def test_bm25_by_hand(tmp_path):
    """Lucene's formula: ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * length / average))."""
    documents = {
        "d1": ("Cats", "the cat chased a cat"),  # cat cat chase cat: stop words and words of one letter are no words
        "d2": ("", "Dogs chasing, dogs barking!"),  # dog chase dog bark
        "d3": ("", "fish"),
        "d4": ("", ""),
    }
    queries = {"q1": "chases cats or dogs", "q2": "a of the", "q3": "unicorn cats"}
    case = part(tmp_path, documents=documents, queries=queries, qrels={query: {"d1": 1} for query in queries})

    def score(documents_with_word, frequency, length):
        idf = math.log(1 + (4 - documents_with_word + 0.5) / (documents_with_word + 0.5))
        return idf * frequency / (frequency + 1.5 * (1 - 0.75 + 0.75 * length / ((4 + 4 + 1 + 0) / 4)))

    rankings = dict(BM25().search(case, 10))
    chase, cat, dog = score(2, 1, 4), score(1, 3, 4), score(1, 2, 4)
    assert [id for id, _ in rankings["q1"]] == ["d1", "d2"]
    assert [value for _, value in rankings["q1"]] == pytest.approx([chase + cat, chase + dog], rel=1e-6)
    assert rankings["q2"] == []
    assert rankings["q3"] == [("d1", pytest.approx(cat, rel=1e-6))]


def test_bm25_that_weighs_queries_by_hand(tmp_path):
    """A query's words are weighed as a document's are: three cats and a dog, four words that the corpus has."""
    documents = {"d1": ("", "cats cats dogs"), "d2": ("", "dogs"), "d3": ("", "fish")}
    case = part(tmp_path, documents=documents, queries={"q": "cats cats unicorn cats dogs"}, qrels={"q": {"d1": 1}})

    def weight(documents_with_word, frequency, length):
        idf = math.log(1 + (3 - documents_with_word + 0.5) / (documents_with_word + 0.5))
        return idf * frequency / (frequency + 0.9 * (1 - 0.4 + 0.4 * length / (5 / 3)))

    bright = load("b", study(tmp_path, model("b", "bm25", source="k1=0.9;b=0.4;weigh-queries")))
    [(_, ranking)] = bright.search(case, 10)
    cat, dog = weight(1, 3, 4), weight(2, 1, 4)
    expected = {"d1": cat * weight(1, 2, 3) + dog * weight(2, 1, 3), "d2": dog * weight(2, 1, 1)}
    assert dict(ranking) == pytest.approx(expected, rel=1e-6)
    plain = load("b", study(tmp_path, model("b", "bm25", source="k1=0.9;b=0.4")))
    [(_, ranking)] = plain.search(case, 10)
    assert dict(ranking)["d1"] == pytest.approx(3 * weight(1, 2, 3) + weight(2, 1, 3), rel=1e-6)


def test_settings_of_bm25_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match=r"source 'k1=1': valid for BM25: k1=0\.9"):
        load("b", study(tmp_path, model("b", "bm25", source="k1=1")))


def test_bm25_of_duplicates_ties_exactly(tmp_path):
    documents = {id: ("", "red green blue") for id in ("d1", "d10", "d9")} | {"other": ("", "red")}
    case = part(tmp_path, documents=documents, queries={"q1": "blue red green"}, qrels={"q1": {"d1": 1}})
    [(_, ranking)] = BM25().search(case, 3)
    assert [id for id, _ in ranking] == ["d9", "d10", "d1"]
    assert len({score for _, score in ranking}) == 1


def test_bm25_without_words(tmp_path):
    case = part(tmp_path, documents={"d": ("", "a !")}, queries={"q": "x"}, qrels={"q": {"d": 1}})
    with pytest.raises(EvaluationError, match="t: no document has a word"):
        list(BM25().search(case, 3))


# --- what a run leaves out


def test_the_own_id_is_dropped_and_costs_no_place(tmp_path):
    documents = {id: ("", id) for id in ("a", "b", "c")}
    write_coir(tmp_path, documents=documents, queries={"a": "x", "q": "y"}, qrels={"a": {"b": 1}, "q": {"b": 1}})
    run_task(Fixed("a", "b", "c"), run_spec(task("coir"), top_k=10), tmp_path, tmp_path / "run.gz")
    assert {query: list(found) for query, found in read_run(tmp_path / "run.gz")} == {
        "a": ["b", "c"],
        "q": ["a", "b", "c"],
    }


@pytest.mark.parametrize("exclude", [True, False])
def test_exclusions_are_removed_before_the_cut(tmp_path, exclude):
    names = [f"d{number:02}" for number in range(30)]
    write_bright(
        tmp_path,
        documents={name: name for name in names},
        queries={"0": "x", "1": "y"},
        gold={"0": ["d20"], "1": ["d20"]},
        excluded={"0": names[:15]},
    )
    system = Fixed(*names)
    run_task(system, run_spec(task("bright"), top_k=10, exclude=exclude), tmp_path, tmp_path / "run.gz")
    run = dict(read_run(tmp_path / "run.gz"))
    assert list(run["0"]) == (names[15:25] if exclude else names[:10])
    assert list(run["1"]) == names[:10]
    assert system.top_k == 10 + 1 + (15 if exclude else 0)


def test_parts_of_a_task_are_kept_apart(tmp_path):
    for name in ("go", "ruby"):
        write_coir(tmp_path, name)
    run_task(Fixed("d1"), run_spec(task("coir", parts="go;ruby")), tmp_path, tmp_path / "run.gz")
    assert list(dict(read_run(tmp_path / "run.gz"))) == ["go/q1", "go/q2", "ruby/q1", "ruby/q2"]


# --- dense


def ones(texts):
    return np.ones((len(texts), 1))


def test_prefixes_are_put_in_front_and_the_whole_is_stripped(tmp_path):
    encoder = Encoder(ones)
    documents = {"d1": ("", "one\n"), "d2": ("two", ""), "d3": ("", "")}
    case = part(tmp_path, documents=documents, queries={"q": "  cats "}, qrels={"q": {"d1": 1}})
    ranker = Dense("test", encoder, shard_documents=2, query_prefix="query:  ", passage_prefix="passage:  ")
    list(ranker.search(case, 3))
    assert encoder.calls == [["query:    cats"], ["passage:  one", "passage:  two"], ["passage:"]]


def test_instructions(tmp_path):
    write_coir(tmp_path, queries={"q1": "cats"}, qrels={"q1": {"d1": 1}})
    encoder = Encoder(ones)
    system = Dense("test", encoder, shard_documents=2, query_prefix="Do: {task}\nQuery: ")
    [with_instruction] = load_task(task("coir", instruction="find code"), tmp_path)
    list(system.search(with_instruction, 3))
    assert encoder.calls[0] == ["Do: find code\nQuery: cats"]
    [without] = load_task(task("coir"), tmp_path)
    with pytest.raises(EvaluationError, match=r"needs an instruction in benchmarks\.tsv"):
        system.search(without, 3)


def by_hand(retriever, case, query_prefix, passage_prefix, cosine=True):
    """Every document of every query, with scores in float64."""

    def vectors(prefix, texts):
        found = retriever.encode([(prefix + text).strip() for text in texts]).astype(float)
        return found / np.linalg.norm(found, axis=1, keepdims=True) if cosine else found

    ids, texts = zip(*case.corpus, strict=True)
    scores = vectors(query_prefix, case.queries.values()) @ vectors(passage_prefix, texts).T
    return {
        query: sorted(zip(ids, row.tolist(), strict=True), key=lambda pair: -pair[1])
        for query, row in zip(case.queries, scores, strict=True)
    }


def assert_rankings(found, expected):
    found = dict(found)
    assert list(found) == list(expected)
    for query, ranking in expected.items():
        assert [id for id, _ in found[query]] == [id for id, _ in ranking]
        assert [score for _, score in found[query]] == pytest.approx([score for _, score in ranking], abs=1e-5)


@pytest.fixture
def results(tmp_path, backbone):
    """A results folder with the tiny backbone as the model `tiny`."""
    folder = tmp_path / "results" / "resources" / "models" / "tiny"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(backbone)
    return tmp_path / "results"


def test_untrained_backbone_and_trained_cell(tmp_path, results, backbone):
    """A cell that was trained no step ranks as its backbone does, whatever prefixes and length it was saved with."""
    from revela.retriever import Retriever

    cell = Cell("revela", "wiki", "tiny", "tiny", 4)
    saved = Retriever.from_backbone(backbone, query_prefix="other", passage_prefix="prefixes", max_length=5)
    saved.save(results / "models" / cell.path / "retriever")
    case = part(tmp_path)
    expected = by_hand(Retriever.from_backbone(backbone, max_length=32), case, "Q:  ", "P:  ")
    setup = study(results, model("tiny", "backbone"))
    for name in ("untrained/tiny", cell.path):
        system = load(name, setup)
        assert system.name == name
        assert_rankings(system.search(case, 10), expected)


def test_a_variant_is_evaluated_with_the_prefix_that_it_was_trained_with(tmp_path, results, backbone):
    from revela.retriever import Retriever

    cell = Cell("revela", "wiki", "tiny", "tiny", 4, "other")
    Retriever.from_backbone(backbone, max_length=32).save(results / "models" / cell.path / "retriever")
    setup = study(results, model("tiny", "backbone"))
    setup.config.variants["other"] = {"query_prefix": "Ask: "}
    expected = by_hand(Retriever.from_backbone(backbone, max_length=32), part(tmp_path), "Ask: ", "P:  ")
    assert_rankings(load(cell.path, setup).search(part(tmp_path), 10), expected)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_encoder_as_its_row_says(tmp_path, results, backbone, similarity):
    from revela.retriever import Retriever

    columns = {"pooling": "mean", "query_prefix": "ask:\\n", "similarity": similarity, "max_length": 16}
    system = load("tiny", study(results, model("tiny", "encoder", **columns)))
    case = part(tmp_path)
    retriever = Retriever.from_backbone(backbone, max_length=16, pooling="mean", normalize=False)
    assert_rankings(system.search(case, 10), by_hand(retriever, case, "ask:\n", "", cosine=similarity == "cosine"))


def test_passages_of_some_tasks_have_another_prefix(tmp_path, results):
    """E5 takes "query: " for both sides of Quora."""
    columns = {"pooling": "mean", "query_prefix": "query: ", "passage_prefix": "passage: "}
    row = model("tiny", "encoder", passage_prefixes="quora=query: ;other=x=y", **columns)
    system = load("tiny", study(results, row))
    assert system.passage_prefixes == {"quora": "query: ", "other": "x=y"}
    for name, expected in (("quora", "query: cats"), ("t", "passage: cats")):
        write_coir(tmp_path, name, documents={"d1": ("", "cats")}, qrels={"q1": {"d1": 1}})
        [case] = load_task(task("coir", name), tmp_path)
        system.encoder = Encoder(ones)
        list(system.search(case, 3))
        assert system.encoder.calls == [["query: cats"], [expected]]


def test_encoder_as_its_sentence_transformers_folder_says(tmp_path, results, backbone):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    from revela.retriever import Retriever

    folder = results / "resources" / "models" / "st"
    transformer = Transformer(str(backbone))
    if transformer.tokenizer.pad_token is None:
        transformer.tokenizer.pad_token = transformer.tokenizer.eos_token
    width = transformer.get_word_embedding_dimension()
    SentenceTransformer(modules=[transformer, Pooling(width, pooling_mode="mean")], device="cpu").save(str(folder))
    system = load("st", study(results, model("st", "encoder", query_prefix="ask: ", max_length=16)))
    case = part(tmp_path)
    retriever = Retriever.from_backbone(backbone, max_length=16, pooling="mean", normalize=False)
    assert_rankings(system.search(case, 10), by_hand(retriever, case, "ask: ", ""))


def test_encoder_without_pooling(results):
    with pytest.raises(EvaluationError, match=r"tiny: no modules\.json, so models\.tsv must give the pooling of tiny"):
        load("tiny", study(results, model("tiny", "encoder")))


# --- names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bm52", r"unknown system 'bm52'; did you mean 'bm25'\? Valid: a cell's path, untrained/tiny, bm25"),
        ("tiny", r"unknown system 'tiny'\. Valid: a cell's path, untrained/tiny, bm25, ada"),
        ("untrained/bm25", "unknown system 'untrained/bm25'"),
        ("ada", "ada: the environment has no OPENAI_API_KEY"),
    ],
)
def test_names_that_cannot_be_run(tmp_path, monkeypatch, name, message):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    ada = model("ada", "api", source="openai:text-embedding-ada-002")
    models = [model("tiny", "backbone"), model("bm25", "bm25"), ada]
    with pytest.raises(RevelaError, match=message):
        load(name, study(tmp_path, *models))


def test_cell_that_was_not_trained(tmp_path):
    from revela.retriever import RetrieverError

    with pytest.raises(RetrieverError, match="bs4/retriever: no "):
        load("revela/wiki/tiny/tiny/bs4", study(tmp_path, model("tiny", "backbone")))
    with pytest.raises(ConfigError, match="unknown 'large'"):
        load("revela/wiki/large/tiny/bs4", study(tmp_path, model("tiny", "backbone")))


def test_start_up_is_light(tmp_path, backbone):
    """A BM25 job, reading and scoring load no torch. A dense job loads only what its model needs."""
    import subprocess
    import sys

    write_coir(tmp_path)
    code = (
        "import json, sys\n"
        "from revela.evaluation import anchors, scores, significance\n"
        "from revela.evaluation.ranking import run_task\n"
        "from revela.evaluation.systems import load_ranker\n"
        "from revela.study.layout import Layout\n"
        "from revela.study.settings import Compute\n"
        "from revela.study.specification import RunSpec\n"
        f"spec = RunSpec.model_validate_json({run_spec(task('coir')).model_dump_json()!r})\n"
        "ranker = load_ranker(spec.system, Layout('results'), Compute())\n"
        f"run_task(ranker, spec, {str(tmp_path)!r}, {str(tmp_path / 'run.gz')!r})\n"
        "print(json.dumps(sorted(sys.modules)))\n"
        "from revela.retriever import Retriever\n"
        f"Retriever.from_backbone({str(backbone)!r}, max_length=9).encode(['a'])\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    sparse, dense = (set(json.loads(line)) for line in output.splitlines())
    needless = {"pandas", "datasets", "coir", "beir", "matplotlib", "snakemake"}
    assert not {"torch", "transformers", *needless} & sparse
    assert not {"peft", "deepspeed", "sentence_transformers", "sklearn", "torchvision", *needless} & dense
    assert "transformers" in dense and (tmp_path / "run.gz").exists()


def test_settings_of_the_paper_by_task(monkeypatch):
    """E5-Mistral reads an instruction, E5 sees queries on both sides in Quora, and BRIGHT has its own BM25."""
    from pathlib import Path

    monkeypatch.chdir(Path(__file__).parents[2])
    paper = load_study("config/config.yaml")
    assert {name for name, row in paper.models.items() if row.passage_prefixes == "quora=query: "} == {
        "e5-pt-large",
        "e5-base-v2",
    }
    assert paper.table_systems("table7")["BM25"] == "bm25-bright"
    bright = load("bm25-bright", paper)
    assert (bright.k1, bright.b, bright.weigh_queries) == (0.9, 0.4, True)
    assert "{task}" in paper.models["e5-mistral"].query_prefix
    assert [task.key for task in paper.tasks if not task.instruction] == []


# --- the code behind a ranking


RANKING = {"evaluation", "evaluation.ranking", "evaluation.runs", "evaluation.splits", "evaluation.tasks"}
DENSE = {"evaluation.dense", "evaluation.search", "evaluation.workers", "lookahead"}
LOCAL = {"evaluation.encoders", "evaluation.store", "retriever", "pretrained", "provenance"}


@pytest.mark.parametrize(
    ("kind", "needs"),
    [(Bm25, set()), (Api, DENSE), (Trained, DENSE | LOCAL), (Untrained, DENSE | LOCAL), (OffTheShelf, DENSE | LOCAL)],
)
def test_a_ranking_depends_on_the_code_of_its_kind_alone(kind, needs):
    """No kind of system imports another's module, and `ranking` imports none of them."""
    common = {"revela", *(f"revela.{name}" for name in ("errors", "files", "text", "text.rows"))}
    ranking, own = set(import_closure("revela.evaluation.ranking")), set(import_closure(kind.module))
    expected = {f"revela.{name}" for name in needs} | {kind.module}
    assert ranking - common == {f"revela.{name}" for name in RANKING}
    assert {name for name in own - common - ranking if not name.startswith("revela.method")} == expected
    assert not any(name.startswith("revela.study") for name in ranking | own)


@pytest.mark.parametrize("module", ["scores", "anchors", "significance", "language_models"])
def test_scores_depend_on_no_system(module):
    modules = {kind.module for kind in (Bm25, Api, Trained, OffTheShelf)} | {"revela.evaluation.search"}
    assert not modules & set(import_closure(f"revela.evaluation.{module}"))
