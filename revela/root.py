"""Where the project's own files are: Snakefile, workflow/, config/ and resources/."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
BACKBONES = "resources/backbones"


def root() -> Path:
    """The folder with the project's own files: the checkout, or the part of an installed package that holds them."""
    shipped = PACKAGE / "shipped"  # made by hatch_build.py
    return shipped if shipped.is_dir() else PACKAGE.parent


def own_backbone(model: str) -> str:
    """The place of a model; one of the project's own, such as tiny-1m, may be given by its name alone."""
    own = root() / BACKBONES / model
    return str(own) if "/" not in model and (own / "config.json").is_file() and not Path(model).exists() else model


@contextlib.contextmanager
def among_own_files() -> Iterator[None]:
    """Goes where the paths in the project's own configurations begin, and comes back.

    That is the checkout. An installed package may be read-only, so a folder with links to its files stands in for it.
    """
    if root() == PACKAGE.parent:
        with contextlib.chdir(root()):
            yield
        return
    with tempfile.TemporaryDirectory(prefix="revela-") as scratch:
        for path in root().iterdir():
            Path(scratch, path.name).symlink_to(path)
        with contextlib.chdir(scratch):
            yield
