"""The demo's plan, counted by hand: packages of the index, text apart from the benchmarks, one trained cell."""

import re
import subprocess

import pytest
from checkout import ROOT, Checkout
from planner import plan

from revela.study.study import load

DEMO = ("--configfile", "config/demo.yaml")
MODEL = "smollm2-135m-instruct"
CELL = f"revela/both/{MODEL}/{MODEL}/bs16"
GROUPING = "results/demo/tables/grouping.md"


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = Checkout(tmp_path_factory.mktemp("checkout") / "checkout").folder
    targets = ["all", "everything", GROUPING, "results/demo/corpora/both/bs16/batches.parquet"]
    return plan(folder, *targets, *demo_all(), options=DEMO)


def demo_all():
    """The targets of `make demo-all`."""
    command = subprocess.run(
        ["make", "--no-print-directory", "-n", "demo-all"], cwd=ROOT, check=True, capture_output=True
    )
    words = re.search(r"demo.yaml (.*) --cores", command.stdout.decode().replace("\\\n", " "))[1]
    return subprocess.run(["bash", "-c", f"echo {words}"], check=True, capture_output=True).stdout.decode().split()


def test_the_default_trains_one_cell(planned, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = load("config/demo.yaml")
    assert [cell.path for cell in study.shown_cells()] == [CELL]
    counts = planned.counts("all")
    assert counts["package"] == len(study.config.packages) == 6
    # the text of three datasets, five benchmarks, and Punkt
    assert counts["dataset"] == len(study.config.datasets) == 9 and counts["model"] == 2
    assert counts["train"] == 1 and counts["apart"] == counts["chunks"] == 2
    # five tasks: BM25, and MiniLM, the untrained model and Revela
    assert counts["run_bm25"] == 5 and counts["run"] == 15 and counts["table"] == 3
    assert "replug_scores" not in counts and "pairs" not in counts
    assert all(str(file).startswith("results/demo/") for job in planned.jobs for file in job.output)


def test_demo_all_has_three_seeds_of_four_systems(planned):
    counts = planned.counts(*demo_all())
    assert counts["train"] == 12 and counts["replug_scores"] == counts["pairs"] == 1
    assert counts["table"] == 9 and counts["run"] == 5 * (12 + 2)
    assert "regroup" not in counts


def test_grouping_has_three_seeds_of_five_ways_to_make_batches(planned):
    counts = planned.counts(GROUPING)
    assert counts["train"] == 3 * 5 and counts["run"] == 5 * 3 * 5 and counts["regroup"] == 4
    # r1 and r2 by the cells of seed 42
    assert counts["chunk_embeddings"] == counts["neighbours"] == 2


def test_everything_is_both(planned):
    counts = planned.counts("everything")
    assert counts["train"] == 12 + 3 * 4 and counts["table"] == len(load("config/demo.yaml").config.tables) == 13


def test_batches_are_made_of_text_that_is_apart_from_every_benchmark(planned):
    needed = planned.needed("results/demo/corpora/both/bs16/batches.parquet")
    [wiki] = [job for job in needed if job.rule.name == "apart" and "wiki" in str(job.output.chunks)]
    folders = {str(file).rpartition("/")[2] for file in wiki.input.benchmarks}
    assert folders == {"bfcl", "human-eval", "docstrings", "wikipedia-search", "see-also"}
    sources = [str(file) for job in needed if job.rule.name == "batches" for file in job.input]
    assert sorted(sources) == [
        "results/demo/corpora/code/apart.parquet",
        "results/demo/corpora/code/bs16/batches.parquet",
        "results/demo/corpora/wiki/apart.parquet",
        "results/demo/corpora/wiki/bs16/batches.parquet",
    ]


def test_the_punkt_of_the_paper_can_come_from_a_package(tmp_path):
    """By one word of the configuration; no other job changes."""
    folder = Checkout(tmp_path / "checkout").folder
    target = "results/resources/punkt"
    assert plan(folder, target).counts(target) == {"punkt": 1}
    text = (folder / "config/config.yaml").read_text()
    assert text.count("\n  punkt: nltk") == 1
    (folder / "config/config.yaml").write_text(text.replace("\n  punkt: nltk", "\n  punkt: punkt-tab"))
    assert plan(folder, target).counts(target) == {"package": 1, "dataset": 1, "punkt": 1}
