"""How large things are that have not been fetched (`config/sizes.yaml`)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from revela.root import root
from revela.study.base import Strict, read_yaml, validate

SIZES = root() / "config/sizes.yaml"


class ModelSize(Strict):
    """What a model's cost follows from."""

    parameters: float = Field(gt=0, description="Billions.")
    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    intermediate: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    vocabulary: int = Field(ge=1)


class TaskSize(Strict):
    """What the cost of answering a task follows from."""

    documents: int = Field(ge=1)
    queries: int = Field(ge=1)
    document_chars: int = Field(ge=1, description="On average.")
    query_chars: int = Field(ge=1, description="On average.")


class Sizes(Strict):
    """How large things are that have not been fetched (`config/sizes.yaml`)."""

    models: dict[str, ModelSize] = Field({})
    datasets: dict[str, float] = Field({}, description="Name -> GB to fetch.")
    packages: dict[str, float] = Field({}, description="Name -> GB to fetch.")
    tasks: dict[str, TaskSize] = Field({}, description="benchmark/task -> size.")


def load_sizes(path: str | Path = SIZES) -> Sizes:
    """How large things are that have not been fetched. Raises ConfigError with one line."""
    return validate(Sizes, read_yaml(path), str(path))
