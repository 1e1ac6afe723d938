"""A user's own files: which of them are read, what they hold by now, and what they are called.

Results hold copies of them. A copy is made again once names or hashes differ from those of its manifest, and errors name
the user's file. This module is imported while jobs are planned, so it imports little.
"""

from __future__ import annotations

import fnmatch
import gzip
import itertools
import json
import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from revela.errors import RevelaError
from revela.files import sha256_file, sha256_json
from revela.provenance import MANIFEST, ProvenanceError, read_manifest
from revela.study.base import STUDY_MARK
from revela.text.documents import kind_of
from revela.text.rows import RowError, json_values

if TYPE_CHECKING:
    from revela.study.corpora import Dataset

MAGIC = re.compile(r"[*?\[{]")


class ResourceError(RevelaError):
    """A resource cannot be had, or is not what it should be. The message is one line."""


@dataclass(frozen=True)
class Matched:
    """Files of own text, by their names in a folder, sorted: `names` are read, `others` are passed over."""

    folder: Path
    names: list[str]
    others: list[str]

    @property
    def passed_over(self) -> dict[str, int]:
        """Suffix -> the number of files passed over, the most frequent first."""
        return dict(Counter(Path(name).suffix.lower() or "without suffix" for name in self.others).most_common())


def matching(pattern: str, results: str | Path | None = None) -> Matched:
    """The files that a folder, a file, or a glob pattern with {a,b} stands for, hidden ones left out.

    A folder stands for the files that its suffixes mark as text or tables (`documents.KINDS`); the others are passed
    over, and so is JSON that holds no rows, such as a package.json. A pattern stands for every file that it matches,
    named from its last plain folder on. Links are followed, and a file that several names lead to is read once. Files
    below `results`, or in the folder of a study that `revela train` wrote, are left out as well. Raises ResourceError
    where no file is left.
    """
    place, every = Path(pattern), True
    if place.is_dir():
        if not os.access(place, os.R_OK | os.X_OK):
            raise ResourceError(f"{pattern}: no permission to read this folder")
        source, every = place, False
        found = _below(source)
    elif place.is_file():
        source, found = place.parent, [place.name]
    else:
        source = Path(*itertools.takewhile(lambda part: not MAGIC.search(part), place.parent.parts))
        start = Path(place.anchor or ".")
        parts = [Path(plain).relative_to(place.anchor).parts for plain in _alternatives(pattern)]
        matched = {name for one in parts for name in _matched(str(start), one)}
        found = [Path(name).relative_to(source).as_posix() for name in matched]
    found = _each_once(source, [name for name in found if name != MANIFEST])
    results_too = [Path(results)] if results else []
    never = [folder.resolve() for folder in (*results_too, *_studies(source, found))]
    never = [folder for folder in never if folder.is_relative_to(source.resolve())]
    if never:
        found = [name for name in found if not any(map((source / name).resolve().is_relative_to, never))]
    names = [name for name in found if every or _is_text(source / name)]
    if not names:
        fault = f"none of its {len(found)} files is text or a table by its suffix" if found else "no file matches"
        valid = "valid: a folder, a file, or a pattern with *, ** (folders at any depth) and {a,b}, outside the results"
        raise ResourceError(f"{pattern}: {fault}; {valid}")
    return Matched(source, names, sorted(set(found).difference(names)))


def visible(folder: Path) -> list[str]:
    """The relative names of a folder's files in order, without hidden ones and those behind links to folders."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


def content(dataset: Dataset, results: str, made: str | Path) -> str | None:
    """One hash over names and bytes of the user's files behind a dataset, as the manifest of its folder would have it.

    A file is hashed if its size or its time of change differs from those of its copy in `made`, the dataset's folder.
    Where the files are gone it is the hash of the copies. None where there is neither, and for other datasets.
    """
    if not (dataset.files or dataset.path):
        return None
    made = Path(made)
    known = _manifest_of(made)
    try:
        if dataset.files:
            found = matching(dataset.files, results)
            source, names = found.folder, found.names
        else:
            source = Path(dataset.path)
            names = [name for name in visible(source) if name != MANIFEST]
        return _hash_of_all(source, names, made, known)
    except (ResourceError, OSError):
        return known["sha256"]


def model_content(folder: str | Path, made: str | Path) -> str | None:
    """As `content`, of the files of a local model's folder that `revela.text.resources.fetch_model` takes.

    Of a folder with a manifest it is the hash that stands there; `fetch_model` verifies it.
    """
    from revela.text.hub import MODEL_FILES, NOT_MODEL_FILES

    source, made = Path(folder), Path(made)
    known = _manifest_of(made)
    if (source / MANIFEST).is_file():
        return _manifest_of(source)["sha256"]
    names = [name for name in visible(source) if _any_of(MODEL_FILES, name) and not _any_of(NOT_MODEL_FILES, name)]
    try:
        return _hash_of_all(source, names, made, known)
    except OSError:  # a file that cannot be read: the job that fetches the model says so
        return known["sha256"]


def _any_of(patterns: Sequence[str], name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _manifest_of(folder: Path) -> dict:
    try:
        return read_manifest(folder)
    except (ProvenanceError, OSError):
        return {"files": {}, "sha256": None}


def _hash_of_all(source: Path, names: Sequence[str], made: Path, known: dict) -> str | None:
    if not names:
        return known["sha256"]
    made_at = (made / MANIFEST).stat().st_mtime if known["files"] else 0.0

    def of(name: str) -> str:
        """Of a user's file: what is known, where it has not changed since its copy, or its link, was made."""
        path, copy, before = source / name, made / name, known["files"].get(name)
        if before and copy.is_file():
            one, other = path.stat(), copy.stat()
            if (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns) and one.st_mtime <= made_at:
                return before
        return sha256_file(path)

    return sha256_json({name: of(name) for name in names})


def as_named_by_user(message: str, folders: Iterable[str]) -> str:
    """A message in which the files of copied folders have the names of those that they are copies of."""
    for folder in folders:
        try:
            manifest = json.loads(Path(folder, MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # no folder with a manifest
            continue
        if place := manifest.get("place") or manifest.get("path"):
            message = message.replace(f"{folder}/", f"{place}/")
    return message


# --- files


def _below(folder: Path) -> list[str]:
    """The visible files at any depth. A folder is read once, whatever links lead to it, by its own name if it has one."""
    found, seen = [], set()
    folders, links = deque([str(folder)]), deque()
    while folders or links:
        here = (folders or links).popleft()
        if (real := os.path.realpath(here)) in seen:
            continue
        seen.add(real)
        for entry in _entries(here):
            if entry.name.startswith("."):
                continue
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # links that lead to each other
                continue
            if is_folder:
                (links if entry.is_symlink() else folders).append(entry.path)
            elif is_file:
                found.append(Path(entry.path).relative_to(folder).as_posix())
    return found


def _matched(folder: str, parts: Sequence[str], above: tuple[str, ...] = ()) -> Iterator[str]:
    """The files that a pattern's parts match from a folder on. `**` enters no folder that it stands in already."""
    head, *rest = parts
    if head == "**":
        yield from _matched(folder, rest or ["*"])
        above = (*above, os.path.realpath(folder))
        for entry in _entries(folder):
            inner = entry.is_dir() and not entry.name.startswith(".")
            if inner and not (entry.is_symlink() and os.path.realpath(entry.path) in above):
                yield from _matched(entry.path, parts, above)
        return
    if MAGIC.search(head):
        hidden = head.startswith(".")
        names = [entry.name for entry in _entries(folder) if hidden or not entry.name.startswith(".")]
        names = fnmatch.filter(names, head)
    else:
        names = [head]
    for name in names:
        path = os.path.join(folder, name)
        if rest and os.path.isdir(path):
            yield from _matched(path, rest)
        elif not rest and os.path.isfile(path):
            yield path


def _entries(folder: str) -> list[os.DirEntry]:
    """What stands in a folder, by name; nothing where it may not be read, as for glob."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        return []


def _each_once(source: Path, names: Iterable[str]) -> list[str]:
    """One name of each file, sorted: that without links if it is among them, else the first."""
    of_file: dict[str, str] = {}
    top = os.path.realpath(source)
    for name in sorted(names):
        real = os.path.realpath(source / name)
        if real not in of_file or real == os.path.join(top, name):
            of_file[real] = name
    return sorted(of_file.values())


def _studies(source: Path, names: list[str]) -> list[Path]:
    """The folders below `source` that hold a study of `revela train`, found by the mark in its configuration."""
    configs = [source / name for name in names if "/" in name and name.endswith("/config.yaml")]
    return [path.parent for path in configs if path.read_bytes().startswith(STUDY_MARK.encode())]


def _alternatives(pattern: str) -> list[str]:
    """The patterns without braces that one with {a,b} stands for."""
    braces = re.search(r"{([^{}]*)}", pattern)
    if not braces:
        return [pattern]
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [one for choice in braces[1].split(",") for one in _alternatives(before + choice + after)]


def _is_text(path: Path) -> bool:
    kind = kind_of(path)
    return kind is not None and (kind != "json" or _holds_rows(path))


def _holds_rows(path: Path) -> bool:
    """Whether a .json file is a list of objects, or has one in each of several lines; not one object, or other values.

    A list that cannot be read counts, so that reading it says what is wrong with it.
    """
    values = json_values(path)
    try:
        _, first = next(values, (0, None))
    except RowError:
        return _begins_a_list(path)
    if not isinstance(first, dict) or _begins_a_list(path):
        return isinstance(first, dict)
    try:
        return next(values, None) is not None
    except RowError:
        return True


def _begins_a_list(path: Path) -> bool:
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
            return file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    except (OSError, EOFError):
        return True
