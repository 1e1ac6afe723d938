"""What the terminal shows of a run: stages with their jobs, and the trainings under way."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from revela.command.display import STAGES, Display, stage_of, trainings
from revela.study.layout import Layout

ROOT = Path(__file__).parents[2]
CELL = "revela/code/a/a/bs16"
SAID = """Building DAG of jobs...
Job stats:
job         count
--------  -------
model           1
train           2
run_bm25      114
all             1
total         118

Select jobs to execute...
Job 3: Fetching the model a
Finished jobid: 3 (Rule: model)
1 of 5 steps (20%) done
Job 2: Training revela/code/a/a/bs16
Job 5: Ranking [b]eir/t with bm25"""


@pytest.fixture
def layout(tmp_path):
    """A training of 40 steps with 4 batches each, at 2 seconds a step, after step 30."""
    layout = Layout(str(tmp_path))
    log, job = Path(layout.checkpoints(CELL), "log.jsonl"), Path(layout.log("train", CELL)).with_suffix(".json")
    for path in (log, job):
        path.parent.mkdir(parents=True)
    records = [
        {"step": step, "elapsed": 2.0 * step, "loss": 3, "same_document": 0.5, "same_document_uniform": 0.2}
        for step in range(1, 31)
    ]
    log.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"step": 31, "elap')
    pq.write_table(pa.table({"text": list(range(163))}), tmp_path / "batches.parquet")
    training = {"max_steps": None, "batches_per_step": 4}
    job.write_text(json.dumps({"data": str(tmp_path / "batches.parquet"), "training": training}))
    return layout


def shown(layout, width, said):
    console = Console(width=width, force_terminal=True, color_system=None, record=True, quiet=True)
    with Display(console, layout) as display:
        for line in said.encode().split(b"\n"):
            display.read(line)
        with (console := Console(width=width)).capture() as capture:
            console.print(display.shown())
    return capture.get()


@pytest.mark.parametrize("width", [80, 120])
def test_a_line_a_stage_and_one_for_a_training(layout, width):
    lines = shown(layout, width, SAID).splitlines()
    assert all(len(line) <= width for line in lines)
    assert [line.split()[1:3] for line in lines[:3]] == [
        ["resources", "1/1"],
        ["training", "0/2"],
        ["evaluation", "0/114"],
    ]
    assert lines[0].startswith("✓") and lines[1].startswith("▸") and lines[2].startswith("·")
    assert lines[3].strip() == "Training revela/code/a/a/bs16" and "[b]eir/t" in lines[5]
    for fact in ("120/160 batches", "2.0/s", "same document 50 %", "0:20 left"):
        assert fact in lines[4], lines[4]
    assert ("uniform 20 %" in lines[4]) == (width == 120)


def test_each_stage_has_its_mark_before_any_is_done(layout):
    lines = shown(layout, 100, SAID[: SAID.index("Finished")]).splitlines()
    assert [line[0] for line in lines[:3]] == ["·"] * 3 and lines[3].strip() == "Fetching the model a"


def test_a_training_that_ended_or_has_just_begun_is_not_shown(layout):
    assert len(shown(layout, 80, SAID.replace(f"Training {CELL}", "Training revela/code/b/b/bs16")).splitlines()) == 5
    assert shown(layout, 80, SAID + "\nFinished jobid: 2 (Rule: train)").splitlines()[1].split()[1:3] == [
        "training",
        "1/2",
    ]
    Path(layout.checkpoints(CELL), "log.jsonl").write_text("")
    assert list(trainings(layout)) == []


def test_every_rule_is_in_the_stage_of_its_file():
    """The files of rules are the arrows of the chain."""
    files = {"resources": "resources", "corpus": "corpus", "grouping": "corpus", "training": "training"}
    files |= {"evaluation": "evaluation", "language_models": "evaluation"}
    named = set()
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.findall(r"^ *(?:use rule \w+ as|rule) (\w+)(?: with)?:$", path.read_text(), re.MULTILINE):
            assert stage_of(rule) == files.get(path.stem, "results"), rule
            named.add(rule)
    assert set().union(*(rules for _, rules in STAGES.values())) <= named


def test_without_a_terminal_each_job_is_a_line(layout, capsys):
    with Display(Console(stderr=True, width=20), layout) as display:
        for line in SAID.encode().split(b"\n"):
            display.read(line)
    assert capsys.readouterr().err.splitlines() == [
        "Fetching the model a",
        "Training revela/code/a/a/bs16",
        "Ranking [b]eir/t with bm25",
    ]
