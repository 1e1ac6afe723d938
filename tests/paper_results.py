"""Results as after the paper's whole study, made up: score files of given means, and cells with logs and manifests."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

from revela.files import write_json
from revela.paper.values import read_printed
from revela.provenance import write_manifest
from revela.study.cell import Cell
from revela.study.layout import Layout
from revela.study.study import Study, load
from revela.study.tables import table_spec

ROOT = Path(__file__).parents[1]
STEPS = (0, 100, 200)


@contextlib.contextmanager
def printed_study(results: Path) -> Iterator[Study]:
    """The paper's configuration with results whose values are the printed ones, and so nearly are their means."""
    with contextlib.chdir(ROOT):  # the printed values are read from there
        study = with_results(load("config/config.yaml"), results)

        def value(table, label, row):
            printed = study.config.tables[table].printed
            return list(read_printed(printed)[label].values())[row] if printed else 40 + row

        write_results(study, value, queries=20)
        yield study


def with_results(study: Study, results: Path) -> Study:
    """A study whose results are in another folder."""
    return dataclasses.replace(study, config=study.config.model_copy(update={"results": str(results)}))


def write_scores(path: str | Path, means: dict[str, float], metric: str = "nDCG@10", queries: int = 40) -> Path:
    """A score file; means: task -> mean in [0, 1]."""
    found = {}
    for task, mean in means.items():
        ones = math.floor(mean * queries)
        values = [1.0] * ones + [mean * queries - ones] + [0.0] * (queries - ones - 1)
        part = {"metrics": {metric: mean}, "per_query": {metric: values[:queries]}}
        found[task] = {"label": task, "metrics": {metric: mean}, "parts": {task: part}}
    provenance = {"commit": "a1b2c3", "runs": {task: f"run-of-{task}" for task in means}}
    write_json(path, {"tasks": found, "provenance": provenance})
    return Path(path)


def write_results(study: Study, value, queries: int = 40) -> None:
    """Everything that tables, comparisons, lineage and figures read.

    value: (table, label, row number) -> percent. If tables share a system, the first one's value counts.
    """
    layout = study.layout
    for name, table in study.config.tables.items():
        if table.means_of:
            continue
        spec = table_spec(study, name)
        [benchmark] = spec.benchmarks.values()
        for column in spec.columns:
            path = Path(layout.scores(column.system.name, benchmark.name))
            if column.copied or path.exists():
                continue
            means = {task: value(name, column.label, row) / 100 for row, task in enumerate(benchmark.tasks)}
            write_scores(path, means, benchmark.metric, queries)
        for row in benchmark.tasks.values():
            write_resource(layout.dataset(row.dataset))
    for run in study.runs:
        write_cell(layout, run.cell)
        for dataset in study.corpus_datasets(run.corpus):
            write_resource(layout.dataset(dataset))
    for model in study.models:
        write_resource(layout.model(model))
    write_timing(layout.timing(study.config.figures["timing"].cell))


def write_resource(folder: str) -> None:
    """A resource from the hub."""
    folder = Path(folder)
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / "content").write_text(folder.name)
        write_manifest(folder, hub={f"owner/{folder.name}": "f" * 40}, revision="main")


def write_cell(layout: Layout, cell: Cell, batch: int = 16) -> None:
    """A trained cell: its log, its settings and, for Revela, the watched batch."""
    retriever = Path(layout.cell_retriever(cell))
    retriever.mkdir(parents=True)
    (retriever / "adapter_model.safetensors").write_text(cell.path)
    similarity = cell.variant if cell.variant in ("uniform", "shuffled") else "learned"
    write_json(layout.cell_settings(cell), {"seed": 42, "similarity": similarity, "batches_per_step": 32})
    size = {"smollm2-135m": 0.3, "qwen2.5-0.5b": 0.6, "llama-3.2-1b": 1.0, "llama-3.2-3b": 2.4}.get(cell.retriever, 5)
    hours = 176 * size * (0.6 if cell.method == "replug" else 0.2 if cell.method == "contriever" else 1)
    hours *= cell.batch_size / 16
    steps = 40
    log = [
        {
            "step": step,
            "loss": 2.6 + 1.2 * math.exp(-step / 8) + 0.1 * size + 0.08 * math.sin(1.7 * step),
            "elapsed": 900 * hours * step / steps,
            "gpu_hours": hours * step / steps,
            "same_document": 0.5 - 0.3 * math.exp(-step / 10) if similarity == "learned" else 0.2,
            "same_document_uniform": 0.2,
        }
        for step in range(1, steps + 1)
    ]
    Path(layout.cell_log(cell)).write_text("".join(json.dumps(line) + "\n" for line in log))
    if cell.method == "revela":
        watched = [watched_batch(step, batch) for step in STEPS]
        Path(layout.cell_dynamics(cell)).write_text("".join(json.dumps(line) + "\n" for line in watched))
    write_manifest(
        layout.cell(cell),
        cell=cell.path,
        inputs={"data": "d" * 64},
        settings_sha256="c" * 64,
        retriever_sha256="e" * 64,
        processes=4,
        device="NVIDIA A100-SXM4-80GB",
        steps=steps,
        commits=["a1b2c3"],
        wall_seconds=900 * hours,
    )


def write_timing(path: str) -> None:
    """Times as if REPLUG's grew with the square of the batch size, and Revela's with the batch size."""
    sizes, powers = (2, 4, 8, 16), {"REPLUG": 2, "Revela": 1}
    points = [{"method": m, "batch_size": b, "seconds": b**power} for b in sizes for m, power in powers.items()]
    write_json(path, {"device": "A100", "points": points})


def watched_batch(step: int, size: int) -> dict:
    """Alternating chunks of two documents, which find each other as the steps go on."""
    document = [f"d{chunk % 2}" for chunk in range(size)]
    sharpness = 4 * step / 200
    similarity = []
    for i in range(size):
        weights = [
            0.0 if i == j else math.exp(sharpness * (document[i] == document[j]) + math.sin(3 * i + 5 * j))
            for j in range(size)
        ]
        similarity.append([round(weight / sum(weights), 6) for weight in weights])
    loss = [3.2 - 0.4 * step / 200 + 0.3 * math.sin(chunk) for chunk in range(size)]
    return {"step": step, "document": document, "similarity": similarity, "loss": loss}
