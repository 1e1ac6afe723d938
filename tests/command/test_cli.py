"""The command `revela`: what it does, what it says as JSON, and what it says about faulty input."""

import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchmark_folders import write_beir, write_coir
from conftest import TEXTS
from retrievers import cell_folder, trained

from revela import workflow
from revela.command import comparison, doctor, own_study, running
from revela.command.cli import app, main
from revela.command.passages import find_passages, read_passages
from revela.retriever import Retriever
from revela.study.base import read_yaml
from revela.study.layout import Layout
from revela.study.settings import Training
from revela.study.study import load
from revela.text import held_out, own_files
from revela.text.resources import matching

ROOT = Path(__file__).parents[2]
COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]
DOCUMENTS = {f"d{n}": ("", text) for n, text in enumerate(TEXTS)}
QUERIES = {"q1": "which passage answers a query", "q2": "sort values", "q3": "the weight of a chunk"}
QRELS = {"q1": {"d0": 1}, "q2": {"d3": 1, "d5": 1}, "q3": {"d2": 2}}


@pytest.fixture(scope="module")
def place(tmp_path_factory, backbone):
    """A folder with a retriever, notes and a benchmark."""
    folder = tmp_path_factory.mktemp("place")
    trained(backbone, folder / "retriever")
    (folder / "notes").mkdir()
    for number in range(8):
        (folder / f"notes/{number}.md").write_text("\n\n".join(TEXTS[number % 3 :] * 2))
    write_beir(folder, "benchmark", documents=DOCUMENTS, queries=QUERIES, qrels=QRELS)
    write_coir(folder / "coir", documents=DOCUMENTS, queries=QUERIES, qrels=QRELS)
    (folder / "backbone").symlink_to(backbone)
    shutil.copytree(backbone, folder / "mute", ignore=shutil.ignore_patterns("tokenizer*"))
    shutil.copytree(backbone, folder / "split")
    (folder / "split/config.json").write_text('{"hidden_size": ')
    (folder / "onnx").mkdir()
    (folder / "onnx/model.onnx").write_bytes(b"weights")
    for name in ("cut", "edited", "torn"):
        shutil.copytree(folder / "retriever", folder / name)
    os.truncate(folder / "cut/model.safetensors", 9000)
    (folder / "edited/retriever.json").write_text('{"query_prefix": "", "length": 1}')
    (folder / "torn/retriever.json").write_text('{"query_prefix": ')
    return folder


@pytest.fixture(autouse=True)
def in_place(place, monkeypatch):
    monkeypatch.chdir(place)


def succeed(capsys, *arguments):
    """What a command printed on stdout."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    return printed.out


def fail(capsys, *arguments, status=1):
    """What a command printed on stderr: one line, for status 1."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == status
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if status == 1:
        assert said.startswith("error: ") and said.count("\n") == 1, said
    return said


# --- help


def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "revela", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert all(command in done.stdout for command in COMMANDS)
    imported = set(re.findall(r"\| +([\w.]+)", done.stderr))
    assert "typer" in imported
    assert not imported & {"torch", "numpy", "pydantic", "transformers", "deepspeed", "snakemake", "rich", "yaml"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    said = succeed(capsys, command, "--help")
    assert f"Example: revela {command}" in " ".join(said.split())


# --- what commands do


def test_encode(place, capsys):
    facts = json.loads(succeed(capsys, "encode", "retriever", "notes", "--out", "notes.npy", "--json"))
    embeddings, ids = np.load("notes.npy"), json.loads(Path("notes.ids.json").read_text())
    assert embeddings.shape == (len(ids), facts["dimensions"]) == (facts["texts"], 32)
    assert all(re.fullmatch(r"notes/\d\.md#\d+", one) for one in ids)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_encode_leaves_its_input_as_it_is(tmp_path, capsys):
    table = tmp_path / "corpus.json"
    table.write_text(before := json.dumps([{"text": text} for text in TEXTS]))
    succeed(capsys, "encode", "retriever", table, "--out", tmp_path / "corpus.npy")
    assert table.read_text() == before
    table = table.rename(tmp_path / "corpus.ids.json")
    for text in (table, tmp_path):
        fail(capsys, "encode", "retriever", text, "--out", tmp_path / "corpus.npy", status=2)
    assert table.read_text() == before


def test_a_column_of_tables(tmp_path, capsys):
    """By a name of its own, and in a folder beside text files; rows without text are left out, as for training."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in [*TEXTS, " ", None]))
    options = ["--column", "body", "--json"]
    assert json.loads(succeed(capsys, "encode", "retriever", tmp_path / "rows.jsonl", "--out", "x.npy", *options))[
        "texts"
    ] == len(TEXTS)
    (tmp_path / "a.md").write_text(TEXTS[0])
    (answer,) = json.loads(succeed(capsys, "search", "retriever", tmp_path, TEXTS[1], "--top", 99, *options))
    assert {one["id"].partition("/")[2][:4] for one in answer["passages"]} == {"a.md", "rows"}
    assert "no column 'text'" in fail(capsys, "search", "retriever", tmp_path, TEXTS[1])


@pytest.mark.parametrize("name", ["lines.txt", "rows.jsonl"])
def test_search_finds_the_text_itself(name, capsys):
    content = TEXTS if name.endswith("txt") else [json.dumps({"text": text}) for text in TEXTS]
    Path(name).write_text("\n".join(line.replace("\n", " ") for line in content))
    answers = json.loads(
        succeed(capsys, "search", "retriever", name, TEXTS[1], TEXTS[4], "--top", "2", "--precision", "fp32", "--json")
    )
    assert [len(answer["passages"]) for answer in answers] == [2, 2]
    retriever = Retriever.load("retriever", device="cpu")
    texts = [text.replace("\n", " ") if name.endswith("txt") else text for text in TEXTS]
    scores = retriever.encode([TEXTS[1]], kind="query") @ retriever.encode(texts, kind="passage").T
    assert answers[0]["passages"][0]["score"] == pytest.approx(scores.max(), abs=1e-6)
    assert answers[0]["passages"][0]["text"] == texts[scores.argmax()]
    assert TEXTS[1] in succeed(capsys, "search", "retriever", name, TEXTS[1])


class Terminal(io.StringIO):
    """What somebody types, until Ctrl-D."""

    def isatty(self):
        return True


def test_queries_are_asked_for_on_a_terminal(capsys, monkeypatch):
    """One after the other, against one index; the answers are those to the same queries as arguments."""
    asked, options = ["which passage answers a query", "sort values"], ["--precision", "fp32", "--top", "2", "--json"]
    Path("asked.txt").write_text("\n".join(text.replace("\n", " ") for text in TEXTS))
    monkeypatch.setattr(sys, "stdin", Terminal(f"{asked[0]}\n\n{asked[1]}\n"))
    answers = [json.loads(line) for line in succeed(capsys, "search", "retriever", "asked.txt", *options).splitlines()]
    assert [answer["query"] for answer in answers] == asked
    together = json.loads(succeed(capsys, "search", "retriever", "asked.txt", *asked, *options))
    for one, other in zip(answers, together, strict=True):
        assert [hit.pop("score") for hit in one["passages"]] == pytest.approx(
            [hit.pop("score") for hit in other["passages"]], abs=1e-6
        )
        assert one == other
    monkeypatch.setattr(sys, "stdin", Terminal("sort values\n"))
    shown = succeed(capsys, "search", "retriever", "notes", "--precision", "fp32", "--top", "1")
    assert re.search(r"^  \d\.\d{3}  notes/\d\.md:\d+  \S", shown, re.MULTILINE)


def test_a_passage_has_the_line_or_the_row_where_it_begins(tmp_path):
    line = " ".join(f"word{number}" for number in range(119)) + " end."
    (tmp_path / "a.md").write_text(f"\n\n{line}\n{line}\nShort.\n\n{line}\n")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("one", "", "three")))
    found = find_passages(tmp_path)
    assert [(one.id.partition("/")[2], one.line, one.row, one.text) for one in found] == [
        ("a.md#0", 3, None, line), ("a.md#1", 4, None, line), ("a.md#2", 5, None, "Short."), ("a.md#3", 7, None, line),
        ("rows.jsonl:0#0", None, 1, "one"), ("rows.jsonl:2#0", None, 3, "three"),
    ]  # fmt: skip
    assert [one.place for one in found[:4:3]] == [f"{tmp_path}/a.md:3", f"{tmp_path}/a.md:7"]
    assert found[-1].place == find_passages(tmp_path / "rows.jsonl")[1].place == f"{tmp_path}/rows.jsonl, row 3"
    assert next((one.place, one.id) for one in find_passages(tmp_path / "a.md")) == (f"{tmp_path}/a.md:3", "a.md:3")


def test_the_precision_is_that_of_the_hardware_and_said(capsys, monkeypatch):
    """Unless it is named."""
    Path("lines.txt").write_text("\n".join(text.replace("\n", " ") for text in TEXTS))
    for name in ("bf16", "fp32"):
        monkeypatch.setattr("revela.command.precision.fast_precision", lambda name=name: name)
        assert main(["search", "retriever", "lines.txt", TEXTS[1]]) == 0
        assert f"precision: {name}, in which this machine is fast" in capsys.readouterr().err
    found = {}
    for name in ("bf16", "fp32"):
        assert main(["encode", "retriever", "lines.txt", "--out", f"{name}.npy", "--precision", name]) == 0
        assert "precision" not in capsys.readouterr().err
        found[name] = np.load(f"{name}.npy")
    assert not np.array_equal(found["bf16"], found["fp32"])
    assert (found["bf16"] * found["fp32"]).sum(1).min() > 0.999


def test_bm25_and_an_untrained_model_are_systems(backbone, capsys):
    bm25 = json.loads(succeed(capsys, "evaluate", "bm25", "benchmark", "--json"))
    assert bm25["metrics"]["nDCG@10"] > 0.8
    assert "nDCG@10" in succeed(capsys, "evaluate", backbone, "benchmark")


def test_judgements_that_are_known_to_be_out_of_reach(tmp_path, capsys):
    write_beir(tmp_path, "arguana", documents=DOCUMENTS, queries=QUERIES, qrels={"q1": {"d0": 1, "gone": 1}})
    said = fail(capsys, "evaluate", "bm25", tmp_path / "arguana")
    assert "'gone', relevant to query 'q1', is not in the corpus (1 such" in said and "--unretrievable" in said
    succeed(capsys, "evaluate", "bm25", tmp_path / "arguana", "--unretrievable", 1)


def test_export_of_a_cell(tmp_path, backbone, capsys):
    cell = cell_folder(backbone, tmp_path, "revela/mine/tiny/tiny/bs4", lora=True)
    for format, expected in (("adapter", "adapter_model.safetensors"), ("merged", "model.safetensors")):
        facts = json.loads(succeed(capsys, "export", cell, tmp_path / format, "--format", format, "--json"))
        assert (Path(facts["export"]) / expected).is_file() and (Path(facts["export"]) / "README.md").is_file()
    facts = json.loads(
        succeed(capsys, "export", tmp_path / "adapter", tmp_path / "again", "--base", backbone, "--json")
    )
    assert (tmp_path / "again/modules.json").is_file()


def test_push_is_private_unless_told_otherwise(tmp_path, capsys, monkeypatch):
    import huggingface_hub

    calls = []

    class Hub:
        def create_repo(self, name, **options):
            calls.append(options)
            return type("Address", (str,), {"repo_id": name})(f"https://huggingface.co/{name}")

        def upload_folder(self, **options):
            calls.append(options)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    succeed(capsys, "export", "retriever", tmp_path / "export", "--format", "merged")
    assert not calls  # an export uploads nothing
    assert succeed(capsys, "push", tmp_path / "export", "me/model").strip() == "https://huggingface.co/me/model"
    assert calls[0] == {"private": True, "exist_ok": True}
    assert calls[1]["repo_id"] == "me/model" and calls[1]["folder_path"] == tmp_path / "export"
    succeed(capsys, "push", tmp_path / "export", "me/model", "--public")
    assert calls[2]["private"] is False
    monkeypatch.delenv("HF_TOKEN")
    assert "set HF_TOKEN or run `hf auth login`" in fail(capsys, "push", tmp_path / "export", "me/model")
    assert len(calls) == 4


# --- training on own text


@pytest.fixture
def planned(monkeypatch):
    """Snakemake is not started; the fixture holds what it would have been asked for."""
    asked = []

    def dry_run(targets, config):
        asked.append((config, targets))
        return [SimpleNamespace(rule=rule) for rule in ("dataset", "dataset", "train")]

    monkeypatch.setattr(running, "run", lambda config, layout, targets, **_: asked.append((config, targets)))
    monkeypatch.setattr(workflow, "dry_run", dry_run)
    return asked


def test_the_written_study_is_one_that_the_workflow_loads(tmp_path, backbone, capsys, planned):
    out = tmp_path / "out"
    options = ["--text", "notes/**/*.md", "--backbone", backbone, "--out", out, "--column", "body", "--dry-run"]
    options += ["--benchmark", "benchmark", "--steps", 7, "--set", "training.temperature=0.5"]
    jobs = {"dataset": 2, "train": 1}
    assert json.loads(succeed(capsys, "train", *options, "--json")) == {"config": f"{out}/config.yaml", "jobs": jobs}
    assert "3 jobs to do: dataset 2, train 1" in succeed(capsys, "train", *options)
    study = load(out / "config.yaml")
    (run,) = study.runs
    settings = study.training_settings(run.cell)
    assert (settings.max_steps, settings.temperature, settings.lora, settings.precision) == (7, 0.5, None, "fp32")
    assert study.config.datasets["mine"].files == "notes/**/*.md"
    assert study.config.corpora["mine"].sources[0].text == "body"
    assert list(study.table_systems("table1")) == ["BM25", "Untrained", "Revela"]
    assert planned == [(f"{out}/config.yaml", [f"{out}/exports/{run.cell.path}", f"{out}/tables/table1.md"])] * 2


def test_documents_are_held_out_where_there_are_enough(tmp_path, backbone, capsys, planned, monkeypatch):
    """What was decided goes on while the text grows, and is decided anew when it is asked for."""
    monkeypatch.setattr(held_out, "ENOUGH", 30)
    text, out = tmp_path / "text", tmp_path / "out"
    text.mkdir()

    def write(numbers):
        for number in numbers:
            (text / f"{number}.md").write_text(f"# What note {number} has to say\n\n{number} {' '.join(TEXTS)}")

    options = ["train", "--text", text, "--backbone", backbone, "--out", out, "-n"]
    write(range(20))
    said = succeed_and_say(capsys, *options)
    assert "comparison: none, for the text has too few documents: a fifth of its 20 gives" in said
    assert "20 are needed" in said and load(out / "config.yaml").config.tables == {}
    write(range(200))
    assert "has none on held-out text; it is kept" in succeed_and_say(capsys, *options)
    assert "comparison: every 5th document is held out" in succeed_and_say(capsys, *options, "--overwrite")
    write(range(500))
    assert comparison.hold_out(partial(matching, str(text)), "text", tmp_path / "new", "mine", overwrite=False)[0] == 10
    assert "comparison: every 5th document is held out" in succeed_and_say(capsys, *options)
    study = load(out / "config.yaml")
    assert study.benchmarks == ["held-out"] and list(study.table_systems("table1")) == ["BM25", "Untrained", "Revela"]
    assert study.config.held_out["mine"].hold_out == 5 and study.config.datasets["held-out"].held_out_of == "mine"
    assert planned[-1][1][1:] == [f"{out}/tables/table1.md"]
    said = fail(capsys, *options, "--no-compare")
    assert 'beir held-out" there, and absent by this command; name another --out, or give --overwrite' in said
    assert "comparison" not in succeed_and_say(capsys, *options, "--no-compare", "--overwrite")
    assert load(out / "config.yaml").config.held_out == {}


def succeed_and_say(capsys, *arguments):
    """What a command printed on stderr."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "low, high, said", [(0.1, 2.0, None), (-0.5, 2.0, "did not help, as far as"), (-3.0, -0.1, "made retrieval worse")]
)
def test_training_that_did_not_help_is_warned_of(low, high, said):
    """By the interval of the difference, not by the difference."""
    found = comparison.Difference("own", 20, 1.0, 2.0, 1.0, low, high, 0.3)
    assert found.helped == (said is None)
    assert (said is None and found.warning is None) or f"training {said}" in found.warning
    assert str(found).startswith(
        f"trained - untrained: +1.0 points of nDCG@10, 95 % interval {low:+.1f} to {high:+.1f}"
    )


def test_choices_are_said_in_a_line_each(tmp_path, backbone, capsys, planned, monkeypatch):
    """Each with what changes it. The files that they follow from are listed once."""
    listed, below = [], own_files._below
    monkeypatch.setattr(own_files, "_below", lambda folder: listed.append(str(folder)) or below(folder))
    options = ["--text", "notes", "--backbone", backbone, "--out", tmp_path / "out", "-n", "--batch-size", 8]
    said = succeed_and_say(capsys, "train", *options, "--set", "training.query_prefix='Q: '")
    for line in (
        "files read: 8",
        "120 words at most (chunking.max_words)",
        "batch size: 8 chunks (--batch-size)",
        "steps: one epoch (--steps, --minutes)",
        "prefixes: 'Q: ' and 'passage: ' (training.query_prefix",
        "trained as well, gate 1 (training.freeze_lm",
        "precision: float32 (training.precision), on the CPU",
    ):
        assert line in said, line
    assert listed == ["notes"]


def test_a_benchmark_is_read_as_evaluate_reads_it(tmp_path, backbone, capsys, planned):
    qrels = {"q1": {"d0": 1, "gone": 1}}
    write_beir(tmp_path, "arguana", documents=DOCUMENTS, queries=QUERIES, qrels=qrels)
    corpus, out = tmp_path / "arguana/corpus.jsonl", tmp_path / "out"
    (tmp_path / "arguana/corpus.jsonl.gz").write_bytes(gzip.compress(corpus.read_bytes()))
    corpus.unlink()
    options = ["--text", "notes", "--backbone", backbone, "--out", out, "--benchmark", tmp_path / "arguana", "-n"]
    said = fail(capsys, "train", *options)
    assert "'gone', relevant to query 'q1', is not in the corpus (1 such" in said and "--unretrievable" in said
    assert not out.exists()
    succeed(capsys, "train", *options, "--unretrievable", 1)
    assert load(out / "config.yaml").task("own", "own").unretrievable == 1
    succeed(capsys, "evaluate", "bm25", tmp_path / "arguana", "--unretrievable", 1)


def test_a_dry_run_binds_no_later_run(tmp_path, backbone, capsys, planned, monkeypatch):
    """Unless its configuration was edited. A run that has begun does bind."""

    def stopped(*_, **__):
        raise running.RunError("stopped")

    monkeypatch.setattr(running, "run", stopped)
    out = tmp_path / "out"
    options = ["train", "--text", "notes", "--backbone", backbone, "--out", out]
    succeed(capsys, *options, "-n")
    written = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(written.replace("max_words: 120", "max_words: 60"))
    assert "chunking.max_words is 60 there" in fail(capsys, *options)
    (out / "config.yaml").write_text(written)
    assert main([*map(str, options), "--benchmark", "benchmark"]) == 1
    assert "error: stopped" in capsys.readouterr().err
    assert load(out / "config.yaml").benchmarks == ["own"] and not (out / "planned.sha256").exists()
    assert "give --overwrite" in fail(capsys, *options)


def test_a_wide_backbone_is_frozen_as_language_model_behind_a_gate(tmp_path):
    study, cell = own_study.write_study("notes", "owner/Model-1B", tmp_path / "out")
    settings = study.training_settings(cell)
    assert settings.freeze_lm and settings.cross_attention.gate == 0.1 and settings.lora
    assert study.config.chunking.max_words == 24
    assert study.models["model-1b"].source == "hub:owner/Model-1B"
    study, cell = own_study.write_study("notes", "owner/Model-1B", tmp_path / "gpus", gpus=2)
    assert study.config.chunking.max_words == 120 and study.training_settings(cell).batches_per_step == 2


@pytest.mark.parametrize("fast", ["bf16", "fp32"])
def test_the_precision_follows_from_the_hardware(fast, tmp_path, backbone, monkeypatch):
    """For a wide backbone; products of a narrow one are too small on a CPU."""
    monkeypatch.setattr("revela.command.own_study.fast_precision", lambda device: fast)

    def precision(model):
        study, cell = own_study.write_study("notes", model, tmp_path / "out", overwrite=True)
        return study.training_settings(cell).precision

    assert (precision("owner/Model-1B"), precision(str(backbone))) == (fast, "fp32")
    study, _ = own_study.write_study("notes", str(backbone), tmp_path / "gpu", gpus=1)
    assert study.config.training.precision == fast


@pytest.mark.parametrize("width, config", [("wide", "demo"), ("narrow", "tiny")])
def test_settings_are_those_of_the_configurations(width, config, tmp_path, backbone):
    """Except for those that are named as own, and for what follows from the machine and the options."""
    study, cell = own_study.write_study("notes", {"wide": "o/m", "narrow": str(backbone)}[width], tmp_path / "out")
    ours = study.training_settings(cell).model_dump(mode="json")
    stated = read_yaml(ROOT / f"config/{config}.yaml")["training"]
    theirs = Training.model_validate(stated).model_dump(mode="json", include=set(stated))
    differ = {key for key, value in theirs.items() if ours[key] != value}
    assert differ - {"precision", "zero_stage"} == {*own_study.AS_THE_PAPER}


def test_steps_that_fit_into_minutes(place, backbone, capsys, tmp_path, monkeypatch):
    """The pace is measured by a few steps of the cell itself, once; the number of steps stands in the configuration."""
    out = tmp_path / "out"
    command = ["train", "--text", "notes", "--backbone", backbone, "--out", out, "--cores", 1, "--batch-size", 4]
    succeed(capsys, *command, "--minutes", 0.05)
    seconds = json.loads((out / "pace.json").read_text())["seconds_per_step"]
    steps = read_yaml(out / "config.yaml")["training"]["max_steps"]
    assert steps == int(3 / seconds) > 1
    [log] = (out / "models").glob("revela/mine/*/*/bs4/log.jsonl")
    assert len(log.read_text().splitlines()) == steps

    monkeypatch.setattr(running, "run", lambda *_, **__: None)
    succeed(capsys, *command, "--minutes", 0.05)
    assert read_yaml(out / "config.yaml")["training"]["max_steps"] == steps
    said = fail(capsys, *command, "--minutes", 0.1)
    assert "training.max_steps" in said and "--overwrite" in said
    (out / "pace.json").write_text('{"seconds_per_step": 100}')
    assert "a step takes 100 seconds here" in fail(capsys, *command, "--minutes", 1)


@pytest.mark.usefixtures("place")
def test_what_is_measured_is_what_is_exported(tmp_path, backbone):
    """Prefixes and length, unless the evaluation's own are given."""

    def evaluation(*settings):
        study, _ = own_study.write_study("notes", str(backbone), tmp_path / "out", settings=settings, overwrite=True)
        found = study.config.evaluation
        return found.query_prefix, found.passage_prefix, found.max_length

    assert evaluation() == ("query: ", "passage: ", 157)
    assert evaluation("training.query_prefix='q '", "training.retriever_max_length=64") == ("q ", "passage: ", 64)
    assert evaluation("training.query_prefix='q '", "evaluation.query_prefix='Q '") == ("Q ", "passage: ", 157)


def test_a_study_goes_on_on_another_machine(tmp_path, backbone, monkeypatch):
    """With other cores; what a GPU would change is named with both values, as is a line of a sheet."""
    monkeypatch.setattr("revela.command.own_study.fast_precision", {"cpu": "fp32", "cuda": "bf16"}.get)

    def write(**options):
        return own_study.write_study("notes", str(backbone), tmp_path / "out", **options)[0]

    write(cores=2)
    assert write(cores=64).config.compute.training_threads == 64
    with pytest.raises(own_study.OwnStudyError, match='training.precision is "fp32" there, and "bf16" by this command'):
        write(gpus=1)
    assert write(gpus=1, settings=["training.precision=fp32"]).config.compute.training_gpus == 1
    with pytest.raises(
        own_study.OwnStudyError, match='runs.tsv: line 2 is .* 16 table1=Revela" there, and .* 8 table1'
    ):
        write(batch_size=8)


def test_all_of_a_folder_is_text_for_results_in_it(place, backbone, monkeypatch, tmp_path):
    shutil.copytree("notes", tmp_path / "notes")
    monkeypatch.chdir(tmp_path)
    for text in (".", "notes/1.md", "*/*.md"):
        study, _ = own_study.write_study(text, str(backbone), "out", overwrite=True)
        assert study.config.datasets["mine"].files == text
    (tmp_path / "out/found.md").write_text("made by a job")
    others = [f"notes/{number}.md" for number in range(8)]
    assert matching(".", "out").names == matching(".").names == others
    assert {name.partition("/")[2].partition("#")[0] for name, _ in read_passages(".")} == set(others)
    assert "found.md" in matching("out").names  # asked for by name


@pytest.mark.parametrize(
    "change, expected",
    [
        (["--text", "nowhere"], "no such folder or file"),
        (["--backbone", "nowhere"], "not owner/name"),
        (["--backbone", "notes"], "no config.json"),
        (["--text", "mute/*.png"], "no file matches"),
        (["--text", "onnx"], "none of its 1 files is text or a table by its suffix"),
        (["--backbone", "mute"], "mute: no tokenizer in this folder"),
        (["--backbone", "split"], "split/config.json: not the configuration of a model"),
        (["--set", "results=elsewhere"], "--set results=elsewhere: results follows from --out"),
        (["--out", "notes"], "holds other files"),
        (["--out", "notes/1.md"], "is a file"),
        (["--out", "a folder"], "--out a folder: valid in a path of results"),
        (["--benchmark", "notes"], "--benchmark notes: no folder with corpus.jsonl"),
        (["--set", "training.temprature=1"], "did you mean 'temperature'?"),
        (["--set", "training.temperature"], "write key=value"),
        (["--set", "temperature=1"], "did you mean 'training.temperature'?"),
        (["--set", "compute.training_gpus=2"], "compute.training_gpus: 2 are asked for, and this machine has 0"),
    ],
)
def test_faulty_training(change, expected, tmp_path, backbone, capsys, planned):
    options = {"--text": "notes", "--backbone": str(backbone), "--out": str(tmp_path / "out")} | {change[0]: change[1]}
    assert expected in fail(capsys, "train", *[part for option in options.items() for part in option])
    assert not planned and not (tmp_path / "out").exists()


def test_a_job_that_fails_is_explained_by_its_own_line(tmp_path, monkeypatch, capsys):
    """A stand-in for Snakemake leaves a log and fails."""
    config = tmp_path / "config.yaml"
    config.write_text("")
    script = tmp_path / "snakemake"
    log = tmp_path / "logs/train/x.log"
    script.write_text(
        f"#!/bin/sh\nmkdir -p {log.parent}\necho 'rule chunks:'\necho 'Job 3: Train [a] cell'\necho 'error: the loss is nan' > {log}\necho 'Exiting'\nexit 1\n"
    )
    script.chmod(0o755)
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: popen([script], **options))
    with pytest.raises(running.RunError, match=f"the loss is nan .log: {log}"):
        running.run(config, Layout(str(tmp_path)), [], cores=1)
    assert capsys.readouterr().err.splitlines() == ["chunks", "Train [a] cell"]  # by its message, or by its rule
    script.write_text(script.read_text().replace("error: the", "[rank0]: torch.SomeError: the"))
    with pytest.raises(running.RunError, match=f"torch.SomeError: the loss is nan .log: {log}"):
        running.run(config, Layout(str(tmp_path)), [], cores=1)
    log.unlink()
    script.write_text("#!/bin/sh\necho 'x: not a target: ...'\nexit 1\n")
    with pytest.raises(running.RunError, match="x: not a target: ... .log: "):
        running.run(config, Layout(str(tmp_path)), [], cores=1)
    assert "not a target" in (tmp_path / "snakemake.log").read_text()


@pytest.mark.parametrize(
    "left, said",
    [
        ({"reason": "its time is up"}, "its time is up"),
        ({"running": 2**22 + 1}, "killed by SIGKILL, as the kernel does where memory runs out"),  # no such process
        ({"running": os.getpid()}, "At least one job did not complete"),
    ],
)
def test_a_job_hands_up_its_reason(tmp_path, monkeypatch, left, said):
    config, script, log = tmp_path / "config.yaml", tmp_path / "snakemake", tmp_path / "logs/train/x.log"
    config.write_text("")
    (tmp_path / "left.json").write_text(json.dumps(left))
    script.write_text(
        f"#!/bin/sh\nmkdir -p {log.parent}\ntouch {log}\ncp {tmp_path}/left.json {log.with_suffix('.reason.json')}\n"
        "echo 'At least one job did not complete'\nexit 1\n"
    )
    script.chmod(0o755)
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: popen([script], **options))
    with pytest.raises(running.RunError, match=said):
        running.run(config, Layout(str(tmp_path)), [], cores=1)


RUN = """
import subprocess, sys
from revela.command import cli
from revela.command import running
from revela.study.layout import Layout
popen = subprocess.Popen
subprocess.Popen = lambda command, **options: popen([sys.argv[1]], **options)
cli.main = lambda: running.run(sys.argv[2], Layout("results"), [], cores=1)
cli.entry()
"""


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_none_behind(by, tmp_path):
    """What it has started is told to stop, and saves; where it could not tell, nothing else is started beside it."""
    config, script = tmp_path / "config.yaml", tmp_path / "snakemake"
    script.write_text(
        f"#!/bin/sh\ncd {tmp_path}\ntrap 'touch saved; exit' TERM\ntouch started\n"
        "while [ ! -e over ]; do sleep 0.05; done\n"
    )
    script.chmod(0o755)
    process = subprocess.Popen([sys.executable, "-c", RUN, script, config], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "started")
    process.send_signal(by)
    assert process.wait() != 0
    if by == signal.SIGKILL:
        with pytest.raises(running.RunError, match="another run is at work here"):
            running.run(config, Layout(str(tmp_path)), [], cores=1)
        (tmp_path / "over").touch()
    else:
        assert (tmp_path / "saved").exists()


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


# --- one line for each fault


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["encode", "nowhere", "notes", "--out", "x.npy"], "nowhere"),
        (["encode", "retriever", "nowhere", "--out", "x.npy"], "no such file or folder"),
        (["encode", "retriever", "binary", "--out", "x.npy"], "not UTF-8"),
        (["encode", "retriever", "empty.txt", "--out", "x.npy"], "empty.txt: holds no text"),
        (["search", "retriever", "empty.txt", "query"], "empty.txt: holds no text"),
        (["search", "retriever", "onnx", "query"], "onnx: none of its 1 files is text"),
        (["encode", "retriever", "broken.jsonl", "--out", "x.npy"], "broken.jsonl:1: not JSON"),
        (["encode", "retriever", "broken.parquet", "--out", "x.npy"], "not a parquet file"),
        (["search", "notes", "notes", "query"], "notes: no retriever.json here, so this is not a saved retriever"),
        (["search", "backbone", "notes", "query"], "backbone: a language model, so this is not a saved retriever"),
        (["evaluate", "bm25", "coir"], "is in CoIR's layout, with the parts t: --layout coir --part .."),
        (["evaluate", "bm25", "coir", "--layout", "coir", "--part", "x"], "is in CoIR's layout, with the parts t"),
        (["evaluate", "nowhere", "benchmark"], "valid: bm25, or a folder"),
        (["evaluate", "bm25", "nowhere"], "no such folder"),
        (["evaluate", "bm25", "notes"], "notes: no corpus.jsonl"),
        (["evaluate", "bm25", "benchmark", "--split", "dev"], "no dev.jsonl"),
        (["search", "cut", "notes", "query"], "cut: weights that cannot be read (Error while deserializing header"),
        (["search", "edited", "notes", "query"], "edited/retriever.json: cannot be read (it has query_prefix"),
        (["search", "torn", "notes", "query"], "torn/retriever.json: cannot be read (Expecting value"),
        (["evaluate", "bm25", "benchmark", "--run", "notes"], "notes: Is a directory"),
        (["export", "nowhere", "out"], "nowhere: no such folder"),
        (["export", "retriever", "notes"], "notes: is there already, and no export that could be replaced"),
        (["export", "retriever", "retriever"], "retriever: is there already"),
        (["export", "retriever", "notes/1.md", "--format", "merged"], "notes/1.md: is there already"),
        (["encode", "retriever", "notes/0.md", "--out", "notes/1.md/x.npy"], "notes/1.md: File exists"),
        (["export", "retriever", "out", "--format", "adapter"], "has no adapter"),
        (["export", "retriever", "out", "--format", "adapter", "--dtype", "bfloat16"], "an adapter is float32"),
        (
            ["export", "retriever", "out", "--max-length", "30"],
            "--max-length: retriever keeps what it was trained with; valid beside --base",
        ),
        (["export", "notes", "out", "--base", "notes"], "no config.json"),
        (["push", "notes", "me/model"], "is no export"),
        (["plan", "--configfile", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_faulty_input(arguments, expected, place, capsys):
    (place / "binary").write_bytes(b"\xff\xfe\x00")
    (place / "empty.txt").write_text("\n \n")
    (place / "broken.jsonl").write_text("{")
    (place / "broken.parquet").write_text("{")
    before = sorted(place.rglob("*"))
    assert expected in fail(capsys, *arguments)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [["nosuch"], ["train"], ["encode", "retriever", "notes", "--out", "x.txt"], ["search", "retriever", "notes"],
     ["evaluate", "bm25", "benchmark", "--layout", "trec"]],
)  # fmt: skip
def test_commands_that_are_not_understood(arguments, capsys):
    fail(capsys, *arguments, status=2)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["trian"], "error: No such command 'trian'"),
        (["search", "retriever", "notes"], "error: Invalid value for QUERIES: give a query; only on a terminal"),
        (["train", "--txt", "notes"], "error: No such option: --txt"),
        (["encode", "retriever", "notes", "--out", "x.txt"], "the name of a .npy file is expected; valid: see revela"),
    ],
)
def test_what_is_not_understood_is_one_line_too(arguments, expected, capsys):
    said = fail(capsys, *arguments, status=2)
    assert expected in said and said.count("\n") == 1


def test_a_working_directory_that_is_gone(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "the working directory is no more" in fail(capsys, "search", "retriever", "notes", "x")


def test_debug_shows_the_traceback():
    with pytest.raises(Exception, match="valid: bm25"):
        main(["evaluate", "nowhere", "benchmark", "--debug"])


def test_an_error_that_was_not_foreseen_is_one_line_too(monkeypatch, capsys):
    monkeypatch.setattr(Retriever, "load", lambda *_, **__: {}["missing"])
    assert "KeyError: 'missing' (not foreseen; --debug" in fail(capsys, "search", "retriever", "notes", "x")


# --- doctor


def test_doctor(capsys):
    """Where these tests run tiny does, so nothing is an error, whatever else is missing; each lack has its advice."""
    checks = {check["name"]: check for check in json.loads(succeed(capsys, "doctor", "--json", "--no-network"))}
    assert checks["Python"]["status"] == checks["torch"]["status"] == checks["configuration"]["status"] == "ok"
    assert checks["GPU"]["status"] == ("ok" if torch.cuda.is_available() else "warning")
    assert {"packages", "DeepSpeed", "disk", "hub token", "SLURM"} <= checks.keys()
    assert all(check["advice"] for check in checks.values() if check["status"] != "ok")


def test_doctor_of_a_broken_machine(monkeypatch, tmp_path, capsys):
    """What is said of SLURM without controller, of a missing configuration, of a token, and of closed models."""
    import httpx
    import huggingface_hub
    import huggingface_hub.constants
    from huggingface_hub.errors import GatedRepoError, HTTPError

    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sinfo").write_text("#!/bin/sh\nexit 1\n")
    for name in ("sbatch", "sinfo"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert doctor.slurm().status == "warning" and "scontrol ping" in doctor.slurm().advice
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho 'gpu* gpu:a100:4'\n")
    assert doctor.slurm().found == "gpu* gpu:a100:4"

    monkeypatch.setattr(
        doctor, "pytorch", lambda: doctor.Check("torch", "error", "ImportError: no torch", "make setup")
    )
    fail_status, said = main(["doctor", "--configfile", "nowhere.yaml"]), capsys.readouterr().out
    assert fail_status == 1 and "nowhere.yaml" in said and "GPU" not in said

    class Hub:
        def auth_check(self, name):
            if name.startswith("meta-llama/"):
                raise GatedRepoError("no", response=httpx.Response(403, request=httpx.Request("GET", "https://x")))

    class NoHub:
        def auth_check(self, name):
            raise HTTPError("no such host")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_plantedsecret")
    monkeypatch.chdir(ROOT)
    checks = list(doctor.hub(load("config/config.yaml"), network=True))
    assert checks[0].found == "there is one"
    closed = [check for check in checks if check.name == "gated model"]
    assert {check.found.split()[0] for check in closed} == {
        "meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-3B", "meta-llama/Llama-3.1-8B"
    }  # fmt: skip
    assert "https://huggingface.co/meta-llama/Llama-3.2-1B" in closed[0].advice
    assert "hf_plantedsecret" not in repr(checks)
    monkeypatch.setattr(huggingface_hub, "HfApi", NoHub)
    *_, unreached = doctor.hub(load("config/config.yaml"), network=True)
    assert (unreached.status, unreached.found) == ("warning", "cannot be reached (no such host)")
