"""Where a model comes from, or what stands in the place of one, as the column `source` of models.tsv says it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from revela.study.base import ConfigError

API_PROVIDERS = ("openai", "cohere", "voyage")


@dataclass(frozen=True)
class HubSource:
    """A repository of the Hugging Face hub, at a revision: `hub:owner/name[@revision]`."""

    repository: str
    revision: str = "main"


@dataclass(frozen=True)
class PathSource:
    """A local folder: `path:folder`."""

    path: str


@dataclass(frozen=True)
class PackageSource:
    """Files of a distribution on the package index: `package:key of packages`."""

    package: str


@dataclass(frozen=True)
class ApiSource:
    """A model behind an API: `provider:name`."""

    provider: str
    name: str


@dataclass(frozen=True)
class Bm25Source:
    """BM25's settings: `k1=1.5;b=0.75`, which is the default, and `;weigh-queries` after it."""

    k1: float = 1.5
    b: float = 0.75
    weigh_queries: bool = False


Source = HubSource | PathSource | PackageSource | ApiSource | Bm25Source


def parse_source(kind: str, source: str) -> Source:
    """The source of a row of models.tsv of some kind: backbone, encoder, api or bm25.

    Raises ConfigError with the forms that are valid for that kind.

    >>> parse_source("backbone", "hub:Qwen/Qwen2.5-0.5B@main")
    HubSource(repository='Qwen/Qwen2.5-0.5B', revision='main')
    """
    if kind == "bm25":
        found = re.fullmatch(r"k1=([\d.]+);b=([\d.]+)(;weigh-queries)?", source or "k1=1.5;b=0.75")
        if found:
            return Bm25Source(float(found[1]), float(found[2]), weigh_queries=bool(found[3]))
        raise ConfigError(f"source {source!r}: valid for BM25: k1=0.9;b=0.4, and ;weigh-queries after it")
    scheme, _, place = source.partition(":")
    if kind == "api":
        if scheme in API_PROVIDERS and place:
            return ApiSource(scheme, place)
        raise ConfigError(f"source {source!r}: valid for an API: {', '.join(f'{p}:name' for p in API_PROVIDERS)}")
    if scheme == "hub" and place:
        repository, _, revision = place.partition("@")
        return HubSource(repository, revision or "main")
    if scheme == "path" and place:
        return PathSource(place)
    if scheme == "package" and place:
        return PackageSource(place)
    raise ConfigError(f"source {source!r}: valid: hub:owner/name[@revision], path:folder, package:key of `packages`")
