"""Files that are whole or not there, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"  # begins the name of what is being written


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder (same suffix) that becomes `path` if the block succeeds.

    The content is on the disk before the name is, so a reader, or the next run after a power cut, finds the whole
    file or none. If the block raises, nothing is left. The parent folder is made. Permissions are those of the umask.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(PARTIAL + path.name)
    with naming(path):
        partial.unlink(missing_ok=True)
        partial.touch()
    mode = partial.stat().st_mode  # the block may put another file here, as safetensors does, for its user alone
    try:
        with naming(path):
            yield partial
        partial.chmod(mode)
        _fsync(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Within it, an error of writing names this file, and not the partial one or none, as libraries do of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno and (not error.filename or Path(error.filename).name.startswith(PARTIAL)):
            error.filename = str(path)
        raise
    except Exception as error:
        if "No space left on device" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def write_json(path: str | Path, value: Any, *, indent: int | None = 1) -> None:
    """Writes a JSON value to a file, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary empty folder that becomes `path` if the block succeeds; an older `path` is replaced.

    Permissions of what the block wrote are those of the umask; files that it linked keep theirs.
    """
    path = Path(path)
    partial, replaced = path.with_name(PARTIAL + path.name), path.with_name(f"{PARTIAL}{path.name}.replaced")
    for leftover in (partial, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    with naming(path):
        partial.mkdir(parents=True)
    mode = partial.stat().st_mode
    try:
        with naming(path):
            yield partial
        for entry in [*partial.rglob("*"), partial]:
            if entry.is_dir():
                entry.chmod(mode)
            elif entry.stat().st_nlink == 1:
                entry.chmod(mode & 0o666)
            _fsync(entry)
        if path.exists():
            os.rename(path, replaced)
        os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _fsync(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """The SHA-256 of a JSON value in its canonical form (sorted keys, no white space), in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
