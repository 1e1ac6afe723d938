"""Where a result came from, and whether it is whole: atomic writes, hashes, manifests, the code behind a number.

Only the standard library is imported, because the Snakefile calls `code_hash` while the DAG is parsed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent  # whose own files are read, wherever those of a study are
MANIFEST = "manifest.json"
PARTIAL = ".partial-"
TIMESTAMP = ".snakemake_timestamp"  # put by Snakemake into a folder that a rule made
# What a job uses of the configuration is among its params, so an edit to the configuration's code changes no result.
NOT_CODE = {"revela.study.study"}
DISTRIBUTIONS = ("torch", "transformers", "tokenizers", "peft", "deepspeed", "safetensors", "numpy")


class ProvenanceError(ValueError):
    """A manifest that is missing, unreadable or contradicted by its files, or a module that does not exist."""


# --- atomic writes


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder (same suffix) that becomes `path` if the block succeeds.

    The content is on the disk before the name is, so a reader, or the next run after a power cut, finds the whole
    file or none. If the block raises, nothing is left. The parent folder is made. Permissions are those of the umask.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(PARTIAL + path.name)
    partial.unlink(missing_ok=True)
    partial.touch()
    mode = partial.stat().st_mode  # the block may put another file here, as safetensors does, for its user alone
    try:
        yield partial
        partial.chmod(mode)
        _fsync(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary empty folder that becomes `path` if the block succeeds; an older `path` is replaced.

    Permissions of what the block wrote are those of the umask; files that it linked keep theirs.
    """
    path = Path(path)
    partial, replaced = path.with_name(PARTIAL + path.name), path.with_name(f"{PARTIAL}{path.name}.replaced")
    for leftover in (partial, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    mode = partial.stat().st_mode
    try:
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


# --- hashes


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """The SHA-256 of a JSON value in its canonical form (sorted keys, no white space), in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- manifests


def write_manifest(folder: str | Path, **facts: Any) -> dict[str, Any]:
    """Writes `manifest.json` into a folder: the facts, the SHA-256 of every file, and one `sha256` over all of them.

    Facts are JSON values such as source, revision, counts. No clock time is added: equal content gives an equal
    manifest. Returns what was written.
    """
    folder = Path(folder)
    files = {str(path.relative_to(folder)): sha256_file(path) for path in _content(folder)}
    manifest = {**facts, "files": files, "sha256": sha256_json(files)}
    with atomic_write(folder / MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: str | Path, *, verify: bool = False) -> dict[str, Any]:
    """The manifest of a folder. With `verify` every file is hashed again.

    Raises ProvenanceError where there is no readable manifest, or where a file is missing, new or changed.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
    except FileNotFoundError:
        raise ProvenanceError(
            f"{folder}: no {MANIFEST}: this folder is not a finished output of the workflow"
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ProvenanceError(f"{folder / MANIFEST}: not a manifest ({error!r})") from None
    if verify:
        found = {str(path.relative_to(folder)): sha256_file(path) for path in _content(folder)}
        wrong = sorted(name for name in files.keys() | found.keys() if files.get(name) != found.get(name))
        if wrong:
            raise ProvenanceError(f"{folder}: differs from its {MANIFEST} in {', '.join(wrong)}; delete it and rerun")
    return manifest


def folder_sha256(folder: str | Path) -> str:
    """One hash over all files of a folder: as its manifest has it, computed in the same way where there is none."""
    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        return read_manifest(folder)["sha256"]
    return sha256_json({str(path.relative_to(folder)): sha256_file(path) for path in _content(folder)})


def _content(folder: Path) -> list[Path]:
    """The files of a folder in order, without the manifest, Snakemake's mark and leftovers of interrupted writes."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path not in (folder / MANIFEST, folder / TIMESTAMP)
        and not any(part.startswith(PARTIAL) for part in path.relative_to(folder).parts)
    )


# --- the code behind a result


def git_commit() -> str | None:
    """The commit of the checkout that this package runs from, with `-dirty` where tracked files differ from it.

    None where it does not run from a checkout of its own.
    """
    git, captured = ["git", "-C", str(CHECKOUT)], {"capture_output": True, "text": True}
    try:
        answer = subprocess.run([*git, "rev-parse", "--show-toplevel", "HEAD"], **captured, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--"], check=False, **captured).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    top, commit = answer.stdout.splitlines()
    if Path(top) != CHECKOUT:
        return None
    return f"{commit}-dirty" if changed else commit


def versions() -> dict[str, str]:
    """The installed versions of the libraries that can change a number."""
    return {name: importlib.metadata.version(name) for name in DISTRIBUTIONS}


def code_hash(module: str, *, without: Collection[str] = ()) -> str:
    """SHA-256 over the code of a module, for example `revela.training.loop`, and of all that it imports from its package.

    Imports inside functions count. Comments, docstrings and layout do not: the abstract syntax trees are hashed. An
    edit to a module outside the closure leaves the hash as it is. Modules in `without`, such as the objectives that a
    run does not use, and what only they import, are left out. Raises ProvenanceError if there is no such module.
    """
    return sha256_json({name: _module(name)[0] for name in import_closure(module, without=without)})


def import_closure(module: str, *, without: Collection[str] = ()) -> list[str]:
    """The modules of the package that run when `module` is imported and used, itself included, sorted.

    Raises ProvenanceError if there is no such module.
    """
    closure, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name in closure or name in NOT_CODE or name in without:
            continue
        closure.add(name)
        waiting += _module(name)[1]
    return sorted(closure)


@functools.cache
def _module(name: str) -> tuple[str, list[str]]:
    """(dump of the syntax tree without docstrings, modules of the package that it imports) of one module."""
    path = _path(name)
    if path is None:
        raise ProvenanceError(f"{name}: no such module in {PACKAGE}")
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imported = [package] if package != name else []
    if "." in package:
        imported.append(package.rpartition(".")[0])  # importing a.b.c runs a, a.b and a.b.c
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            imported += [source, *(f"{source}.{alias.name}" for alias in node.names)]
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree), [found for found in imported if _path(found) is not None]


def _path(name: str) -> Path | None:
    """The file of a module of this package; None for any other name."""
    first, *rest = name.split(".")
    if first != PACKAGE.name:
        return None
    base = PACKAGE.joinpath(*rest)
    if (base / "__init__.py").is_file():
        return base / "__init__.py"
    return base.with_suffix(".py") if rest and base.with_suffix(".py").is_file() else None
