"""Preflight: every repository of the hub that a run needs is looked at before anything is downloaded or computed.

By metadata alone: whether it is there under its name, has the revision, is open to the user's account, and holds files
that are read here; and whether the disk holds what is still to be downloaded. It takes seconds, and all faults are found
at once. What the hub's cache holds needs no hub. The address and the token are those of HF_ENDPOINT and HF_TOKEN.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import huggingface_hub
import huggingface_hub.constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import filter_repo_objects

from revela.errors import first_line
from revela.study.source import HubSource
from revela.text import hub, weights
from revela.text.documents import NOT_DATA, PROSE, is_table

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo

    from revela.study.study import Study

GB = 1e9
TOKENIZERS = ({"tokenizer.json"}, {"vocab.txt"}, {"vocab.json", "merges.txt"}, {"spiece.model"}, {"tokenizer.model"})
TOKENIZERS += ({"sentencepiece.bpe.model"},)  # any of these sets

OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".ckpt", ".gguf")


@dataclass(frozen=True)
class Needed:
    """A repository that a resource is made of. `commit`: that of the folder as it was made before, if it was."""

    kind: str  # model or dataset, as the hub has them
    name: str
    revision: str
    commit: str | None
    patterns: tuple[str, ...] | None  # of the files that are taken; None: all


@dataclass(frozen=True)
class Seen:
    """What the hub says of a repository: bytes still to be downloaded, and what is wrong; None: nothing."""

    needed: Needed
    size: int = 0
    fault: str | None = None


def needed_of(study: Study, datasets: Iterable[str], models: Iterable[str]) -> list[Needed]:
    """The repositories of the hub behind datasets and models of a study, by their names."""
    found = []
    for name in datasets:
        dataset, folder = study.config.datasets[name], Path(study.layout.dataset(name))
        for repository in [dataset.hub] if isinstance(dataset.hub, str) else dataset.hub or []:
            commit = hub.pinned(folder, repository, dataset.revision)
            found.append(Needed("dataset", repository, dataset.revision, commit, tuple(dataset.patterns) or None))
    for name in models:
        source, folder = study.models[name].origin, Path(study.layout.model(name))
        if isinstance(source, HubSource):
            commit = hub.pinned(folder, source.repository, source.revision)
            found.append(Needed("model", source.repository, source.revision, commit, tuple(hub.MODEL_FILES)))
    return list(dict.fromkeys(found))


def look(needed: Sequence[Needed], results: str | Path) -> list[Seen]:
    """What the hub says of each repository, in order, and of the disk that `results` and the hub's cache are on.

    Where the hub does not answer at all, one fault says so, of the first repository that its cache lacks.
    """
    if not needed:
        return []
    api, unreached = huggingface_hub.HfApi(), []
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda one: _look(api, one, unreached), needed))
    if unreached:
        names = ", ".join(f"{one.kind} {one.name}" for one, _ in unreached)
        reason = first_line(unreached[0][1])
        fault = f"the hub at {api.endpoint} cannot be reached ({reason}), and its cache lacks {names}"
        first = unreached[0][0]
        seen = [Seen(one.needed, one.size, fault if one.needed == first else one.fault) for one in seen]
    return [*seen, *_disk(seen, results)]


def faults(seen: Iterable[Seen]) -> list[str]:
    """The faults, each a line."""
    return [one.fault for one in seen if one.fault]


def _look(api: huggingface_hub.HfApi, one: Needed, unreached: list[tuple[Needed, Exception]]) -> Seen:
    revision = one.commit or one.revision
    try:
        ask: Callable[..., Any] = api.model_info if one.kind == "model" else api.dataset_info
        info = ask(one.name, revision=revision, files_metadata=True)
        if info.gated:
            api.auth_check(one.name, repo_type=one.kind)
    except (HFValidationError, HTTPError, OSError) as error:
        if _is_in_cache(one, revision):
            return Seen(one)
        if isinstance(error, (HFValidationError, HfHubHTTPError)):
            return Seen(one, fault=hub.refusal(one.kind, one.name, revision, error))
        unreached.append((one, error))
        return Seen(one)
    if info.id.lower() != one.name.lower():  # the hub leads on to the new name until somebody takes the old one
        place = "models.tsv" if one.kind == "model" else "the configuration"
        return Seen(one, fault=f"{one.kind} {one.name} is {info.id} by now: write that in {place}; {_page(one)}")
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    taken, fault = (_model_files if one.kind == "model" else _dataset_files)(one, sizes, info)
    missing = [name for name in taken if not _cached(one, info.sha, name)]
    return Seen(one, sum(sizes[name] for name in missing), fault and f"{one.kind} {one.name}: {fault}; {_page(one)}")


def _model_files(one: Needed, sizes: dict[str, int], info: ModelInfo) -> tuple[list[str], str | None]:
    """The files that are taken of a model, and what it lacks."""
    taken = _matching(sizes, hub.MODEL_FILES, hub.NOT_MODEL_FILES)
    names = set(taken)
    adapter = "adapter_config.json" in names
    if not adapter and "config.json" not in names:
        return taken, "no config.json, so no model in the layout of transformers"
    if not adapter and not any(kind <= names for kind in TOKENIZERS):
        return taken, "no tokenizer in the layout of transformers"
    if any(name.endswith(".safetensors") and "/" not in name for name in names):
        return taken, None
    pickles = _matching(sizes, weights.PICKLES, None)
    others = sorted(name for name in sizes if name.endswith(OTHER_WEIGHTS))
    hint = "name a revision that has safetensors, often @refs/pr/1"
    if not pickles or (weights.SINGLE not in pickles and weights.INDEX not in pickles):
        found = f"its weights are {', '.join(others[:3])}" if others else "it has no weights"
        return taken, f"no safetensors and no {weights.SINGLE} that could be converted: {found}; {hint}"
    shards = [re.search(r"-(\d{5})-of-(\d{5})\.bin$", name) for name in pickles]
    numbers = {int(shard[2]): [] for shard in shards if shard}
    for shard in filter(None, shards):
        numbers[int(shard[2])].append(int(shard[1]))
    for count, there in numbers.items():
        if weights.SINGLE not in pickles and sorted(there) != list(range(1, count + 1)):
            return taken, f"{len(there)} of {count} pickled shards are there, which cannot be converted; {hint}"
    kind = (info.config or {}).get("model_type")
    if kind and not _is_known(kind):
        own = f"its model_type {kind!r} is none of transformers' own"
        return taken, f"pickles alone, which cannot be converted, for {own}; {hint}"
    return [*taken, *pickles], None


def _dataset_files(one: Needed, sizes: dict[str, int], _: DatasetInfo) -> tuple[list[str], str | None]:
    """The files that are taken of a dataset, and what it lacks."""
    taken = _matching(sizes, one.patterns, None)
    if not taken:
        return taken, f"no file matches {list(one.patterns or ['*'])}"
    data = [name for name in taken if PurePosixPath(name).name not in {*NOT_DATA, "README.md"}]
    if not any(is_table(Path(name)) or name.lower().endswith(tuple(PROSE)) for name in data):
        rest = ", ".join(data[:3]) or "its card alone"
        return taken, f"no file in a format that is read here (parquet, JSON, CSV, TSV, text), but {rest}"
    return taken, None


def _matching(sizes: dict[str, int], patterns: Sequence[str] | None, ignored: Sequence[str] | None) -> list[str]:
    return list(filter_repo_objects(sorted(sizes), allow_patterns=patterns and list(patterns), ignore_patterns=ignored))


def _is_known(model_type: str) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # where pickles are all there is

    return model_type in CONFIG_MAPPING_NAMES


def _is_in_cache(one: Needed, revision: str) -> bool:
    patterns = one.patterns and list(one.patterns)
    ignored = hub.NOT_MODEL_FILES if one.kind == "model" else None
    options = {"revision": revision, "allow_patterns": patterns, "ignore_patterns": ignored, "local_files_only": True}
    try:
        huggingface_hub.snapshot_download(one.name, repo_type=one.kind, **options)
    except (HFValidationError, OSError):
        return False
    return True


def _cached(one: Needed, commit: str, name: str) -> bool:
    cache = huggingface_hub.constants.HF_HUB_CACHE
    options = {"repo_type": one.kind, "revision": commit, "cache_dir": cache}
    return isinstance(huggingface_hub.try_to_load_from_cache(one.name, name, **options), str)


def _disk(seen: Sequence[Seen], results: str | Path) -> list[Seen]:
    """A fault where the disk of the hub's cache, or that of the results if it is another, is too small."""
    size = sum(one.size for one in seen)
    places = {}
    for place in (Path(huggingface_hub.constants.HF_HUB_CACHE), Path(results)):
        existing = next(parent for parent in [place.absolute(), *place.absolute().parents] if parent.exists())
        places.setdefault(existing.stat().st_dev, (place, shutil.disk_usage(existing).free))
    return [
        Seen(
            seen[0].needed, fault=f"{place}: {size / GB:.1f} GB are still to be downloaded, {free / GB:.1f} GB are free"
        )
        for place, free in places.values()
        if size > free
    ]


def _page(one: Needed) -> str:
    return f"see {hub.page(one.kind, one.name)}"
