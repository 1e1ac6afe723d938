"""Which files make a split of a benchmark's folder: what `datasets` takes from a folder of the hub.

Rows are not read by `datasets`. It copies each table into its cache as Arrow (FEVER's corpus is 3 GB), or streams it
without saying in which file and line a bad row stands. So it decides which files, and `revela.text.rows` reads them.

Files are found in two ways:

- By the card, if README.md lists `configs`: functions of `datasets` resolve the patterns of the one config that is
  needed. `load_dataset_builder` would first infer a format from the card's first config, which may not be here.
- By name, if there is no such card. The names are those of `datasets` (`data/{split}-00000-of-00001*.*`, with or
  without a hash) and of beir's loader (`corpus.jsonl`, `qrels/test.tsv`). This is done here, since `datasets` puts all
  files of BEIR's layout into one split, and takes a second to import, which each of some thousand jobs would pay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from revela.evaluation import EvaluationError

_TABLE = r"\.(parquet|jsonl|jsonl\.gz|tsv)"
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")


class BenchmarkError(EvaluationError):
    """A benchmark folder that cannot be read. The message names the file, and the line where there is one."""


def split_files(folder: Path, split: str, configs: Sequence[str] = (), place: str = "") -> list[Path]:
    """The files of a split, in order; none if there is no such split.

    Args:
        folder: The folder of a repository, with its card if it has one.
        split: The split's name.
        configs: The card's config that holds the split: the first of these that the card has. Empty: its default one. A
            config that is named as the split may have its files in a split of another name, if it is the only one.
        place: The subfolder in which files are found by name.

    Raises:
        BenchmarkError: Shards are missing, or the card is broken, or names files that are not there.
    """
    found = _by_card(folder, split, configs) or _by_name(folder / place, split)
    shards: dict[tuple[Path, str], dict[str, Path]] = {}
    for path in found:
        if part := _SHARD.match(path.name):
            others = shards.setdefault((path.parent, part[1]), {})
            if part[2] in others:
                raise BenchmarkError(f"{path}: shard {part[2]} stands twice, as {others[part[2]].name} too")
            others[part[2]] = path
    for numbered in shards.values():
        path = next(iter(numbered.values()))
        number = int(_SHARD.match(path.name)[3])
        if sorted(map(int, numbered)) != list(range(number)):
            raise BenchmarkError(f"{path}: {len(numbered)} of {number} shards are there")
    return found


def needed_files(folder: Path, split: str, configs: Sequence[str] = (), place: str = "") -> list[Path]:
    """As `split_files`; BenchmarkError if there are none."""
    if not (found := split_files(folder, split, configs, place)):
        where = folder / place
        raise BenchmarkError(f"{where}: no {split}.jsonl, {split}.tsv, {split}-*.parquet or folder {split}/")
    return found


def _by_name(folder: Path, split: str) -> list[Path]:
    """`{split}.*` and `{split}-00000-of-00001*.*` in the folder or in its `data/`, or the tables below `{split}/`."""
    named = re.compile(rf"{re.escape(split)}(-\d{{5}}-of-\d{{5}}.*)?{_TABLE}")
    for place, files, name in (
        (folder, "*", named),
        (folder / "data", "*", named),
        (folder / split, "**/*", re.compile(rf"[^.].*{_TABLE}")),
    ):
        found = sorted(path for path in place.glob(files) if name.fullmatch(path.name))
        if found:
            return found
    return []


def _by_card(folder: Path, split: str, configs: Sequence[str]) -> list[Path]:
    """The files that the card gives for a split; none if it lists no configs, or not this split."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    if not re.match(r"---\s*\n(.*\n)?configs:", text[: text.find("\n---", 3) + 1], re.DOTALL):
        return []
    import yaml  # these two here, because most folders need neither
    from datasets.data_files import get_data_patterns, resolve_pattern, sanitize_patterns
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    try:
        listed = MetadataConfigs.from_dataset_card_data(DatasetCard(text, ignore_metadata_errors=False).data)
        name = next(filter(listed.__contains__, configs), None) if configs else listed.get_default_config_name()
        if name is None:
            return []
        base = folder.resolve() / (listed[name].get("data_dir") or "")
        given = listed[name].get("data_files")
        patterns = get_data_patterns(str(base)) if given is None else sanitize_patterns(given)
    except FileNotFoundError:  # of get_data_patterns, in a folder without data
        return []
    except (ValueError, yaml.YAMLError) as error:
        raise BenchmarkError(f"{card}: broken metadata ({' '.join(str(error).split())[:200]})") from None
    if split not in patterns and split in configs and len(patterns) == 1:
        [split] = patterns
    found: dict[Path, None] = {}
    for pattern in patterns.get(split, []):
        try:
            paths = resolve_pattern(pattern, str(base))
        except OSError:
            raise BenchmarkError(
                f"{card}: names {pattern} for split {split!r} of config {name!r}, and no such file is here; "
                "fetch it, too (`patterns` of the dataset)"
            ) from None
        found |= dict.fromkeys(Path(path) for path in sorted(paths) if re.search(f"{_TABLE}$", path))
    if not found and split in patterns:
        raise BenchmarkError(f"{card}: split {split!r} of config {name!r} has no file .parquet, .jsonl[.gz] or .tsv")
    return list(found)
