"""Checkpoints of a training run: written whole or not at all, checked before use, refused by any other run.

A checkpoint is a folder `step-00000123` with DeepSpeed's state (trainable parameters, optimizer, schedule; a file per
process), the log up to that step, and a manifest with the hash of each file and the fingerprint of the run. There is no
state of random generators and none of the data, because both follow from the seed and the step (`revela.training.rows`).
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist

from revela.errors import RevelaError
from revela.files import PARTIAL, atomic_folder
from revela.provenance import ProvenanceError, read_manifest, write_manifest
from revela.study.layout import LOG

LOCK = "lock"
STATE = "state"
KEPT = 2


class CheckpointError(RevelaError):
    """A checkpoint that cannot be written, or that belongs to another run. The message is one line."""


class SaveError(CheckpointError):
    """A checkpoint of which a process could not write its part. The older ones are as they were."""


def is_cut_off(error: Exception) -> bool:
    """Whether it says that the connection to another process broke."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


class Checkpoints:
    """The checkpoints of one run in a folder, and its log.

    folder: where they stand, apart from the run's outputs, which Snakemake deletes before each attempt.
    fingerprint: {name: JSON value} of all that the result depends on.
    """

    def __init__(self, folder: str | Path, fingerprint: dict[str, Any]):
        self.folder, self.fingerprint = Path(folder), fingerprint

    @property
    def log(self) -> Path:
        """The log of the run so far, in JSON lines."""
        return self.folder / LOG

    def save(self, engine, step: int, **facts: Any) -> None:
        """Writes the state after a step, with facts for the manifest, and drops the oldest checkpoint.

        To be called by all processes. Raises SaveError, the older checkpoints untouched, if the disk is full.
        """
        path = self.folder / f"step-{step:08d}"
        first = dist.get_rank() == 0
        try:
            with (
                atomic_folder(path) if first else contextlib.nullcontext(path.with_name(PARTIAL + path.name)) as partial
            ):
                dist.barrier()
                engine.save_checkpoint(str(partial), tag=STATE, save_latest=False, exclude_frozen_parameters=True)
                if first:
                    shutil.copy(self.log, partial)
                    write_manifest(partial, step=step, fingerprint=self.fingerprint, **facts)
        except (OSError, RuntimeError) as error:
            if is_cut_off(error):
                raise
            raise SaveError(f"{path}: cannot be written ({error}); older checkpoints are as they were") from error
        if first:
            paths = self._paths()
            damaged = [other for other in paths if other.name > path.name]  # `restore` passed over them
            for old in damaged + paths[len(damaged) :][KEPT:]:
                shutil.rmtree(old)
        dist.barrier()

    def restore(self, engine) -> dict[str, Any] | None:
        """Puts the engine and the log into the state of the newest good checkpoint and returns its manifest.

        To be called by all processes. Without a good checkpoint it returns None and empties the log. Raises
        CheckpointError if the checkpoint belongs to a run with other settings or inputs.
        """
        answer = [None, None]
        if dist.get_rank() == 0:
            try:
                answer[0] = self._newest()
            except CheckpointError as error:
                answer[1] = error
        dist.broadcast_object_list(answer)
        found, error = answer
        if error is not None:
            raise error
        if found is None:
            return None
        path, manifest = found
        engine.load_checkpoint(str(path), tag=STATE, load_module_strict=False)
        return manifest

    def remove(self) -> None:
        """Deletes the folder, once its run is complete. To be called by the first process."""
        self._held.close()
        shutil.rmtree(self.folder)

    def _newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint whose files are as its manifest says; its log becomes the run's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim()
        for cut_off in self.folder.glob(f"{PARTIAL}step-*"):
            shutil.rmtree(cut_off)
        for path in self._paths():
            try:
                manifest = read_manifest(path, verify=True)
            except (ProvenanceError, OSError) as error:
                print(f"damaged checkpoint, trying an older one: {error}", file=sys.stderr)
                continue
            self._check(manifest["fingerprint"])
            shutil.copy(path / LOG, self.log)
            return path, manifest
        self.log.write_text("")
        return None

    def _check(self, other: dict[str, Any]) -> None:
        here = self.fingerprint
        names = [name for name in sorted(here.keys() | other.keys()) if other.get(name) != here.get(name)]
        if not names:
            return
        differing = ", ".join(f"{name} ({other.get(name)} there, {here.get(name)} now)" for name in names)
        same = f"start it with {other.get('processes')} processes, or " if names == ["processes"] else ""
        raise CheckpointError(
            f"{self.folder}: these checkpoints are of another run: they differ in {differing}; "
            f"{same}delete the folder to start anew"
        )

    def _claim(self) -> None:
        """Holds the folder for as long as the process lives; CheckpointError if another run does."""
        self._held = (self.folder / LOCK).open("a")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"{self.folder}: another run is at work here; wait for it, or end it") from None
        except OSError:  # a file system without locks
            pass

    def _paths(self) -> list[Path]:
        """The folders of checkpoints, newest first."""
        return sorted(self.folder.glob("step-*"), reverse=True)
