"""Failures of the operating system: one line with file and fault, and nothing half-written."""

import errno
import json
import os

import pytest

from revela.command import own_study
from revela.errors import in_one_line
from revela.files import atomic_folder, atomic_write, naming, write_json
from revela.study import reason
from revela.study.base import ConfigError, read_yaml
from revela.text.own_files import ResourceError, matching

FULL = OSError(errno.ENOSPC, "No space left on device")  # as a write raises it: without a file


@pytest.mark.parametrize(
    "error, said",
    [
        (OSError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied"),
        (OSError(errno.ENOENT, "No such file or directory", "a", None, "b"), "b: No such file or directory"),
        (ValueError("two\n  lines"), "two lines"),
        (KeyError(), "KeyError"),
    ],
)
def test_an_error_is_one_line(error, said):
    assert in_one_line(error) == said


@pytest.mark.parametrize("error", [FULL, RuntimeError("I/O error: No space left on device (os error 28)")])
@pytest.mark.parametrize("write", [atomic_write, atomic_folder])
def test_a_full_disk_is_told_with_the_file(write, error, tmp_path):
    with pytest.raises(OSError) as raised, write(tmp_path / "out"):
        raise type(error)(*error.args)
    assert in_one_line(raised.value) == f"{tmp_path}/out: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_names_its_file_keeps_it():
    with pytest.raises(PermissionError, match="'its own'"), naming("other"):
        raise PermissionError(errno.EACCES, "Permission denied", "its own")
    with pytest.raises(ValueError, match="no fault of the disk"), naming("other"):
        raise ValueError("no fault of the disk")


def test_the_partial_file_has_no_part_in_what_is_told(tmp_path):
    with pytest.raises(PermissionError) as raised, naming(tmp_path / "e.npy"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".partial-e.npy"))
    assert in_one_line(raised.value) == f"{tmp_path}/e.npy: Permission denied"


def test_a_reason_finds_room_on_a_full_disk(tmp_path, monkeypatch):
    """What the job noted when it began is overwritten in its place."""
    log = tmp_path / "train.log"
    reason.begin(log)

    def full(path, value, **_):
        raise FULL

    monkeypatch.setattr(reason, "write_json", full)
    reason.give(log, "o/cell: No space left\non device")
    assert reason.read(reason.reason_file(log)) == "o/cell: No space left on device"


def test_a_study_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, backbone):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "n.txt").write_text("One two. Three.")
    write, written = own_study.atomic_write, []

    def full(path):
        written.append(path.name)
        if path.name == "config.yaml":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path)

    monkeypatch.setattr(own_study, "atomic_write", full)
    with pytest.raises(OSError, match="No space left"):
        own_study.write_study("n.txt", str(backbone), "out")
    assert len(written) == 4 and not (tmp_path / "out").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    own_study.write_study("n.txt", str(backbone), "out")  # and the same command goes on


def test_a_file_that_is_missing_is_named_once(tmp_path):
    with pytest.raises(ConfigError) as error:
        read_yaml(tmp_path / "c.yaml")
    assert str(error.value) == f"{tmp_path}/c.yaml: No such file or directory"


def test_links_that_lead_to_each_other_are_passed_over(tmp_path):
    (tmp_path / "a.txt").symlink_to("b.txt")
    (tmp_path / "b.txt").symlink_to("a.txt")
    (tmp_path / "c.txt").write_text("c")
    assert matching(str(tmp_path)).names == ["c.txt"]


def test_a_folder_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    (tmp_path / "c.txt").write_text("c")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ResourceError, match="no permission to read this folder"):
        matching(str(tmp_path))


def test_an_atomic_file_is_as_before(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
