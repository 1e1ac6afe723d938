"""What a dry run of `revela train` wrote. It binds no later run, unless somebody has edited it."""

from __future__ import annotations

from pathlib import Path

from revela.files import atomic_write, sha256_file, sha256_json

FILES = ("benchmarks.tsv", "config.yaml", "models.tsv", "runs.tsv")  # of a study
RECORD = "planned.sha256"


def record(out: Path) -> None:
    """Notes the study in `out` as one that a dry run wrote."""
    with atomic_write(out / RECORD) as partial:
        partial.write_text(_hash(out), encoding="utf-8")


def is_only_planned(out: Path) -> bool:
    """Whether `out` holds a study as a dry run wrote it, and nothing else."""
    if not (out / RECORD).is_file() or {path.name for path in out.iterdir()} != {*FILES, RECORD}:
        return False
    return (out / RECORD).read_text(encoding="utf-8") == _hash(out)


def _hash(out: Path) -> str:
    return sha256_json([sha256_file(out / name) for name in FILES])
