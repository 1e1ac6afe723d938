"""`revela train` on a machine that is too small: refused at once, and nothing is left behind."""

from pathlib import Path

import pytest

from revela.command import own_study
from revela.plan.available import Room
from revela.plan.fit import DoesNotFit

TINY = "resources/backbones/tiny-4m"


def write(folder, **options):
    (folder / "notes.txt").write_text("A sentence of some words. And another one.")
    return own_study.write_study(str(folder / "notes.txt"), TINY, folder / "out", **options)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(own_study, "room", lambda processes: Room(2**29 / processes, "by a test"))


def test_nothing_is_written(tmp_path, small):
    with pytest.raises(DoesNotFit, match=r"bs16: training needs \S+ GiB .* there are 0.5 GiB \(by a test\)"):
        write(tmp_path)
    assert not (tmp_path / "out").exists()


def test_what_is_trained_already_needs_no_memory(tmp_path, monkeypatch, small):
    with monkeypatch.context() as enough:
        enough.setattr(own_study, "room", lambda processes: Room(2**40, "by a test"))
        study, cell = write(tmp_path)
    with pytest.raises(DoesNotFit):
        write(tmp_path)
    Path(study.layout.cell(cell)).mkdir(parents=True)
    assert write(tmp_path)[1] == cell


def test_a_person_may_insist(tmp_path, small):
    _, cell = write(tmp_path, settings=["compute.gradient_checkpointing=true"])
    assert str(cell).endswith("/bs16")
