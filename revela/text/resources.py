"""Resources: datasets, models and Punkt's parameters, each a folder with a manifest.

A resource comes from the Hugging Face hub at a revision whose commit is recorded, from a local
folder, or from what is installed on this machine. Its `manifest.json` says which, and holds the
SHA-256 of every file (`provenance.read_manifest(folder, verify=True)` hashes again). What runs
downstream reads the folder and cannot tell where it came from. A folder appears only when it is
whole: downloads collect in the hub's own cache, which resumes them.
"""

from __future__ import annotations

import glob
import io
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nltk
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)
from huggingface_hub.utils import filter_repo_objects
from nltk.tokenize.punkt import PunktParameters, PunktTrainer, load_punkt_params

from revela.errors import RevelaError
from revela.files import atomic_folder
from revela.provenance import MANIFEST, read_manifest, write_manifest
from revela.study.study import STUDY_MARK, Dataset, Model
from revela.text import embedded
from revela.text.chunking import PUNKT_FILE
from revela.text.documents import kind_of

# Weights as safetensors, tokenizer and configuration; neither pickles nor code that a checkpoint brings along.
MODEL_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "NOTICE*", "README.md"]
NOT_MODEL_FILES = ["onnx/*", "openvino/*", "original/*"]  # the same weights for other runtimes
PUNKT_TRAINING_CHARACTERS = 4_000_000


class ResourceError(RevelaError):
    """A resource that cannot be had, or that is not what it should be. The message is one line."""


def fetch_dataset(dataset: Dataset, folder: str | Path, *, results: str | Path | None = None) -> dict:
    """Make a dataset's folder and return its manifest.

    `hub`: the files of the repositories that match `patterns` (several repositories: each in a subfolder by its name
    without the owner). `path`: the files of a local folder, hidden ones left out, as hard links where the file system
    allows and else copied; if that folder has a manifest it is verified first. `files`: those of `matching`, likewise,
    but for what stands below `results`, the folder that all is written to. `installed`: text or a benchmark made from
    installed packages (`revela.text.embedded`), whose hash must be `dataset.sha256` where that is given. Raises ResourceError
    with one line on what cannot be had, and what to do.
    """
    folder = Path(folder)
    with atomic_folder(folder) as partial:
        if dataset.hub:
            repositories = [dataset.hub] if isinstance(dataset.hub, str) else dataset.hub
            commits = {}
            for name in repositories:
                target = partial if isinstance(dataset.hub, str) else partial / name.rpartition("/")[2]
                commits[name] = _snapshot("dataset", name, dataset.revision, dataset.patterns or None, None, target)
            facts = {"hub": commits, "revision": dataset.revision, "patterns": dataset.patterns}
        elif dataset.path:
            facts = {"path": dataset.path, "origin": _local(Path(dataset.path), folder, partial, "*", None)}
        elif dataset.files:
            matched = matching(dataset.files, results or folder)
            _place(matched.folder, matched.names, partial)
            facts = {"pattern": dataset.files, "count": len(matched.names)}
        else:
            facts = {"installed": dataset.installed, "content": dataset.content, **_installed(dataset, partial)}
        return write_manifest(partial, **facts)


def fetch_model(model: Model, folder: str | Path) -> dict:
    """Make a model's folder in the Hugging Face layout and return its manifest.

    `model.source` is ``hub:owner/name[@revision]`` or ``path:folder``; a local folder with a manifest is verified
    against it. Only safetensors, tokenizer and configuration are taken: no pickles, no code. Raises ResourceError with
    one line on what the place lacks, or the page to open.
    """
    folder = Path(folder)
    kind, _, place = model.source.partition(":")
    if kind not in ("hub", "path") or not place:
        raise ResourceError(
            f"model {model.name}: source {model.source!r} is not a place to fetch from; "
            "valid: hub:owner/name[@revision], path:folder"
        )
    with atomic_folder(folder) as partial:
        if kind == "hub":
            name, _, revision = place.partition("@")
            revision = revision or "main"
            commit = _snapshot("model", name, revision, MODEL_FILES, NOT_MODEL_FILES, partial)
            facts = {"hub": {name: commit}, "revision": revision}
        else:
            facts = {"path": place, "origin": _local(Path(place), folder, partial, MODEL_FILES, NOT_MODEL_FILES)}
        if not any(partial.rglob("*.safetensors")):
            raise ResourceError(
                f"model {model.name}: {model.source} has no weights as safetensors, and pickles are not loaded; "
                "for a hub model name a revision that has them, for example hub:owner/name@refs/pr/1"
            )
        return write_manifest(partial, **facts)


def _snapshot(
    kind: str, name: str, revision: str, patterns: list[str] | None, ignored: list[str] | None, target: Path
) -> str:
    """Download a snapshot into the hub's cache, place its files in `target`, and return the commit."""
    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{name}"
    try:
        snapshot = snapshot_download(
            name, repo_type=kind, revision=revision, allow_patterns=patterns, ignore_patterns=ignored
        )
    except GatedRepoError:
        raise ResourceError(
            f"{kind} {name} is gated: accept its licence at {page}, then set HF_TOKEN or run `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise ResourceError(
            f"{kind} {name}: not on the hub, or private; see {page}, and HF_TOKEN for a private one"
        ) from None
    except RevisionNotFoundError:
        raise ResourceError(f"{kind} {name} has no revision {revision!r}; see {page}/tree/main") from None
    except LocalEntryNotFoundError:
        raise ResourceError(
            f"{kind} {name} is not in the hub's cache and the hub cannot be reached (no network, or HF_HUB_OFFLINE "
            f"is set); fetch it where there is a network, or use a local copy by `path`; its page: {page}"
        ) from None
    except HFValidationError:
        raise ResourceError(f"{name!r} is not the name of a {kind} on the hub; valid: owner/name") from None
    except (HTTPError, XetDownloadError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ResourceError(f"{kind} {name}: download failed ({reason}); run again to resume it") from None
    snapshot = Path(snapshot)
    # the cache may hold more of this commit than is asked for now
    found = _files(snapshot, patterns, ignored)
    if not found:
        raise ResourceError(
            f"{kind} {name} at {snapshot.name} has no file that matches {patterns}; see {page}/tree/main"
        )
    _place(snapshot, found, target)
    return snapshot.name


def _local(
    source: Path, folder: Path, target: Path, patterns: str | list[str], ignored: list[str] | None
) -> dict | None:
    """Place a local folder's files in `target`; returns the facts of its own manifest, verified, if it has one."""
    if not source.is_dir():
        raise ResourceError(f"{source}: no such folder")
    if folder.resolve().is_relative_to(source.resolve()):
        raise ResourceError(f"{source}: holds the results folder {folder} itself; name the folder of the data alone")
    origin = None
    if (source / MANIFEST).is_file():
        manifest = read_manifest(source, verify=True)
        origin = {key: value for key, value in manifest.items() if key != "files"}
    found = [name for name in _files(source, patterns, ignored) if name != MANIFEST]
    if not found:
        raise ResourceError(f"{source}: no files that can be used ({patterns if patterns != '*' else 'it is empty'})")
    _place(source, found, target)
    return origin


@dataclass(frozen=True)
class Matched:
    """Files of own text by their names in a folder, sorted: those that are read, and those that are passed over."""

    folder: Path
    names: list[str]
    others: list[str]


def matching(pattern: str, results: str | Path | None = None) -> Matched:
    """The files that a folder, a file, or a glob pattern with {a,b} stands for, hidden ones left out.

    Of a folder, those that can be read as text or as rows by their suffix (`documents.KINDS`); the others are passed
    over. A pattern names its files itself, from its last plain folder on. What stands below `results`, or in the folder
    of a study that `revela train` wrote, is never text of a folder that holds it, too. Raises ResourceError where no
    file is left.
    """
    place, every = Path(pattern), True
    if place.is_dir():
        source, every = place, False
        found = glob.glob("**/*", root_dir=source, recursive=True)
    elif place.is_file():
        source, found = place.parent, [place.name]
    else:
        source = Path(*itertools.takewhile(lambda part: not set(part) & set("*?[{"), place.parent.parts))
        matched = {name for plain in _alternatives(pattern) for name in glob.glob(plain, recursive=True)}
        found = [Path(name).relative_to(source).as_posix() for name in matched]
    found = sorted(name for name in found if name != MANIFEST and (source / name).is_file())
    results_too = [Path(results)] if results else []
    never = [folder.resolve() for folder in (*results_too, *_studies(source, found))]
    never = [folder for folder in never if folder.is_relative_to(source.resolve())]
    if never:
        found = [name for name in found if not any(map((source / name).resolve().is_relative_to, never))]
    names = [name for name in found if every or kind_of(Path(name))]
    if not names:
        fault = f"none of its {len(found)} files is text or a table by its suffix" if found else "no file matches"
        valid = "valid: a folder, a file, or a pattern with *, ** (folders at any depth) and {a,b}, outside the results"
        raise ResourceError(f"{pattern}: {fault}; {valid}")
    return Matched(source, names, sorted(set(found).difference(names)))


def _studies(source: Path, names: list[str]) -> list[Path]:
    """The folders of studies that `revela train` wrote, by the mark in their configuration, but for `source` itself."""
    configs = [source / name for name in names if "/" in name and name.endswith("/config.yaml")]
    return [path.parent for path in configs if path.read_bytes().startswith(STUDY_MARK.encode())]


def _alternatives(pattern: str) -> list[str]:
    """The patterns that one with {a,b} stands for."""
    braces = re.search(r"{([^{}]*)}", pattern)
    if not braces:
        return [pattern]
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [one for choice in braces[1].split(",") for one in _alternatives(before + choice + after)]


def _files(folder: Path, patterns: str | list[str] | None, ignored: list[str] | None) -> list[str]:
    """Relative names, in order, of the files of a folder that match the patterns and are not hidden."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    visible = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    return list(filter_repo_objects(visible, allow_patterns=patterns, ignore_patterns=ignored))


def _place(source: Path, names: list[str], target: Path) -> None:
    """Hard links, so that nothing is stored twice; copies where the file system cannot."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link((source / name).resolve(), target / name)
        except OSError:
            shutil.copyfile(source / name, target / name)


def _installed(dataset: Dataset, folder: Path) -> dict:
    if dataset.content in ("source", "docstrings"):
        facts = embedded.write_dataset(dataset.installed, dataset.content, folder)
    else:
        facts = embedded.write_benchmark(
            dataset.content, dataset.installed, folder, queries=dataset.queries, documents=dataset.documents
        )
    text_sha256 = facts.pop("sha256")
    if dataset.sha256 and text_sha256 != dataset.sha256:
        raise ResourceError(
            f"text of {', '.join(dataset.installed)}: sha256 is {text_sha256}, expected {dataset.sha256}; "
            "the installed packages differ from constraints.txt: run `make setup`"
        )
    return {"text_sha256": text_sha256, **facts}


# --- Punkt


def build_punkt(folder: str | Path, texts: Iterable[str] | None = None) -> dict:
    """Make the folder of Punkt's parameters, plain JSON that `chunking.sentence_splitter` reads; returns its manifest.

    Args:
        folder: The resource.
        texts: Documents to train Punkt on (Kiss and Strunk, 2006), of which every n-th is used, n a power of two, so
            that at most four million characters are; None: NLTK's own English parameters, `punkt_tab`, from NLTK's
            data folders or by `nltk.download`.

    Raises:
        ResourceError: The texts have no word, or `punkt_tab` cannot be had.
    """
    if texts is None:
        parameters, facts = _punkt_tab(), {"source": "punkt_tab/english"}
    else:
        parameters, facts = _train_punkt(texts)
    content = {
        "abbreviations": sorted(parameters.abbrev_types),
        "collocations": sorted(parameters.collocations),
        "sentence_starters": sorted(parameters.sent_starters),
        "orthographic_context": dict(sorted(parameters.ortho_context.items())),
    }
    with atomic_folder(folder) as partial:
        (partial / PUNKT_FILE).write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")
        return write_manifest(partial, **facts)


def _train_punkt(texts: Iterable[str]) -> tuple[PunktParameters, dict]:
    kept, characters, step = [], 0, 1
    for index, text in enumerate(texts):
        if index % step == 0:
            kept.append(text)
            characters += len(text)
        while characters > PUNKT_TRAINING_CHARACTERS and len(kept) > 1:
            kept, step = kept[::2], 2 * step
            characters = sum(map(len, kept))
    if not characters:
        raise ResourceError("no text to train Punkt on")
    trainer = PunktTrainer()
    trainer.train("\n\n".join(kept))
    return trainer.get_params(), {"source": "trained", "documents": len(kept), "characters": characters}


def _punkt_tab() -> PunktParameters:
    name = "tokenizers/punkt_tab/english/"
    try:
        return load_punkt_params(nltk.data.find(name))
    except LookupError:
        pass
    with tempfile.TemporaryDirectory() as downloads:
        try:
            nltk.download(
                "punkt_tab", download_dir=downloads, quiet=True, raise_on_error=True, print_error_to=io.StringIO()
            )
            return load_punkt_params(nltk.data.find(name, paths=[downloads]))
        except (ValueError, LookupError, OSError) as error:
            raise ResourceError(
                f"punkt_tab cannot be downloaded ({str(error).strip().splitlines()[0]}); run `python -m nltk.downloader "
                "punkt_tab` where there is a network, or name a dataset to train Punkt on as chunking.punkt"
            ) from None
