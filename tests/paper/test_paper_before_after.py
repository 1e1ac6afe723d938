"""The page of answers before and after training: which queries are chosen, what is marked, and that it is safe to open."""

import random
from html.parser import HTMLParser

import pytest
from benchmark_folders import write_beir

from revela.evaluation.runs import write_run
from revela.paper.before_after import answers, choose, write_before_after
from revela.study.sheets import Task
from revela.study.specification import ScoreSpec, score_spec
from revela.study.study import load

CELL = "revela/code/tiny-4m/tiny-4m/bs16"
DOCUMENTS = {f"d{n}": ("", f"text number {n}") for n in range(30)}


@pytest.fixture
def spec(monkeypatch):
    """One task, named as the folder that a test writes."""
    from pathlib import Path

    monkeypatch.chdir(Path(__file__).parents[2])
    whole = score_spec(load("config/tiny.yaml"), CELL, "beir-tiny")
    task = Task(scale="tiny", benchmark="beir-tiny", task="one", label="One", layout="beir", dataset="set")
    return ScoreSpec.model_validate(whole.model_dump() | {"tasks": [task.model_dump()]})


def make(spec, folder, ranks, *, texts=None, queries=None):
    """(what was found, the page): queries q0, q1, ... whose right text d0 stands at (rank before, rank after); 0: nowhere."""
    queries = queries or {f"q{n:02}": f"query {n}" for n in range(len(ranks))}
    write_beir(
        folder, "set", documents=DOCUMENTS | (texts or {}), queries=queries, qrels={q: {"d0": 1} for q in queries}
    )
    runs = []
    for side in (0, 1):
        rankings = []
        for query, pair in zip(queries, ranks):
            order = [f"d{n}" for n in range(1, 13)]
            if pair[side]:
                order.insert(pair[side] - 1, "d0")
            rankings.append((query, [(document, 1 - place / 100) for place, document in enumerate(order)]))
        runs.append({"one": folder / f"{side}.run.gz"})
        write_run(runs[-1]["one"], rankings, "system")
    datasets = {"set": folder / "set"}
    write_before_after(spec, datasets, *runs, folder / "page.html")
    return list(answers(spec, datasets, *runs)), (folder / "page.html").read_text()


def test_the_queries_are_spread_over_all_that_have_an_answer(spec, tmp_path):
    """30 queries of which 20 have the right text among the first ten of a ranking: every second of them is shown."""
    ranks = [(0, 0)] * 5 + [(12, 11)] * 5 + [(n % 10 + 1, (n * 7) % 10 + 1) for n in range(20)]
    random.Random(0).shuffle(ranks)
    found, page = make(spec, tmp_path, ranks)
    rises = sorted((1 / b - 1 / a for a, b in ranks if a and min(a, b) <= 10), reverse=True)
    assert [one.rise for one in choose(found)] == pytest.approx(rises[1::2])
    assert page.count("<article>") == 10 and "Of 30 queries, 20 have a right text" in page
    assert make(spec, tmp_path / "again", ranks)[1] == page


def test_marks_ranks_and_shares(spec, tmp_path):
    """Worked by hand: one query rises from rank 12 to 1, one falls from 3 to nowhere, one is never answered."""
    _, page = make(spec, tmp_path, [(12, 1), (3, 0), (0, 0)])
    assert page.count('class="right"') == 2 and page.count('class="wrong"') == 2 * 3 * 2 - 2
    for share in ("<td>0.0 %</td><td>33.3 %</td>", "<td>33.3 %</td><td>33.3 %</td>"):
        assert share in page
    assert "first right text at rank 12" in page and "first right text at rank 1<" in page
    assert "no right text among the first 12" in page and "rose for 1 and fell for 1" in page
    assert page.index("query 0") < page.index("query 1") and "query 2" not in page


def test_the_page_holds_nothing_but_text(spec, tmp_path):
    """Texts cannot break out of it, and it loads nothing from elsewhere."""
    evil = '<script>alert(1)</script> & "quoted" <img src=x onerror=alert(1)>'
    _, page = make(spec, tmp_path, [(1, 1)], texts={"d0": ("", evil)}, queries={"q": evil})

    class Tags(HTMLParser):
        found, text = [], ""

        def handle_starttag(self, tag, attributes):
            self.found.append((tag, attributes))

        def handle_data(self, data):
            self.text += data

    parser = Tags()
    parser.feed(page)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in parser.found}
    assert not [name for _, attributes in parser.found for name, _ in attributes if name in ("src", "href", "onerror")]
    assert parser.text.count(evil) == 3  # the query, and the text in both rankings
    assert 'name="viewport"' in page and "prefers-color-scheme: dark" in page


def test_no_query_is_answered(spec, tmp_path):
    _, page = make(spec, tmp_path, [(0, 0)])
    assert "<article>" not in page and "Of 1 queries, 0 have" in page
