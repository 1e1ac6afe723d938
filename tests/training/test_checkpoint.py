import os
from pathlib import Path

import pytest
import torch.distributed as dist

from revela.training.checkpoint import CheckpointError, Checkpoints

RUN = {"learning_rate": 0.1, "data": "abc"}


@pytest.fixture(autouse=True, scope="module")
def process_group():
    """This process, alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Engine:
    """A state of one number in place of DeepSpeed's."""

    def __init__(self, state=None):
        self.state = state

    def save_checkpoint(self, folder, tag, **options):
        (Path(folder) / tag).mkdir()
        (Path(folder) / tag / "rank0").write_text(str(self.state))

    def load_checkpoint(self, folder, tag, **options):
        self.state = int((Path(folder) / tag / "rank0").read_text())


class FullDisk(Engine):
    def save_checkpoint(self, folder, tag, **options):
        super().save_checkpoint(folder, tag)
        raise OSError(28, "No space left on device")


@pytest.fixture
def checkpoints(tmp_path):
    """A run in which steps 2, 4 and 6 were saved, the state 10 times the step."""
    checkpoints = Checkpoints(tmp_path / "run", RUN)
    assert checkpoints.restore(Engine()) is None
    for step in (2, 4, 6):
        with checkpoints.log.open("a") as log:
            log.write(f"{step - 1}\n{step}\n")
        checkpoints.save(Engine(10 * step), step, elapsed=step / 2)
    checkpoints._held.close()  # as when its process ends
    return checkpoints


def restored(folder, run=RUN):
    """(manifest, state, log) as the next attempt finds them."""
    engine, checkpoints = Engine(), Checkpoints(folder, run)
    manifest = checkpoints.restore(engine)
    checkpoints._held.close()
    return manifest, engine.state, checkpoints.log.read_text().split()


def test_the_newest_checkpoint_is_restored_with_its_log(checkpoints):
    with checkpoints.log.open("a") as log:
        log.write("7\n8\n")
    manifest, state, log = restored(checkpoints.folder)
    assert (manifest["step"], manifest["elapsed"], state) == (6, 3.0, 60)
    assert log == ["1", "2", "3", "4", "5", "6"]


def test_old_checkpoints_are_dropped(checkpoints):
    assert sorted(os.listdir(checkpoints.folder)) == ["lock", "log.jsonl", "step-00000004", "step-00000006"]


@pytest.mark.parametrize("damage", ["truncate", "remove", "no manifest", "empty manifest"])
def test_a_damaged_checkpoint_gives_way_to_the_last_good_one(checkpoints, capsys, damage):
    newest = checkpoints.folder / "step-00000006"
    if damage == "truncate":
        (newest / "state" / "rank0").write_text("6")
    elif damage == "remove":
        (newest / "state" / "rank0").unlink()
    elif damage == "no manifest":
        (newest / "manifest.json").unlink()
    else:
        (newest / "manifest.json").write_text("")
    manifest, state, log = restored(checkpoints.folder)
    assert (manifest["step"], state, log) == (4, 40, ["1", "2", "3", "4"])
    assert "damaged checkpoint, trying an older one" in capsys.readouterr().err


def test_without_a_good_checkpoint_the_run_starts_anew(checkpoints):
    for path in checkpoints.folder.glob("step-*"):
        (path / "manifest.json").unlink()
    assert restored(checkpoints.folder) == (None, None, [])
    checkpoints.save(Engine(20), 2)  # earlier than those that are damaged
    assert restored(checkpoints.folder)[1] == 20
    assert sorted(path.name for path in checkpoints.folder.glob("step-*")) == ["step-00000002"]


def test_an_interrupted_write_is_no_checkpoint(checkpoints):
    partial = checkpoints.folder / ".partial-step-00000008"
    partial.mkdir()
    (partial / "state").write_text("half")
    assert restored(checkpoints.folder)[1] == 60
    assert not partial.exists()
    partial.mkdir()
    checkpoints.save(Engine(80), 8)
    assert restored(checkpoints.folder)[1] == 80
    assert not partial.exists()


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"learning_rate": 0.2, "data": "abc"}, r"differ in learning_rate \(0.1 there, 0.2 now\); delete"),
        ({"learning_rate": 0.2, "data": "abd"}, r"differ in data \(abc there, abd now\), learning_rate \(0.1"),
        ({**RUN, "scores": "x"}, r"differ in scores \(None there, x now\); delete"),
    ],
)
def test_checkpoints_of_another_run_are_refused(checkpoints, other, named):
    with pytest.raises(CheckpointError, match=named):
        restored(checkpoints.folder, other)


def test_two_runs_do_not_share_a_folder(checkpoints):
    first, second = (Checkpoints(checkpoints.folder, RUN) for _ in range(2))
    first.restore(Engine())
    with pytest.raises(CheckpointError, match="another run is at work here"):
        second.restore(Engine())
    first.remove()
    assert not checkpoints.folder.exists() and second.restore(Engine()) is None


def test_a_run_with_other_processes_is_told_their_number(checkpoints):
    checkpoints.fingerprint = RUN | {"processes": 4}
    checkpoints.save(Engine(80), 8)
    with pytest.raises(CheckpointError, match=r"processes \(4 there, 2 now\); start it with 4 processes, or delete"):
        restored(checkpoints.folder, RUN | {"processes": 2})


def test_a_full_disk_leaves_the_older_checkpoints(checkpoints):
    with pytest.raises(CheckpointError, match="step-00000008: cannot be written .*No space left on device"):
        checkpoints.save(FullDisk(80), 8)
    assert restored(checkpoints.folder)[1] == 60
    assert sorted(os.listdir(checkpoints.folder)) == ["lock", "log.jsonl", "step-00000004", "step-00000006"]
