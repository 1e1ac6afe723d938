"""Where a result came from: manifests, the commit, the versions of libraries."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Any

from revela.errors import RevelaError
from revela.files import PARTIAL, sha256_file, sha256_json, write_json

CHECKOUT = Path(__file__).resolve().parents[1]  # whose own files are read, wherever those of a study are
MANIFEST = "manifest.json"
TIMESTAMP = ".snakemake_timestamp"  # put by Snakemake into a folder that a rule made
DISTRIBUTIONS = ("torch", "transformers", "tokenizers", "peft", "deepspeed", "safetensors", "numpy")


class ProvenanceError(RevelaError):
    """A manifest that is missing, unreadable or contradicted by its files."""


def write_manifest(folder: str | Path, **facts: Any) -> dict[str, Any]:
    """Writes `manifest.json` into a folder: the facts, the SHA-256 of every file, and one `sha256` over all of them.

    Facts are JSON values such as source, revision, counts. No clock time is added: equal content gives an equal
    manifest. Returns what was written.
    """
    folder = Path(folder)
    files = {str(path.relative_to(folder)): sha256_file(path) for path in _content(folder)}
    manifest = {**facts, "files": files, "sha256": sha256_json(files)}
    write_json(folder / MANIFEST, manifest)
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
