"""The lineage of a table: for each value the score file, the run, the model, its data, its settings and its cost.

`tableN.lineage.json` holds, for each column and row, what one needs to find the value again or to doubt it. It is read
from what the jobs left behind, not from today's configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revela.files import sha256_file, write_json
from revela.paper import PaperError
from revela.paper.logs import read_log
from revela.paper.values import columns, rows, tasks_of_rows
from revela.plan.usage import total
from revela.provenance import git_commit, read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from revela.study.cell import Cell
    from revela.study.layout import Layout
    from revela.study.system import System
    from revela.study.tables import BenchmarkSpec, LineageSpec


def lineage(spec: LineageSpec, layout: Layout) -> dict[str, Any]:
    """The lineage of a table.

    Returns:
        ``table``, ``commit`` (of the code that made the table), ``columns``: label -> ``system``, ``model`` (as
        `model_lineage` describes it; None for BM25 and for copied columns), ``grouped_by`` (of a cell on regrouped batches:
        system -> its model) and ``cells``: row -> ``value`` in percent and

        - for a copied value: ``copied_from``, the CSV of printed values;
        - for a measured value: ``score_file`` and its ``score_sha256``, ``run_id`` (the run's SHA-256; None for lm-eval),
          ``scored_at`` (commit), ``dataset`` and its ``data_revision``;
        - for a mean: ``mean_of``, the rows or the table whose mean it is.

    Raises:
        PaperError: A score file, a log or the settings of a cell cannot be read.
        ProvenanceError: A manifest cannot be read.
    """
    table, names = spec.table.table, rows(spec.table)
    entries = {}
    for shown, column in zip(spec.table.columns, columns(spec.table, layout), strict=True):
        if column.copied:
            cells = [{"copied_from": table.printed} for _ in names]
        elif table.means_of:
            parts = [table.means_of[head] for head in tasks_of_rows(spec.table).values()]
            cells = [{"mean_of": part} for part in parts]
        else:
            [benchmark] = spec.table.benchmarks.values()
            found = _measured(shown.system.name, benchmark, layout)
            cells = [found[task] for task in tasks_of_rows(spec.table).values()]
        if len(cells) < len(names):
            cells.append({"mean_of": names[:-1]})
        entries[column.label] = {
            "system": shown.system.name,
            "model": None if column.copied else model_lineage(shown.system, spec.corpora, layout),
            **_rounds(shown.system, spec, layout),
            "cells": {
                name: {"value": value, **cell} for name, value, cell in zip(names, column.values, cells, strict=True)
            },
        }
    return {"table": spec.table.name, "commit": git_commit(), "columns": entries}


def _rounds(system: System, spec: LineageSpec, layout: Layout) -> dict[str, Any]:
    """`grouped_by`, for a cell on regrouped batches: name -> the model of each system that grouped them, the latest first."""
    found = spec.rounds.get(system.cell.corpus) if system.kind == "trained" else None
    return {"grouped_by": {one.name: model_lineage(one, spec.corpora, layout) for one in found}} if found else {}


def _measured(system: str, benchmark: BenchmarkSpec, layout: Layout) -> dict[str, dict[str, Any]]:
    """task -> what stands behind the value of one system."""
    path = layout.scores(system, benchmark.name)
    provenance, sha256 = _read_json(path).get("provenance", {}), sha256_file(path)
    return {
        task: {
            "metric": benchmark.metric,
            "score_file": path,
            "score_sha256": sha256,
            "run_id": provenance.get("runs", {}).get(task),
            "scored_at": provenance.get("commit"),
            "dataset": row.dataset,
            "data_revision": revision(layout.dataset(row.dataset)),
        }
        for task, row in benchmark.tasks.items()
    }


def model_lineage(system: System, corpora: Mapping[str, Sequence[str]], layout: Layout) -> dict[str, Any] | None:
    """The model behind a system; None for BM25, which has none.

    Args:
        system: A system that is run here.
        corpora: corpus -> its datasets, for the corpora of trained cells.
        layout: Where the models are.

    Returns:
        Of a model that was not trained here: ``folder`` and ``model_revision``, and of adapters ``base`` and
        ``base_revision``. Of a trained cell: ``folder``,
        ``adapter_sha256`` (the retriever's files), ``lm_sha256``, ``config_sha256`` (of all settings), ``seed``,
        ``commits`` (at which it was trained), ``data_sha256``, ``data_revisions`` (of the corpus's datasets),
        ``model_revisions``, ``steps``, ``processes``, ``device``, ``gpu_hours``, ``hours``, ``usage`` (of all attempts
        together, see `revela.plan.usage.total`); and ``start``, the ``cell`` with whose weights it began and its ``sha256``,
        if it began with those of a cell.

    Raises:
        PaperError: The log or the settings of a cell cannot be read.
        ProvenanceError: A manifest cannot be read.
    """
    if system.kind == "trained":
        return _cell_lineage(system.cell, corpora[system.cell.corpus], layout)
    if not system.models:
        return None
    folder, *base = map(layout.model, system.models)
    below = {"base": base[0], "base_revision": revision(base[0])} if base else {}  # of adapters
    return {"folder": folder, "model_revision": revision(folder), **below}


def _cell_lineage(cell: Cell, datasets: Sequence[str], layout: Layout) -> dict[str, Any]:
    folder = layout.cell(cell)
    manifest = read_manifest(folder)
    files = manifest["files"]
    last = read_log(layout.cell_log(cell))[-1]
    begun = {"start": {"cell": manifest["start"], "sha256": manifest["inputs"]["start"]}} if "start" in manifest else {}
    return {
        "folder": folder,
        "adapter_sha256": manifest["retriever_sha256"],
        "lm_sha256": files.get("lm/adapter_model.safetensors", files.get("lm/model.safetensors")),
        "config_sha256": manifest["settings_sha256"],
        "seed": _read_json(layout.cell_settings(cell))["seed"],
        "commits": manifest["commits"],
        "data_sha256": manifest["inputs"]["data"],
        "data_revisions": {name: revision(layout.dataset(name)) for name in datasets},
        "model_revisions": {name: revision(layout.model(name)) for name in sorted(cell.models)},
        **begun,
        "steps": manifest["steps"],
        "processes": manifest["processes"],
        "device": manifest["device"],
        "gpu_hours": last["gpu_hours"],
        "hours": manifest["wall_seconds"] / 3600,
        "usage": total(layout.usage(cell)),
    }


def revision(folder: str | Path) -> dict[str, Any]:
    """The commits of the hub repositories that a resource came from, or the hash of its files if it came from none."""
    manifest = read_manifest(folder)
    return manifest.get("hub") or {"sha256": manifest["sha256"]}


def _read_json(path: str | Path) -> dict[str, Any]:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise PaperError(f"{path}: cannot be read ({error})") from None


def write_lineage(spec: LineageSpec, layout: Layout, output: str | Path) -> None:
    """Write the lineage of a table as JSON."""
    write_json(output, lineage(spec, layout))
