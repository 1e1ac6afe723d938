"""Where each value of a table came from: the score file, the run, the model, its data, its settings, its cost.

`tableN.lineage.json` holds, for each column and row, what is needed to find the value again or to doubt it. It is
read from what the jobs left behind, never from the configuration of today.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from revela.files import atomic_write, sha256_file
from revela.paper import PaperError
from revela.paper.values import columns, metric, rows, score_file, tasks
from revela.provenance import git_commit, read_manifest
from revela.study.study import LM_EVAL, Cell, ConfigError, Study
from revela.training.usage import total


def lineage(study: Study, table: str) -> dict[str, Any]:
    """The lineage of a table.

    Returns:
        ``table``, ``commit`` (of the code that made the table), ``columns``: label -> ``system``, ``model`` (what
        `model_lineage` says; none for BM25 and copied columns) and ``cells``: row -> ``value`` in percent and

        - copied: ``copied_from``, the CSV of printed values;
        - measured: ``score_file`` and its ``score_sha256``, ``run_id`` (the run's SHA-256; none for lm-eval),
          ``scored_at`` (commit), ``dataset`` and its ``data_revision``;
        - a mean: ``mean_of``, the rows or tables that it is the mean of.

    Raises:
        PaperError: A score file or a manifest that cannot be read.
    """
    spec, names = study.config.tables[table], rows(study, table)
    entries = {}
    for column in columns(study, table):
        model = None if column.copied else model_lineage(study, column.system)
        if column.copied:
            cells = [{"copied_from": spec.printed} for _ in names]
        elif spec.means_of:
            cells = [{"mean_of": part} for part in spec.means_of.values()] + [{"mean_of": names[:-1]}]
        else:
            cells = [*_measured(study, column.system, spec.benchmark), {"mean_of": names[:-1]}]
        cells = {name: {"value": value, **cell} for name, value, cell in zip(names, column.values, cells, strict=True)}
        entries[column.label] = {"system": column.system, "model": model, "cells": cells}
    return {"table": table, "commit": git_commit(), "columns": entries}


def _measured(study: Study, system: str, benchmark: str) -> list[dict[str, Any]]:
    """What stands behind each task's value of one system."""
    path = score_file(study, system, benchmark)
    scores = _read_json(path)
    provenance, sha256 = scores.get("provenance", {}), sha256_file(path)
    if benchmark == LM_EVAL:
        datasets = {task.task: task.dataset for task in study.config.lm_evaluation.tasks.values()}
    else:
        datasets = {task.task: task.dataset for task in study.benchmark_tasks(benchmark)}
    return [
        {
            "metric": metric(benchmark),
            "score_file": str(path),
            "score_sha256": sha256,
            "run_id": provenance.get("runs", {}).get(task),
            "scored_at": provenance.get("commit"),
            "dataset": datasets[task],
            "data_revision": revision(study, "datasets", datasets[task]),
        }
        for task in tasks(study, benchmark)
    ]


def model_lineage(study: Study, system: str) -> dict[str, Any] | None:
    """The model behind a system; None for one that has none.

    Returns:
        Off the shelf: ``folder`` and ``model_revision``. Trained here: ``folder``, ``adapter_sha256`` (the retriever's
        files), ``lm_sha256``, ``config_sha256`` (of all settings), ``seed``, ``commits`` (that it was trained at),
        ``data_sha256``, ``data_revisions`` (of the corpus's datasets), ``steps``, ``processes``, ``device``,
        ``gpu_hours``, ``hours``, ``usage`` (of all attempts together, as `revela.training.usage.total` says).

    Raises:
        PaperError: A manifest that cannot be read.
    """
    try:
        cell = study.check_cell(Cell.parse(system))
    except ConfigError:
        name = system.removeprefix("untrained/")
        if study.models[name].kind == "bm25":
            return None
        folder = Path(study.config.results, "resources/models", name)
        return {"folder": str(folder), "model_revision": revision(study, "models", name)}
    folder = Path(study.config.results, "models", system)
    manifest, settings = read_manifest(folder), _read_json(folder / "settings.json")
    last = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    models = {cell.retriever, cell.lm} - {"none"}
    return {
        "folder": str(folder),
        "adapter_sha256": manifest["retriever_sha256"],
        "lm_sha256": {name: sha for name, sha in manifest["files"].items() if name.endswith("safetensors")}.get(
            "lm/adapter_model.safetensors", manifest["files"].get("lm/model.safetensors")
        ),
        "config_sha256": manifest["settings_sha256"],
        "seed": settings["seed"],
        "commits": manifest["commits"],
        "data_sha256": manifest["inputs"]["data"],
        "data_revisions": {name: revision(study, "datasets", name) for name in study.corpus_datasets(cell.corpus)},
        "model_revisions": {name: revision(study, "models", name) for name in sorted(models)},
        "steps": manifest["steps"],
        "processes": manifest["processes"],
        "device": manifest["device"],
        "gpu_hours": last["gpu_hours"],
        "hours": manifest["wall_seconds"] / 3600,
        "usage": total(Path(study.config.results, "usage", system)),
    }


def revision(study: Study, kind: str, name: str) -> Any:
    """The commits of a resource's hub repositories, or the hash of its files where it is from no hub.

    kind: datasets, models.
    """
    manifest = read_manifest(Path(study.config.results, "resources", kind, name))
    return manifest.get("hub") or {"sha256": manifest["sha256"]}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise PaperError(f"{path}: cannot be read ({error})") from None


def write_lineage(study: Study, table: str, output: str | Path) -> None:
    """Write the lineage of a table as JSON."""
    with atomic_write(output) as partial:
        partial.write_text(json.dumps(lineage(study, table), indent=1) + "\n", encoding="utf-8")
