"""Faulty input of every kind ends in one line that names the file; names stay in the results folder and out of shells."""

import copy
import csv
import json
import random
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from benchmark_folders import task, write_beir
from conftest import TEXTS
from corpus_specs import batches_of, chunks_of

from revela.command.own_study import OwnStudyError, counted, write_study
from revela.command.passages import read_passages
from revela.errors import RevelaError
from revela.evaluation.tasks import load_task
from revela.provenance import read_manifest
from revela.retriever import Retriever, RetrieverError
from revela.study.base import NAME, ConfigError
from revela.study.cell import Cell
from revela.study.settings import Corpus, Dataset, TextSource
from revela.study.source import HubSource, PathSource
from revela.study.specification import DatasetSpec
from revela.study.study import load
from revela.text import CorpusError, resources
from revela.text.batches import write_batches
from revela.text.chunks import write_chunks
from revela.text.documents import documents
from revela.text.resources import ResourceError, build_punkt, fetch_model, matching

ROOT = Path(__file__).parents[1]
MUTATED_CONFIGS, MUTATED_SHEETS, BROKEN_ROWS = 220, 120, 120
HOSTILE = [
    "../../etc",
    "/etc/passwd",
    "a/b",
    "..",
    ".",
    "$(touch pwned)",
    "`id`",
    "a;b",
    "a b",
    "a\nb",
    "-rf",
    "",
    "A",
    "é",
    "\x00",
]
ODD = [None, True, -1, 0, 10**30, 1.5, float("nan"), float("inf"), "", "text", [], [1, "a"], {}, {"a": 1}, *HOSTILE]


def one_line(error, *named):
    """The message of an error, which is a line, and names something."""
    text = str(error)
    assert text and "\n" not in text and "Traceback" not in text
    assert any(str(name) in text for name in named), (text, named)
    return text


# --- configurations


def places(value, path=()):
    """Paths of all values within a nested value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def mutate(values, rng):
    """A copy with one fault, or none."""
    values = copy.deepcopy(values)
    path = rng.choice([path for path in places(values) if path])
    parent = values
    for key in path[:-1]:
        parent = parent[key]
    key, kind = path[-1], rng.choice(["value", "value", "delete", "rename", "add", "swap"])
    if kind == "value":
        parent[key] = rng.choice(ODD)
    elif kind == "delete":
        del parent[key]
    elif kind == "rename" and isinstance(parent, dict):
        parent[rng.choice([f"{key}x", str(key)[:-1], *HOSTILE])] = parent.pop(key)
    elif kind == "add" and isinstance(parent, dict):
        parent[rng.choice(["unknown", *HOSTILE])] = rng.choice(ODD)
    else:
        other = values
        for step in rng.choice([path for path in places(values) if path]):
            other = other[step]
        parent[key] = copy.deepcopy(other)
    return values


def is_safe(study):
    """Every name that becomes a part of a path or of a command."""
    config = study.config
    names = [*config.datasets, *config.corpora, *config.variants, *config.tables, *config.figures, *study.models]
    names += [part for task in study.tasks for part in (task.benchmark, task.task)]
    names += [
        part for run in study.runs for part in (run.cell.method, run.cell.corpus, run.cell.retriever, run.cell.lm)
    ]
    names += [run.variant for run in study.runs if run.variant]
    assert all(re.fullmatch(NAME, name) and ".." != name and "/" not in name for name in names)
    assert re.fullmatch(r"[\w./][\w./-]*", config.results)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_configurations(seed, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    rng, path, refused = random.Random(seed), tmp_path / "config.yaml", 0
    values = yaml.safe_load((ROOT / "tests/small/config.yaml").read_text())
    values["corpora"]["mine"] = {"files": "notes/**/*.{md,txt}", "training": {"temperature": 0.1}}
    values["methods"] = {"replug": {"lm_temperature": 0.2}}
    for _ in range(MUTATED_CONFIGS // 4):
        path.write_text(yaml.safe_dump(mutate(values, rng), allow_unicode=True), encoding="utf-8")
        try:
            study = load(path)
            is_safe(study)
            for run in study.runs:
                study.training_settings(run.cell)
        except ConfigError as error:
            one_line(error, path, "tests/small/", ".tsv", "a sheet of the configuration")
            refused += 1
    assert refused > MUTATED_CONFIGS // 10


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"a: [",
        b"- 1",
        b"",
        b"a: b: c",
        b"a: &a [*a]",
        b"? {}\n: 1",
        b"[" * 3000,
        b"a: !!python/object:os.x {}",
    ],
)
def test_files_that_are_no_configuration(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load(path)
    one_line(error.value, path)


def test_a_key_that_stands_twice(tmp_path):
    """YAML itself would take the last one."""
    path = tmp_path / "config.yaml"
    path.write_text((ROOT / "tests/small/config.yaml").read_text() + "\ntraining: {temperature: 1}\n")
    with pytest.raises(ConfigError) as error:
        load(path)
    assert "'training' stands twice" in one_line(error.value, path)


@pytest.mark.parametrize(
    "edit, expected",
    [
        (lambda text: "\ufeff" + text.replace("\n", "\r\n"), None),  # as a spreadsheet writes it
        (lambda text: text.replace("\t", ","), "is no column, between tabs; valid: scale, method"),
        (lambda text: text.replace("\t", "    "), "is no column, between tabs; valid: scale, method"),
        (lambda text: text.replace("method", "method ", 1), "'method ' is no column"),
        (lambda text: re.sub(r"^(\w+)(.*)$", r"\1\2\t\1", text, flags=re.MULTILINE), "'scale' stands twice"),
        (lambda text: text + text.splitlines()[-1] + "\n", "stands twice"),
        (lambda text: "", "line 1: '' is no column"),
    ],
)
def test_sheets_as_other_programs_write_them(edit, expected, tmp_path):
    values = yaml.safe_load((ROOT / "tests/small/config.yaml").read_text())
    sheet, config = tmp_path / "runs.tsv", tmp_path / "config.yaml"
    sheet.write_bytes(edit((ROOT / values["runs"]).read_text()).encode())
    config.write_text(yaml.safe_dump(values | {"runs": str(sheet)}))
    if expected is None:
        assert load(config).runs == load(ROOT / "tests/small/config.yaml").runs
        return
    with pytest.raises(ConfigError) as error:
        load(config)
    assert expected in one_line(error.value, sheet)


@pytest.mark.parametrize("sheet", ["runs", "models", "benchmarks"])
def test_mutated_sheets(sheet, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    rng, refused = random.Random(sheet), 0
    values = yaml.safe_load((ROOT / "tests/small/config.yaml").read_text())
    with open(values[sheet], newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    values[sheet] = str(tmp_path / f"{sheet}.tsv")
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    for _ in range(MUTATED_SHEETS // 3):
        changed = copy.deepcopy(rows)
        line = rng.choice(changed)
        if rng.random() < 0.8:
            line[rng.randrange(len(line))] = rng.choice([*HOSTILE, "1", "-1", "2.5", "x=y=z", '"'])
        else:
            line.append("one too many") if rng.random() < 0.5 else line.pop()
        text = "\n".join("\t".join(row) for row in changed) + "\n"
        Path(values[sheet]).write_text(text, encoding="utf-8")
        try:
            is_safe(load(config))
        except ConfigError as error:
            one_line(error, values[sheet], config, "small")
            refused += 1
    assert refused > MUTATED_SHEETS // 3 // 4


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_no_cells(name):
    for cell in (f"revela/{name}/a/a/bs4", f"revela/code/{name}/a/bs4", f"revela/code/a/a/bs4-{name}", f"{name}/bs4"):
        try:
            parsed = Cell.parse(cell)
        except ConfigError as error:
            one_line(error, "is not a cell")
        else:
            with pytest.raises(ConfigError):
                load(ROOT / "tests/small/config.yaml").check_cell(parsed)


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    "value", ["training.nosuch=1", "training.temperature=-1", "seed=x", "a.b.c", "=1", "seed.x=1", "corpora=["]
)
def test_settings_of_the_command_line(tmp_path, backbone, value):
    (tmp_path / "notes").mkdir()
    with pytest.raises((ConfigError, OwnStudyError)) as error:
        write_study(str(tmp_path / "notes"), str(backbone), tmp_path / "out", settings=[value])
    one_line(error.value, tmp_path / "out", f"--set {value}")
    assert not (tmp_path / "out").exists()


# --- rows of text


def broken_row(rng):
    """(name of a file, its bytes) with a fault that reading must find."""
    good = json.dumps({"text": "A sentence. Another one."}).encode()
    rows = [good] * rng.randrange(4)
    bad = rng.choice(
        [
            b"{",
            b'{"text": }',
            b"[1, 2]",
            b'"text"',
            b"3",
            b"null",
            b'{"txt": "x"}',
            b"{}",
            json.dumps({"text": rng.choice([1, [1], {"a": 1}, True, 1.5])}).encode(),
            b'{"text": "\xff"}',
            good[: rng.randrange(1, len(good) - 1)],
            b"\x00\x01\x02",
        ]
    )
    rows.insert(rng.randrange(len(rows) + 1), bad)
    return "rows.jsonl", b"\n".join(rows) + b"\n"


@pytest.fixture(scope="module")
def punkt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("punkt") / "punkt"
    build_punkt(folder, ["A sentence. Another one. And a third, e.g. this."] * 20)
    return folder


def test_broken_rows(tmp_path, punkt):
    rng, spec = random.Random(5), chunks_of(Corpus(sources=[TextSource(dataset="data", mixed=True)]), 20)
    for number in range(BROKEN_ROWS):
        folder, output = tmp_path / str(number), tmp_path / f"{number}.parquet"
        folder.mkdir()
        name, content = broken_row(rng)
        (folder / name).write_bytes(content)
        with pytest.raises(CorpusError) as error:
            write_chunks(spec, {"data": folder}, punkt, output)
        one_line(error.value, name)
        assert not output.exists() and not list(tmp_path.glob(".partial*"))


@pytest.mark.parametrize(
    "name, content",
    [
        ("rows.parquet", b"no parquet"),
        ("rows.jsonl.gz", b"no gzip"),
        ("rows.json", b"[{"),
        ("rows.csv", b"a,b\n1,2\n"),
        ("rows.tsv", b"text\n\xff\n"),
        ("text.md", b"\xff\xfe\x00"),
        ("text.unknown", b"\x89PNG"),
    ],
)
def test_broken_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError) as error:
        list(documents(TextSource(dataset="data", mixed=True), tmp_path))
    one_line(error.value, name)


# --- own files


def fetch_dataset(dataset, folder, results="results"):
    return resources.fetch_dataset(DatasetSpec(dataset=dataset, results=str(results)), folder)


@pytest.fixture
def notes(tmp_path):
    """A folder with text, rows, hidden files and other files."""
    folder = tmp_path / "my notes"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "a.md").write_text(TEXTS[0])
    (folder / "deep/b.txt").write_text(TEXTS[1])
    (folder / "deep/er/c.jsonl").write_text(json.dumps({"text": TEXTS[2], "other": 1}) + "\n")
    pq.write_table(pa.table({"text": [TEXTS[3], None]}), folder / "deep/d.parquet")
    (folder / ".hidden/e.md").write_text("hidden")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


def test_own_files_by_a_pattern(notes, tmp_path):
    fetch_dataset(Dataset(files=f"{notes}/**/*.{{md,txt,jsonl,parquet}}"), tmp_path / "results/mine")
    manifest = read_manifest(tmp_path / "results/mine", verify=True)
    assert sorted(manifest["files"]) == ["a.md", "deep/b.txt", "deep/d.parquet", "deep/er/c.jsonl"]
    found = dict(documents(TextSource(dataset="mine", mixed=True), tmp_path / "results/mine"))
    assert found == {
        "mine/a.md": TEXTS[0],
        "mine/deep/b.txt": TEXTS[1],
        "mine/deep/d.parquet:0": TEXTS[3],
        "mine/deep/d.parquet:1": "",
        "mine/deep/er/c.jsonl:0": TEXTS[2],
    }


def test_a_folder_is_searched_in_the_files_that_training_reads(notes):
    """A picture beside the text is none, and of a file that should be text the fault names its own place."""
    chunks = read_passages(notes)
    assert {name.partition("#")[0] for name, _ in chunks} == {
        "my notes/a.md",
        "my notes/deep/b.txt",
        "my notes/deep/d.parquet:0",
        "my notes/deep/er/c.jsonl:0",
    }
    assert " ".join(text for name, text in chunks if name.startswith("my notes/a.md")).split() == TEXTS[0].split()
    (notes / "b.md").write_bytes(b"\xff\xfe")
    with pytest.raises(RevelaError) as error:
        read_passages(notes)
    one_line(error.value, notes / "b.md")


@pytest.mark.parametrize("suffix, sign", [("csv", ","), ("tsv", "\t")])
def test_own_tables_of_a_spreadsheet(tmp_path, suffix, sign):
    """With a mark in front, lines as Windows ends them, and a cell of two lines that is longer than csv's own limit."""
    long = "A word. " * 20_000
    rows = [["number", "text"], ["1", f'"{TEXTS[0]}\r\n{long}"'], ["2", TEXTS[5].splitlines()[0]], ["3", ""]]
    path = tmp_path / f"notes.{suffix}"
    path.write_bytes(("\ufeff" + "".join(sign.join(row) + "\r\n" for row in rows)).encode())
    found = list(documents(TextSource(dataset="mine", mixed=True), tmp_path))
    assert [text for _, text in found] == [f"{TEXTS[0]}\n{long}", TEXTS[5].splitlines()[0], ""]
    assert read_passages(path)[0] == (f"notes.{suffix}:0", f"{TEXTS[0]}\n{long}")
    path.write_text('number\n"1')
    for read in (
        lambda: list(documents(TextSource(dataset="mine", mixed=True), tmp_path)),
        lambda: read_passages(path),
    ):
        with pytest.raises(RevelaError) as error:
            read()
        one_line(error.value, path)


def test_own_judgements_of_a_spreadsheet(tmp_path):
    (before,) = load_task(task("beir"), write_beir(tmp_path, "t"))
    for path in (tmp_path / "t").rglob("*.*"):
        path.write_bytes(("\ufeff" + path.read_text().replace("\n", "\r\n")).encode())
    (after,) = load_task(task("beir"), tmp_path)
    assert (after.qrels, after.queries, list(after.corpus)) == (before.qrels, before.queries, list(before.corpus))


def test_tables_hide_text_unless_the_source_is_mixed(notes):
    (notes / "picture.png").unlink()
    assert len(list(documents(TextSource(dataset="mine"), notes))) == 2  # the parquet file's rows
    assert len(list(documents(TextSource(dataset="mine", mixed=True), notes))) == 5


@pytest.mark.parametrize("pattern", ["{0}/**/*.rtf", "{0}/nowhere/*.md", "nowhere/*"])
def test_a_pattern_that_matches_nothing(notes, tmp_path, pattern):
    with pytest.raises(ResourceError) as error:
        fetch_dataset(Dataset(files=pattern.format(notes)), tmp_path / "results/mine")
    one_line(error.value, "no file matches")
    assert not (tmp_path / "results/mine").exists()


def test_a_folder_is_read_by_suffix_in_any_case(notes, tmp_path):
    for name in ("deep/UPPER.TXT", "main.rs", "query.sql", "page.html", "view.tsx", "a[1].hpp"):
        (notes / name).write_text(TEXTS[0])
    (notes / "study.ipynb").write_text("{}")
    manifest = fetch_dataset(Dataset(files=str(notes)), tmp_path / "results/mine")
    own = ["a.md", "a[1].hpp", "deep/UPPER.TXT", "deep/b.txt", "deep/d.parquet", "deep/er/c.jsonl"]
    assert sorted(manifest["files"]) == [*own, "main.rs", "page.html", "query.sql", "view.tsx"]
    assert counted(matching(str(notes))) == "files read: 10, passed over: 2 (.png 1, .ipynb 1)"


@pytest.mark.parametrize("pattern", ["{0}", "{0}/**/*.{{md,txt,jsonl,parquet}}"])
def test_results_within_the_text_are_no_text(notes, pattern):
    """So that all of a folder can be read for results in it, and again what was read before."""
    results, dataset = notes / "results", Dataset(files=pattern.format(notes))
    first = fetch_dataset(dataset, results / "resources/datasets/mine", results=results)
    (results / "table1.md").write_text("| a table |")
    assert fetch_dataset(dataset, results / "resources/datasets/mine", results=results) == first
    assert sorted(first["files"]) == ["a.md", "deep/b.txt", "deep/d.parquet", "deep/er/c.jsonl"]
    with pytest.raises(ResourceError) as error:  # of nothing but results there is no text
        fetch_dataset(dataset, results / "resources/datasets/mine", results=notes)
    one_line(error.value, "no file matches")


def test_a_file_of_the_working_directory_is_text(notes, monkeypatch):
    monkeypatch.chdir(notes)
    for pattern in ("a.md", "*.md", "./a.md", "**/a.md"):
        assert list(fetch_dataset(Dataset(files=pattern), "out/mine", results="out")["files"]) == ["a.md"]


def test_own_text_in_one_line_of_the_configuration(notes, tmp_path, punkt):
    values = yaml.safe_load((ROOT / "tests/small/config.yaml").read_text())
    values["corpora"]["mine"] = {"files": f"{notes}/**/*.{{md,txt}}", "batches": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    config = load(tmp_path / "config.yaml").config
    fetch_dataset(config.datasets["mine"], tmp_path / "mine")
    corpus, chunks = config.corpora["mine"], tmp_path / "chunks.parquet"
    write_chunks(chunks_of(corpus, 5), {"mine": tmp_path / "mine"}, punkt, chunks)
    counts = write_batches(batches_of(corpus, 4), [chunks], tmp_path / "batches.parquet")
    assert counts["batches"] == 1 and counts["documents"] == 2


# --- nothing from outside is run


def test_a_model_of_pickles_is_refused(tmp_path, backbone):
    folder = shutil.copytree(backbone, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ResourceError) as error:
        fetch_model("m", PathSource(str(folder)), tmp_path / "m")
    one_line(error.value, "pickles are not loaded")
    with pytest.raises((RetrieverError, OSError)) as error:
        Retriever.from_backbone(folder, max_length=16)
    assert "pytorch_model.bin" not in str(error.value) or "safetensors" in str(error.value)


def test_code_of_a_checkpoint_is_neither_fetched_nor_run(tmp_path, backbone, monkeypatch):
    folder = shutil.copytree(backbone, tmp_path / "with-code")
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Config"}, "model_type": "evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\n")
    fetch_model("m", PathSource(str(folder)), tmp_path / "m")
    assert not (tmp_path / "m/evil.py").exists()
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # what transformers would ask
    with pytest.raises(RetrieverError, match="with-code: it needs code that comes with the checkpoint, which is never"):
        Retriever.from_backbone(folder, max_length=16)
    assert not (tmp_path / "pwned").exists()


def test_no_code_asks_for_trust():
    for path in (ROOT / "revela").rglob("*.py"):
        loads = re.findall(r"Auto\w+\.from_pretrained", path.read_text())
        # a model card's are for its readers
        assert not loads or path.name in ("pretrained.py", "card.py") or "**SAFE}" in path.read_text(), path
    for path in [*(ROOT / "revela").rglob("*.py"), *(ROOT / "workflow").rglob("*.py")]:
        text = path.read_text()
        assert not re.search(r"trust_remote_code\s*=\s*True", text), path
        assert not re.search(r"\b(pickle|dill|cloudpickle)\.loads?\(|shell\s*=\s*True|\bos\.system\(", text), path
        for loading in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in loading, path
    for path in (ROOT / "workflow").rglob("*.smk"):
        assert not re.search(r"^\s*(shell|run):", path.read_text(), re.MULTILINE), path


def test_a_gated_model_names_the_page_of_its_licence(tmp_path, monkeypatch):
    import httpx
    from huggingface_hub.errors import GatedRepoError

    def gated(*_, **__):
        raise GatedRepoError(
            "gated\nwith details", response=httpx.Response(403, request=httpx.Request("GET", "https://x"))
        )

    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    monkeypatch.setattr(resources, "snapshot_download", gated)
    with pytest.raises(ResourceError) as error:
        fetch_model("m", HubSource("meta-llama/Llama-3.2-1B"), tmp_path / "m")
    text = one_line(error.value, "https://huggingface.co/meta-llama/Llama-3.2-1B")
    assert "accept its licence" in text and "HF_TOKEN" in text and "hf_planted" not in text
