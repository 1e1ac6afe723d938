"""Which of a user's files are read, and what their copies know of them."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from revela.provenance import read_manifest
from revela.study.settings import Dataset
from revela.study.source import PathSource
from revela.study.specification import DatasetSpec
from revela.text.own_files import ResourceError, as_named_by_user, content, matching, model_content
from revela.text.resources import fetch_dataset, fetch_model


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """The folder `notes` with a.md and deep/b.md, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes/deep").mkdir(parents=True)
    (tmp_path / "notes/a.md").write_text("One sentence.")
    (tmp_path / "notes/deep/b.md").write_text("Another one.")
    return tmp_path / "notes"


# --- each real file once


@pytest.mark.parametrize("pattern", ["notes", ".", "notes/**/*.md", "**/*.md", "{notes,notes/deep}/**/*.md"])
def test_links_that_lead_back_add_nothing(notes, pattern):
    for number in range(12):  # with one loop there were 41 copies of a file, and with two no end
        (notes / f"self{number}").symlink_to(".")
        (notes / f"deep/up{number}").symlink_to("..")
    found = matching(pattern)
    assert [str(found.folder / name) for name in found.names] == ["notes/a.md", "notes/deep/b.md"]
    assert found.others == []


@pytest.mark.parametrize("pattern", ["notes", "notes/**/*.md"])
def test_links_out_of_the_folder_are_followed_and_a_file_has_one_name(notes, pattern):
    (notes.parent / "elsewhere").mkdir()
    (notes.parent / "elsewhere/c.md").write_text("A third.")
    for name in ("link", "other"):
        (notes / name).symlink_to("../elsewhere")
    (notes / "a0.md").symlink_to("a.md")
    assert matching(pattern).names == ["a.md", "deep/b.md", "link/c.md"]


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("notes/*.md", ["a.md"]),
        ("notes/*", ["a.md"]),
        ("notes/**", ["a.md", "deep/b.md"]),
        ("notes/*/*.md", ["deep/b.md"]),
        ("notes/{a,deep/b}.md", ["a.md", "deep/b.md"]),
        ("n*s/[a-c].md", ["notes/a.md"]),
        ("notes/.*.md", [".hidden.md"]),
        ("notes/.git/*.md", ["d.md"]),
        ("notes/deep/../?.md", ["a.md"]),
        ("current*/*.md", ["current/b.md"]),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_patterns_mean_what_a_shell_takes_them_for(notes, pattern, names, absolute):
    (notes / ".hidden.md").write_text("x")
    (notes / ".git").mkdir()
    (notes / ".git/d.md").write_text("x")
    (notes.parent / "current").symlink_to("notes/deep")
    assert [
        name.removeprefix("../") for name in matching(f"{notes.parent}/{pattern}" if absolute else pattern).names
    ] == names


# --- JSON that is text, and JSON that is settings


@pytest.mark.parametrize(
    "written, rows",
    [
        ('{\n "name": "app",\n "version": "1"\n}', False),
        ('{"name": "app"}\n', False),
        ("[1, 2, 3]", False),
        ('"text"', False),
        ("", False),
        ("not JSON", False),
        ('[\n {"text": "One."}\n]', True),
        ('[{"text": "One."}]', True),
        ('{"text": "One."}\n{"text": "Two."}\n', True),
        ('{"text": "One."}\n{"text": torn\n', True),
        ('[{"text": "One."', True),  # which reading explains
    ],
)
def test_json_without_rows_is_passed_over_in_a_folder(notes, written, rows):
    (notes / "package.json").write_text(written)
    found = matching("notes")
    assert ("package.json" in found.names) == rows and ("package.json" in found.others) != rows
    assert matching("notes/package.json").names == matching("notes/*.json").names == ["package.json"]
    (notes / "a.md").unlink()
    (notes / "deep/b.md").unlink()
    if not rows:
        with pytest.raises(ResourceError, match="none of its 1 files is text or a table"):
            matching("notes")


# --- copies


def made(dataset):
    spec = DatasetSpec(dataset=dataset, results="results", content=content(dataset, "results", "results/mine"))
    return spec.content, fetch_dataset(spec, "results/mine")


@pytest.mark.parametrize("dataset", [Dataset(files="notes"), Dataset(files="notes/**/*"), Dataset(path="notes")])
def test_names_and_hashes_decide_whether_a_copy_is_made_again(notes, dataset):
    planned, manifest = made(dataset)

    def now():
        return content(dataset, "results", "results/mine")

    assert now() == planned == manifest["sha256"]
    os.utime(notes / "a.md", (1, 1))
    assert now() == planned  # touched, but the same
    (notes / "a.md").write_text("One sentence!")
    changed = now()
    (notes / "new.md").write_text("Sentences of a new file.")
    added = now()
    (notes / "a.md").rename(notes / "renamed.md")
    assert len({planned, changed, added, now()}) == 4
    assert made(dataset)[1]["sha256"] == now()
    for path in notes.rglob("*.md"):
        path.unlink()
    assert now() == read_manifest("results/mine")["sha256"]  # nothing to make it of: the copies stand


def test_an_edit_of_a_file_leaves_its_copy_alone(notes):
    dataset = Dataset(files="notes")
    planned, _ = made(dataset)
    with (notes / "a.md").open("a") as file:
        file.write("More.")
    read_manifest("results/mine", verify=True)
    assert content(dataset, "results", "results/mine") != planned


def test_no_file_is_hashed_twice_while_it_stays_as_it_was(notes, monkeypatch):
    dataset, read = Dataset(files="notes"), []
    made(dataset)
    monkeypatch.setattr("revela.text.own_files.sha256_file", lambda path: read.append(path.name) or "0" * 64)
    content(dataset, "results", "results/mine")
    assert read == []
    (notes / "a.md").write_text("Longer than it was.")
    content(dataset, "results", "results/mine")
    assert read == ["a.md"]


def test_a_local_model_that_changed_is_fetched_again(tmp_path):
    """A fetched folder has links to the files, so that even a change of the same bytes' place must be seen."""
    model, copy = tmp_path / "model", tmp_path / "fetched"
    shutil.copytree(Path(__file__).parents[2] / "resources/backbones/tiny-1m", model)
    (model / "manifest.json").unlink()
    planned = model_content(model, copy)
    fetched = fetch_model("m", PathSource(path=str(model)), copy)
    assert model_content(model, copy) == planned == fetched["sha256"]
    (model / "notes.bin").write_text("not taken")
    assert model_content(model, copy) == planned
    later = time.time() + 60
    config = (model / "config.json").read_text()
    (model / "config.json").write_text(config.replace("llama", "LLAMA", 1))  # through the link, with the same size
    os.utime(model / "config.json", (later, later))
    changed = model_content(model, copy)
    assert changed not in (None, planned)
    (model / "config.json").unlink()
    assert model_content(model, copy) not in (planned, changed)


def test_what_has_no_file_of_the_users_has_no_hash(tmp_path):
    assert content(Dataset(hub="owner/name"), "results", tmp_path) is None
    assert content(Dataset(files=f"{tmp_path}/none"), "results", tmp_path) is None


def test_errors_name_the_users_file(notes):
    made(Dataset(files="notes/**/*.md"))
    message = "results/mine/deep/b.md: not UTF-8 text"
    assert as_named_by_user(message, ["results/punkt", "results/mine"]) == "notes/deep/b.md: not UTF-8 text"
    (notes.parent / "results/mine/manifest.json").write_text(json.dumps({"files": {}}))
    assert as_named_by_user(message, ["results/mine"]) == message
