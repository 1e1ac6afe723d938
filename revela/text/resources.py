"""Resources: datasets, models and Punkt's parameters, each a folder with a manifest.

A resource comes from the Hugging Face hub at a revision whose commit is recorded, from a local folder, from a package
of the index (`revela.text.packages`), or from packages that are installed on this machine. Its `manifest.json` says which, and holds the SHA-256 of every file
(`provenance.read_manifest(folder, verify=True)` hashes again). Code downstream reads the folder and cannot tell where it
came from. A folder appears only when it is whole: downloads collect in the hub's own cache, which resumes them.

Beside a folder from the hub lies `{folder}.commits.json`: the commit of each branch that was fetched into it. A folder
that is made again, because a pattern was added or because it was deleted, is of the same commit. Whoever wants the newest
deletes that file as well.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError, XetDownloadError
from huggingface_hub.utils import filter_repo_objects

from revela.files import atomic_folder, write_json
from revela.provenance import MANIFEST, read_manifest, write_manifest
from revela.study.source import HubSource, PackageSource, PathSource
from revela.text import embedded, held_out, hub, recipes, weights
from revela.text.gguf import dequantise
from revela.text.own_files import Matched, ResourceError, matching, visible

__all__ = ["Matched", "ResourceError", "build_punkt", "fetch_dataset", "fetch_model", "matching"]

if TYPE_CHECKING:
    from revela.study.corpora import Dataset
    from revela.study.specification import DatasetSpec


def fetch_dataset(
    spec: DatasetSpec, folder: str | Path, package: str | Path | None = None, text: str | Path | None = None
) -> dict:
    """Make a dataset's folder and return its manifest.

    `hub`: the files of the repositories that match `patterns`. Several repositories become subfolders, named without
    the owner. `path`: copies of the files of a local folder except hidden ones; if the folder has a manifest, it is
    verified first. `files`: the files that `matching` finds
    outside the folder of results, likewise. `held_out_of`: a benchmark made of held-out documents
    (`revela.text.held_out`). `installed`: text or a benchmark made from installed packages
    (`revela.text.embedded`). `package`: the files of a package's folder, or what a recipe makes of them
    (`revela.text.recipes`). Where `sha256` is given, text made here must have this hash.

    Args:
        spec: The dataset, and the folder of results.
        folder: The folder to make.
        package: The folder of the package's files, for a dataset of a package.
        text: The folder of the dataset whose documents are held out, for a benchmark of them.

    Raises:
        ResourceError: The dataset cannot be had. The line says what to do.
    """
    folder, dataset = Path(folder), spec.dataset
    with atomic_folder(folder) as partial:
        if dataset.hub:
            repositories = [dataset.hub] if isinstance(dataset.hub, str) else dataset.hub
            commits = {}
            for name in repositories:
                target = partial if isinstance(dataset.hub, str) else partial / name.rpartition("/")[2]
                wanted = dataset.patterns or None
                commits[name] = _pinned_snapshot(folder, "dataset", name, dataset.revision, wanted, None, target)
            facts = {"hub": commits, "revision": dataset.revision, "patterns": dataset.patterns}
        elif dataset.path:
            facts = {"path": dataset.path, "origin": _local(Path(dataset.path), folder, partial, "*", None, _copy)}
        elif dataset.files:
            matched = matching(dataset.files, spec.results)
            _copy(matched.folder, matched.names, partial)
            facts = {"pattern": dataset.files, "place": str(matched.folder), "count": len(matched.names)}
            facts["passed_over"] = matched.passed_over
        elif dataset.held_out_of:
            limits = {"queries": dataset.queries, "documents": dataset.documents}
            made = held_out.write_benchmark(spec.source, Path(text), partial, **limits)
            facts = {"held_out_of": dataset.held_out_of, "text_sha256": made.pop("sha256"), **made}
        elif dataset.package:
            facts = _of_package(dataset, Path(package), partial)
        else:
            facts = {"installed": dataset.installed, "content": dataset.content, **_installed(dataset, partial)}
        manifest = write_manifest(partial, **facts)
    return _pin(folder, manifest)


def fetch_model(
    name: str, source: HubSource | PathSource | PackageSource, folder: str | Path, package: str | Path | None = None
) -> dict:
    """Make a model's folder in the Hugging Face layout and return its manifest.

    Only safetensors, tokenizer and configuration are taken: no pickles, no code. Where a model has pickles alone, its
    tensors are written as safetensors (`revela.text.weights`), and the manifest has the SHA-256 of each pickle as
    `converted_from`. A local folder with a manifest is verified against it. Of a package's files, one GGUF file is
    dequantised (`revela.text.gguf`); else the folder of its config.json is taken, with the licences of the package.

    Args:
        name: The model's name, for errors.
        source: A repository of the hub at a revision, a local folder, or a package.
        folder: The folder to make.
        package: The folder of the package's files, for a model of a package.

    Raises:
        ResourceError: The model cannot be had, or its weights are neither safetensors nor pickles that hold tensors and
            nothing else. The line says what the place lacks, or which page to open.
    """
    folder = Path(folder)
    with atomic_folder(folder) as partial:
        if isinstance(source, PackageSource):
            facts = _model_of_package(name, Path(package), partial)
        elif isinstance(source, HubSource):
            place = source.repository
            commit = _pinned_snapshot(
                folder, "model", place, source.revision, hub.MODEL_FILES, hub.NOT_MODEL_FILES, partial
            )
            facts = {"hub": {place: commit}, "revision": source.revision}
        else:
            place = source.path
            origin = _local(Path(place), folder, partial, hub.MODEL_FILES, hub.NOT_MODEL_FILES, _place)
            facts = {"path": place, "origin": origin}
        if not (isinstance(source, PackageSource) or any(partial.glob("*.safetensors"))):
            facts["converted_from"] = _converted(name, source, facts, partial)
        manifest = write_manifest(partial, **facts)
    return _pin(folder, manifest)


def _converted(name: str, source: HubSource | PathSource, facts: dict, folder: Path) -> dict[str, str]:
    """Write the weights of a model's pickles as safetensors into its folder; pickle -> its SHA-256."""
    try:
        if isinstance(source, PathSource):
            return weights.convert(source.path, folder)
        with tempfile.TemporaryDirectory() as scratch:  # holds copies if the cache is on another file system
            commit = facts["hub"][source.repository]
            _snapshot("model", source.repository, commit, weights.PICKLES, None, Path(scratch), needed=False)
            return weights.convert(scratch, folder)
    except weights.WeightsError as error:
        place = source.path if isinstance(source, PathSource) else source.repository
        raise ResourceError(
            f"model {name}: {place} has no weights as safetensors, and pickles are not loaded; they could not be "
            f"converted ({error}); for a hub model name a revision that has them, for example hub:owner/name@refs/pr/1"
        ) from None


def build_punkt(folder: str | Path, texts: Iterable[str] | Path | None = None) -> dict:
    """Make the folder of Punkt's parameters and return its manifest.

    They are trained on texts, those of a folder with the files of `punkt_tab`, or, for None, NLTK's own.
    `punkt.write_parameters` says how, and which errors it raises.
    """
    from revela.text import punkt  # here, for nltk takes longer to import than all else together

    with atomic_folder(folder) as partial:
        return write_manifest(partial, **punkt.write_parameters(texts, partial))


def _pinned_snapshot(folder: Path, kind: str, name: str, revision: str, *files: Any) -> str:
    """As `_snapshot`, of the commit that the folder was made of before, if its revision was the same."""
    record, pinned = hub.commits_file(folder), hub.pinned(folder, name, revision)
    try:
        return _snapshot(kind, name, pinned or revision, *files)
    except ResourceError as error:
        if pinned is None:
            raise
        raise ResourceError(
            f"{error} (of this commit it was made before, by {record}: delete that to change)"
        ) from None


def _pin(folder: Path, manifest: dict) -> dict:
    """Record the commits of a folder that is whole; returns its manifest."""
    revision = manifest.get("revision")
    found = {f"{name}@{revision}": commit for name, commit in manifest.get("hub", {}).items() if commit != revision}
    if found:
        record = hub.commits_file(folder)
        known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        write_json(record, known | found)
    return manifest


def _snapshot(
    kind: str,
    name: str,
    revision: str,
    patterns: list[str] | None,
    ignored: list[str] | None,
    target: Path,
    needed: bool = True,
) -> str:
    """Download a snapshot into the hub's cache, place its files in `target`, and return the commit.

    If they are needed, there must be one.
    """
    try:
        snapshot = snapshot_download(
            name, repo_type=kind, revision=revision, allow_patterns=patterns, ignore_patterns=ignored
        )
    except (HFValidationError, HTTPError, XetDownloadError, OSError) as error:
        raise ResourceError(hub.refusal(kind, name, revision, error)) from None
    snapshot = Path(snapshot)
    # The cache may hold more files of this commit than are wanted now.
    found = _files(snapshot, patterns, ignored)
    if needed and not found:
        raise ResourceError(
            f"{kind} {name} at {snapshot.name} has no file that matches {patterns}; see {hub.page(kind, name)}/tree/main"
        )
    _place(snapshot, found, target)
    return snapshot.name


def _local(
    source: Path, folder: Path, target: Path, patterns: str | list[str], ignored: list[str] | None, place: Callable
) -> dict | None:
    """Place a local folder's files in `target` by `place`. If it has a manifest, verify it and return its facts."""
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
    place(source, found, target)
    return origin


def _files(folder: Path, patterns: str | list[str] | None, ignored: list[str] | None) -> list[str]:
    """The relative names of the visible files of a folder that match the patterns, in order."""
    return list(filter_repo_objects(visible(folder), allow_patterns=patterns, ignore_patterns=ignored))


def _place(source: Path, names: list[str], target: Path) -> None:
    """Make hard links, so that nothing is stored twice, or copies where the file system has no links."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link((source / name).resolve(), target / name)
        except FileExistsError:
            raise
        except OSError:
            shutil.copyfile(source / name, target / name)


def _copy(source: Path, names: list[str], target: Path) -> None:
    """Make copies that the user's later edits do not reach, with the times of their files (`own_files.content`)."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
        times = (source / name).stat()
        os.utime(target / name, ns=(times.st_atime_ns, times.st_mtime_ns))


def _verified(package: Path) -> tuple[dict, dict[str, str]]:
    """The facts of a package's manifest, and the SHA-256 of each file."""
    manifest = read_manifest(package, verify=True)
    return {key: value for key, value in manifest.items() if key not in ("files", "sha256")}, manifest["files"]


def _of_package(dataset: Dataset, package: Path, folder: Path) -> dict:
    facts, files = _verified(package)
    if dataset.recipe == "copy":
        _place(package, list(files), folder)
        return facts
    made = recipes.write_recipe(dataset.recipe, package, folder, queries=dataset.queries, documents=dataset.documents)
    text_sha256 = made.pop("sha256")
    if dataset.sha256 and text_sha256 != dataset.sha256:
        raise ResourceError(
            f"{dataset.recipe} of {facts['package']}: sha256 is {text_sha256}, expected {dataset.sha256}: the files "
            "are as they should be, so the recipe has changed; correct `sha256` if that was meant"
        )
    return {**facts, "recipe": dataset.recipe, "text_sha256": text_sha256, **made}


def _model_of_package(name: str, package: Path, folder: Path) -> dict:
    facts, files = _verified(package)
    quantized, configs = (
        sorted(package.rglob("*.gguf")),
        sorted(package.rglob("config.json"), key=lambda p: len(p.parts)),
    )
    if len(quantized) == 1:
        dequantise(quantized[0], folder)
        facts["dequantised_from"] = {quantized[0].name: files[quantized[0].relative_to(package).as_posix()]}
    elif not quantized and configs and any(configs[0].parent.glob("*.safetensors")):
        _place(configs[0].parent, _files(configs[0].parent, hub.MODEL_FILES, hub.NOT_MODEL_FILES), folder)
    else:
        raise ResourceError(
            f"model {name}: {facts['package']} gives {len(quantized)} GGUF files and no folder with config.json and "
            "safetensors; valid: one GGUF file, or such a folder, in `files` of `packages`"
        )
    for path in sorted(package.rglob("*")):
        if path.name.startswith(("LICENSE", "NOTICE")) and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    return facts


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
