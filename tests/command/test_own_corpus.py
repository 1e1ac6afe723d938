"""Own text for real: articles to a retriever that plain sentence-transformers loads, and the same numbers from both.

What was held out of training is compared on, and the page says so; a browser opens it.

All of the articles and of CosQA, instead of some, and 60 steps, instead of two: `pytest -s -m by_hand
tests/command/test_own_corpus.py`.
"""

import io
import json
import pydoc_data.topics
import re
import time
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_folders import cosqa_of_distinct, shared_data, write_beir
from browser import CHROMIUM, Browser
from retrievers import PREFIXES
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from revela.command.cli import main
from revela.evaluation.runs import read_run
from revela.evaluation.tasks import load_task
from revela.retriever import Retriever
from revela.study.sheets import Task
from revela.text.documents import is_held_out

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


def write_notes(folder, texts):
    """Sixty notes of four sections, so that a fifth of them gives some forty questions."""
    words = [word for word in " ".join(texts).split() if word.isalpha()]
    for number in range(60):
        lines = []
        for section in range(4):
            some = words[(97 * number + 31 * section) % (len(words) - 60) :][:60]
            lines += [f"## What {some[0]} and {some[1]} mean in note {number}", "", " ".join(some), ""]
        (folder / f"{number:02}.md").write_text("\n".join(lines))


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
    if whole:
        options.append("--no-compare")
    else:
        (folder / "articles/notes").mkdir()
        write_notes(folder / "articles/notes", articles)
        (folder / "articles/picture.png").write_bytes(b"")
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.setenv("PYTHONPATH", str(ROOT))
        assert command(*options, *(training(60, 64) if whole else training(2, 40)))
    (folder / "facts.json").write_text(said.getvalue())
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


# --- the comparison on held-out text, and the page


@pytest.fixture
def compared(place):
    """The study whose text has enough documents to hold some out."""
    if not (place / "articles/notes").is_dir():
        pytest.skip("all of the articles are trained on")
    return place


def test_what_is_compared_on_was_not_trained_on(compared):
    """Each document is trained on, or held out, or empty of questions; by the hash of its name."""
    task = compared / "out/resources/datasets/held-out/held-out"
    asked = {json.loads(line)["_id"].rpartition("#")[0] for line in (task / "corpus.jsonl").read_text().splitlines()}
    trained = set(pq.read_table(compared / "out/corpora/mine/chunks.parquet")["document"].to_pylist())
    names = {f"mine/notes/{number:02}.md" for number in range(60)}
    assert not asked & trained
    assert names - trained == {name for name in names if is_held_out(name, 5)} == asked & names
    passages = (task / "corpus.jsonl").read_text()
    for line in (task / "queries.jsonl").read_text().splitlines():
        assert json.loads(line)["text"] not in passages or "/notes/" not in json.loads(line)["_id"]


def test_the_comparison_is_that_of_the_scores(compared):
    facts = json.loads((compared / "facts.json").read_text())
    found, scores = facts["comparison"], compared / "out/scores"
    cell = "revela/mine/tiny-4m/tiny-4m/bs16"
    values = [
        json.loads((scores / system / "held-out.json").read_text())["tasks"]["held-out"]
        for system in ("untrained/tiny-4m", cell)
    ]
    before, after = (100 * one["metrics"]["nDCG@10"] for one in values)
    assert (found["before"], found["after"]) == pytest.approx((before, after))
    assert found["low"] <= found["difference"] <= found["high"]
    assert found["difference"] == pytest.approx(after - before, abs=1e-3)  # values of queries are rounded
    assert found["helped"] == (found["low"] > 0)
    assert 20 <= found["queries"] == values[0]["parts"]["held-out"]["counts"]["queries"]
    [table] = facts["tables"]
    table = Path(table).read_text()
    assert table.count("±") >= 3 and "made from the text" in table
    assert "Made from the text" in (compared / "out/retriever/README.md").read_text()  # the card has the scores


WIDTHS = (360, 768, 1280)


def test_the_page_in_a_browser(compared, tmp_path):
    """On a telephone, a tablet and a desktop, light and dark: nothing overflows, is asked for, or cannot be read."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here; Debian's package is chromium")
    address = (compared / "out/report.html").resolve().as_uri()
    with Browser(tmp_path / "profile") as page:
        for domain in ("Network", "Log", "Runtime", "Page"):
            page.ask(f"{domain}.enable")
        page.open(address)
        page.wait_for("Where it comes from")
        for width in WIDTHS:
            page.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
            assert page.run("document.documentElement.scrollWidth") <= width
            wide = page.run("""[...document.body.querySelectorAll('*')].filter(e => !e.closest('pre, .scroll, svg, .skip')
                && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))""")
            assert not wide, (width, wide)
        for scheme in ("light", "dark"):
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            page.ask("Emulation.setEmulatedMedia", features=media)
            colours = page.run("""(() => { const root = getComputedStyle(document.documentElement);
                return Object.fromEntries(['page', 'card', 'ink', 'soft', 'own', 'right'].map(name =>
                    [name, root.getPropertyValue('--' + name).trim()])) })()""")
            for ground in ("page", "card"):
                for ink in ("ink", "soft", "own", "right"):
                    assert contrast(colours[ink], colours[ground]) >= 4.5, (scheme, ink, ground)
        assert page.run("document.title").startswith("A retriever for ")
        for landmark in ("header", "nav[aria-label]", "main", "footer"):
            assert page.run(f"document.querySelectorAll('{landmark}').length") == 1, landmark
        assert page.run("[...document.querySelectorAll('table')].every(t => t.querySelector('thead th[scope=col]'))")
        levels = page.run("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))")
        assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
        assert page.run("""[...document.querySelectorAll('nav a, .skip')].every(a =>
            document.getElementById(a.getAttribute('href').slice(1)))""")
        assert page.run("""[...document.querySelectorAll('pre, .scroll')].every(e => e.tabIndex === 0)""")
        shown = page.text()
        asked = [one["params"]["request"]["url"] for one in page.events if one["method"] == "Network.requestWillBeSent"]
        faults = [one for one in page.events if one["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
        assert asked == [address] and not faults
    facts = json.loads((compared / "facts.json").read_text())["comparison"]
    for said in (
        f"{facts['after']:.1f}",
        f"{facts['queries']} queries",
        ".png",
        "Before training",
        "sha256",
    ):
        assert said in shown, said
    answered = int(re.search(r"Of \d+ queries, (\d+) have a right text", shown)[1])
    assert page_cards(shown) == min(10, answered)


def page_cards(shown):
    """Queries that the page shows: each has two rankings."""
    return sum(line == "UNTRAINED" for line in shown.splitlines())


def contrast(one, other):
    """The contrast of two colours as WCAG 2 has it."""

    def luminance(colour):
        digits = colour.lstrip("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_a_page_of_a_study_without_comparison_or_none_at_all(place, tmp_path, capsys):
    capsys.readouterr()
    assert command("report", place / "out", "--json")
    assert json.loads(capsys.readouterr().out) == {"report": f"{place}/out/report.html"}
    assert not command("report", tmp_path)
    assert f"{tmp_path}: no config.yaml; valid: the folder that" in capsys.readouterr().err
