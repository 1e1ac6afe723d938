"""What a dry run of `revela train` wrote. It binds no later run, unless somebody has edited it."""

from __future__ import annotations

from pathlib import Path

from revela.files import atomic_write, sha256_file, sha256_json

RECORD = "planned.sha256"


def record(out: Path) -> None:
    """Notes the study in `out` as one that a dry run wrote."""
    with atomic_write(out / RECORD) as partial:
        partial.write_text(_hash(out), encoding="utf-8")


def is_only_planned(out: Path) -> bool:
    """Whether `out` holds a study as a dry run wrote it, and nothing else."""
    noted = out / RECORD
    if not noted.is_file() or set(out.iterdir()) != {noted, *_study(out)}:
        return False
    return noted.read_text(encoding="utf-8") == _hash(out)


def _study(out: Path) -> list[Path]:
    return sorted([out / "config.yaml", *out.glob("*.tsv")])


def _hash(out: Path) -> str:
    return sha256_json({path.name: sha256_file(path) for path in _study(out)})
