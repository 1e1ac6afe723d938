"""The whole chain for real: text to table at a scale of a minute, killed and started again, edited and planned again."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from checkout import Checkout
from planner import plan

from revela.plan import jobs as planning
from revela.plan.costs import Costs
from revela.study.layout import Layout
from revela.study.sizes import load_sizes
from revela.study.study import load
from revela.text.parquet import read_table
from revela.workflow import Job

CONFIG = ("--configfile", "tests/small/config.yaml", "--profile", "workflow/profiles/local", "--cores", "2")
R = "results/small"
TABLE = f"{R}/tables/table1"
CELL = "revela/code/random/random/bs4"


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished checkout, times of files included."""
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    checkout = Checkout.at(tmp_path / "copy")
    return checkout


def test_the_table_has_every_system_and_task(finished):
    header, *rows = (finished.folder / f"{TABLE}.csv").read_text().splitlines()
    assert header == "Task,BM25,Untrained-1M,Contriever-1M,REPLUG-1M,Revela-1M"
    assert [row.split(",")[0] for row in rows] == ["Docstring-Code"]  # no mean of one
    values = [float(value) for value in rows[0].split(",")[1:]]
    assert all(0 <= value <= 100 for value in values)
    assert values[0] > 50  # BM25 finds code by the words of its summary, random models do not
    assert len(set(values)) > 2


def test_everything_stands_where_it_should(finished):
    for path in (
        f"{TABLE}.tex",
        f"{TABLE}.md",
        f"{TABLE}.lineage.json",
        f"{R}/figures/figure4/coir-small.csv",
        f"{R}/models/{CELL}/dynamics.jsonl",
        f"{R}/figures/figure4.pdf",
        f"{R}/figures/training.png",
        f"{R}/figures/same_document.svg",
        f"{R}/before-after/{CELL}/coir-small.html",
        f"{R}/models/{CELL}/retriever",
        f"{R}/models/{CELL}/manifest.json",
        f"{R}/corpora/code/bs4/batches.json",
        f"{R}/runs/{CELL}/coir-small/docstring-code.run.gz",
        f"{R}/logs/train/{CELL}.log",
        f"{R}/benchmarks/train/{CELL}.tsv",
    ):
        assert (finished.folder / path).exists(), path
    assert not list((finished.folder / R).glob("checkpoints/**/step-*"))  # nothing is left of finished cells


def test_a_short_run_is_watched_at_its_start_middle_and_end(finished):
    records = (finished.folder / f"{R}/models/{CELL}/dynamics.jsonl").read_text().splitlines()
    assert [json.loads(record)["step"] for record in records] == [0, 3, 6]


def test_anchors(finished):
    """BM25 is compared with a score that it does not have."""
    _, row = (finished.folder / f"{R}/anchors.csv").read_text().splitlines()
    *names, published, found, difference, verdict = row.split(",")
    assert (names, published, verdict) == (["bm25", "coir-small", "docstring-code"], "3.10", "FAIL")
    bm25 = (finished.folder / f"{TABLE}.csv").read_text().splitlines()[1].split(",")[1]
    assert float(found) == pytest.approx(float(bm25), abs=0.051)
    assert float(difference) == pytest.approx(float(found) - 3.1, abs=1e-6)
    assert (finished.folder / f"{R}/anchors.md").read_text().splitlines()[2] == f"| {' | '.join(row.split(','))} |"


def test_the_command_that_is_printed_searches(copy):
    """`make tiny` with nothing left to do but the report: tables, and a search that works as it is typed."""
    entry = ("-c", "from revela.command.cli import entry; entry()")
    printed = copy.run_python(*entry, "reproduce", CONFIG[1], "--cores", "2")
    row = (copy.folder / f"{TABLE}.md").read_text().split("| Docstring-Code")[1].splitlines()[0]
    values = row.replace("|", " ").split()
    for label, value in zip(("BM25", "Untrained-1M", "Contriever-1M", "REPLUG-1M", "Revela-1M"), values, strict=True):
        assert re.search(rf"{label} +{value.strip('*')} ", printed), printed
    assert (copy.folder / f"{R}/report.zip").exists()
    [line] = [line for line in printed.splitlines() if " search " in line]
    program, *arguments = shlex.split(line)
    assert program == str(Path(sys.executable).with_name("revela"))
    [answer] = json.loads(copy.run_python(*entry, *arguments, "--json"))
    assert len(answer["passages"]) == 5 and answer["query"] == arguments[3]
    # Of a part it shows the part. Other tables and figures, which a report would need, need not be there.
    (copy.folder / f"{R}/report.zip").unlink()
    shutil.rmtree(copy.folder / f"{R}/figures")
    printed = copy.run_python(*entry, "reproduce", CONFIG[1], f"{TABLE}.tex", "--cores", "2")
    assert printed.count("BM25") == 1 and printed.endswith(f"Made:\n  {TABLE}.tex\n"), printed
    assert not (copy.folder / f"{R}/report.zip").exists()


def test_anchors_that_are_missed_fail(copy):
    printed, status = copy.snakemake("anchors", *CONFIG)
    assert status != 0 and f"{R}/anchors.md: OK 0, close 0, FAIL 1, not run 0" in printed, printed
    assert (copy.folder / f"{R}/anchors.md").exists()


def test_nothing_is_done_twice(finished):
    assert finished.plan("all", "anchors_page", *CONFIG) == {}


def test_the_plan_learns_from_finished_jobs(finished, monkeypatch):
    """CPU time, planned for each job after all others have been measured. What takes a second varies more."""
    monkeypatch.chdir(finished.folder)
    costs = Costs(load(CONFIG[1]), load_sizes())
    jobs = plan(finished.folder, "all", options=CONFIG[:2]).jobs
    jobs = [Job(job.rule.name, dict(job.wildcards_dict), (), (), job.benchmark) for job in jobs]
    done = planning.finished_jobs(Layout(R), jobs)
    planned = taken = 0.0
    for one in done:
        others = [other for other in done if other is not one]
        if any(other.job.rule == one.job.rule for other in others):
            cost = costs.of(one.job.rule, one.job.wildcards)
            seconds = cost.cores * cost.seconds * planning.Measured(costs, others).factor(one.job)
            assert 1 / 3 < seconds / one.core_seconds < 3, one
            planned, taken = planned + seconds, taken + one.core_seconds
    assert len(done) > 20
    assert 0.5 < planned / taken < 2


def test_a_cell_groups_the_batches_of_the_next_round(copy):
    """Each chunk is in one batch at most, as it was. What is left for the next round is its training."""
    by = f"code+r1: {{regroup: {{corpus: code, by: {CELL}, neighbours: 8}}}}"
    copy.edit("tests/small/config.yaml", "corpora:\n", f"corpora:\n  {by}\n")
    folder = copy.folder / R / "corpora"
    copy.edit("tests/small/config.yaml", "top_k: 20}", "top_k: 20, gain_batches: 3}")
    reports = [f"{R}/corpora/code+r1/bs4/grouping{by}.md" for by in ("", f"/{CELL}")]
    printed, status = copy.snakemake(*reports, *CONFIG)
    assert status == 0, printed
    before, after = (list(read_table(folder / name / "bs4/batches.parquet")) for name in ("code", "code+r1"))
    assert 20 <= len(after) <= len(before) == 24 and all(len(row["text"]) == 4 for row in after)
    chunks = [
        Counter((row["src"], *pair) for row in rows for pair in zip(row["text"], row["document"], strict=True))
        for rows in (before, after)
    ]
    assert chunks[1] <= chunks[0] and after != before
    found = json.loads((folder / "code+r1/bs4/grouping.json").read_text())
    assert found["corpora"]["code"]["batches"] == 24 and found["neighbours"]["packages"]["chunks"] == 96
    measured = json.loads((folder / f"code+r1/bs4/grouping/{CELL}.json").read_text())
    assert measured.pop("gain").keys() == {"code", "code+r1"} and measured == found
    assert copy.plan(f"{R}/models/{CELL.replace('code', 'code+r1')}", *CONFIG) == {"train": 1}


def test_a_deleted_cell_is_made_again_with_what_depends_on_it(copy):
    shutil.rmtree(copy.folder / f"{R}/models/contriever")
    assert copy.plan("all", *CONFIG) == {
        "train": 1, "run": 1, "score": 1, "table": 1, "lineage": 1, "figure": 1, "all": 1
    }  # fmt: skip


@pytest.mark.parametrize(
    "file, old, new, plan",
    [
        ("revela/paper/tables.py", "PACKAGES = ", "_EDIT = 1\nPACKAGES = ", {"train": 0, "run": 0, "run_bm25": 0, "table": 2}),
        ("revela/method/inbatch.py", "import torch\n", "import torch\n\n_EDIT = 1\n", {"train": 1, "replug_scores": 0, "pairs": 0}),
        ("revela/objectives/revela.py", "import torch\n", "import torch\n\n_EDIT = 1\n", {"train": 1, "run": 1, "replug_scores": 0}),
        ("revela/objectives/contriever.py", "from torch", "_EDIT = 1\nfrom torch", {"train": 1, "run": 1, "run_bm25": 0}),
        ("revela/retriever.py", "import torch\n", "import torch\n\n_EDIT = 1\n", {"train": 3, "run": 4, "run_bm25": 0}),
        ("revela/text/batching.py", "Chunk = ", "_EDIT = 1\nChunk = ", {"train": 3, "run": 3, "run_bm25": 0, "batches": 1}),
        ("revela/method/inbatch.py", "import torch\n", "import torch  # a comment\n", {"train": 0, "run": 0, "table": 0}),
    ],
)  # fmt: skip
def test_an_edit_runs_again_what_it_touches(copy, file, old, new, plan):
    copy.edit(file, old, new)
    planned = copy.plan("all", *CONFIG)
    assert {rule: planned.get(rule, 0) for rule in plan} == plan


def test_a_setting_of_one_method_trains_that_method_again(copy):
    copy.edit("tests/small/config.yaml", "variants:", "methods: {replug: {lm_temperature: 0.2}}\nvariants:")
    planned = copy.plan("all", *CONFIG)
    assert (planned["train"], planned.get("run_bm25", 0), planned["score"]) == (1, 0, 1)


def test_the_check_fails_where_a_measured_value_does(copy):
    """The values of the finished table are printed ones, then one of them is another."""
    copy.edit("tests/small/config.yaml", "caption: A table", "printed: printed.csv\n    caption: A table")
    head, row = (copy.folder / f"{TABLE}.csv").read_text().splitlines()
    task, _, *others = row.split(",")
    mean = row.replace(task, "Mean")
    (copy.folder / "printed.csv").write_text(f"{head}\n{row}\n{mean}")
    printed, status = copy.snakemake("check", *CONFIG)
    assert status == 0 and f"{R}/check.html: OK 10, close 0, FAIL 0, not run 0" in printed, printed

    (copy.folder / "printed.csv").write_text("\n".join([head, ",".join([task, "3.1", *others]), mean]))
    printed, status = copy.snakemake("check", f"{TABLE}.compare.md", "--keep-going", *CONFIG)
    assert status != 0 and "OK 9, close 0, FAIL 1, not run 0" in printed, printed
    assert "## What fails: 1" in (copy.folder / f"{R}/check.md").read_text()
    assert "(3.1)" in (copy.folder / f"{TABLE}.compare.md").read_text()


WANT = r"error: killed, most likely for want of memory: peak \S+ of \S+ GiB in one process; try this: "


def test_a_training_that_the_kernel_kills_is_explained(copy):
    """On the terminal, with the peak of the process that was killed, a child of a child of the job's."""
    fatal = "    big = bytearray(700 * 2**20)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    copy.edit(
        "revela/training/entry.py",
        "    if job.gradient_checkpointing:\n",
        f"{fatal}    if job.gradient_checkpointing:\n",
    )
    shutil.rmtree(copy.folder / R / "models" / CELL)
    printed, status = copy.snakemake(f"{R}/models/{CELL}", *CONFIG)
    assert status == 1
    said = re.search(WANT + rf".*batch size.* \(log: {R}/logs/train/{CELL}.log\)", printed)
    assert said and float(said[0].split()[9]) > 0.9
    assert re.search(rf"^{CELL}: memory: \S+ GiB by estimate, .* gradient checkpointing is off$", printed, re.MULTILINE)
    assert "Traceback" not in printed


def test_an_evaluation_that_the_kernel_kills_is_explained(copy):
    copy.edit("workflow/scripts/run.py", "with job(", "import os\n\nwith job(")
    script = copy.folder / "workflow/scripts/run.py"
    script.write_text(script.read_text() + "    os.kill(os.getpid(), 9)\n")
    run = f"{R}/runs/{CELL}/coir-small/docstring-code.run.gz"
    (copy.folder / run).unlink()
    printed, status = copy.snakemake(run, *CONFIG)
    assert status == 1 and re.search(WANT + r".*shard_documents.*/docstring-code.log\)", printed), printed


def test_killed_and_started_again_it_ends_in_the_same_table(finished, tmp_path):
    """Everything that `snakemake` has started is killed while a cell is training, after its first checkpoint."""
    checkout = Checkout(tmp_path / "killed")
    shutil.copytree(finished.folder / "backbone", checkout.folder / "backbone")
    target = f"{R}/scores/{CELL}/coir-small.json"
    command = checkout.command(target, *CONFIG)
    with open(tmp_path / "printed", "w") as printed:
        process = subprocess.Popen(
            command,
            cwd=checkout.folder,
            env=checkout.environment,
            stdout=printed,
            stderr=printed,
            start_new_session=True,
        )
    deadline = time.monotonic() + 600
    while not list((checkout.folder / R / "checkpoints" / CELL).glob("step-*")):
        assert process.poll() is None, (tmp_path / "printed").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (checkout.folder / target).exists()

    printed, status = checkout.snakemake(target, "--nolock", *CONFIG)
    assert status == 0, printed
    assert f"Training {CELL}" in printed and "Cutting the documents" not in printed  # what was finished stays
    run = f"{R}/runs/{CELL}/coir-small/docstring-code.run.gz"
    assert (checkout.folder / run).read_bytes() == (finished.folder / run).read_bytes()


def test_a_corpus_without_text_fails_with_one_line(copy):
    copy.edit("tests/small/config.yaml", "packages: {installed: [tqdm, PyYAML]}", "packages: {path: nothing}")
    (copy.folder / "nothing").mkdir()
    (copy.folder / "nothing/picture.png").write_bytes(b"")
    printed, status = copy.snakemake(f"{R}/corpora/code/chunks.parquet", *CONFIG)
    assert status != 0
    assert "Traceback" not in printed
    assert "error: " in printed and "no text in this folder" in printed


def test_more_batches_than_there_are_fail_with_one_line(copy):
    printed, status = copy.snakemake(f"{R}/corpora/empty/bs4/batches.parquet", *CONFIG)
    assert status != 0
    assert "Traceback" not in printed
    assert "error: packages: too little text for one batch of 4" in printed


def test_a_length_beyond_the_model_stops_the_run_before_its_first_job(copy):
    copy.edit("tests/small/config.yaml", "  retriever_max_length: 48", "  retriever_max_length: 9000")
    printed, status = copy.snakemake(f"{R}/models/{CELL}", *CONFIG)
    assert status != 0 and "Traceback" not in printed
    assert "training.retriever_max_length: 9000 tokens, but" in printed and f"Training {CELL}" not in printed
