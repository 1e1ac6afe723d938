"""Results of the paper's scale without its work: score files of given means, and cells with logs and manifests."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

from revela.paper.values import metric, read_printed, score_file, tasks
from revela.provenance import write_manifest
from revela.study.study import Cell, Study, load

ROOT = Path(__file__).parents[1]
STEPS = (0, 100, 200)


@contextlib.contextmanager
def printed_study(results: Path) -> Iterator[Study]:
    """The paper's configuration with results of which each value is the printed one, and its means too, nearly."""
    with contextlib.chdir(ROOT):  # where the printed values stand
        study = with_results(load("config/config.yaml"), results)

        def value(table, label, row):
            printed = study.config.tables[table].printed
            return list(read_printed(printed)[label].values())[row] if printed else 40 + row

        write_results(study, value, queries=20)
        yield study


def with_results(study: Study, results: Path) -> Study:
    """A study whose results stand in another folder."""
    return study.model_copy(update={"config": study.config.model_copy(update={"results": str(results)})})


def write_scores(path: Path, means: dict[str, float], metric: str = "nDCG@10", queries: int = 40) -> Path:
    """A score file; means: task -> mean in [0, 1]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {}
    for task, mean in means.items():
        ones = math.floor(mean * queries)
        values = [1.0] * ones + [mean * queries - ones] + [0.0] * (queries - ones - 1)
        part = {"metrics": {metric: mean}, "per_query": {metric: values[:queries]}}
        found[task] = {"label": task, "metrics": {metric: mean}, "parts": {task: part}}
    provenance = {"commit": "a1b2c3", "runs": {task: f"run-of-{task}" for task in means}}
    path.write_text(json.dumps({"tasks": found, "provenance": provenance}))
    return path


def write_results(study: Study, value, queries: int = 40) -> None:
    """Everything that tables, comparisons, lineage and figures read.

    value: (table, label, row number) -> percent. Where tables share a system, the first one's value counts.
    """
    results = Path(study.config.results)
    for name, table in study.config.tables.items():
        if table.means_of:
            continue
        for label, system in study.table_systems(name).items():
            path = score_file(study, system, table.benchmark)
            if study.is_copied(system) or path.exists():
                continue
            names = list(tasks(study, table.benchmark))
            means = {task: value(name, label, row) / 100 for row, task in enumerate(names)}
            write_scores(path, means, metric(table.benchmark), queries)
        for benchmark in study.table_benchmarks(name):
            for dataset in study.benchmark_datasets(benchmark):
                write_resource(results / "resources/datasets" / dataset)
    for run in study.runs:
        write_cell(results / "models" / run.system, run.cell)
        for dataset in study.corpus_datasets(run.corpus):
            write_resource(results / "resources/datasets" / dataset)
    for model in study.models:
        write_resource(results / "resources/models" / model)
    write_cost(results / "cost" / f"{study.config.figures['cost'].cell}.json")


def write_resource(folder: Path) -> None:
    """A resource from the hub."""
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / "content").write_text(folder.name)
        write_manifest(folder, hub={f"owner/{folder.name}": "f" * 40}, revision="main")


def write_cell(folder: Path, cell: Cell, batch: int = 16) -> None:
    """A trained cell: its log, its settings and, for Revela, the watched batch."""
    (folder / "retriever").mkdir(parents=True)
    (folder / "retriever/adapter_model.safetensors").write_text(cell.path)
    (folder / "settings.json").write_text(json.dumps({"seed": 42}))
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
        }
        for step in range(1, steps + 1)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    if cell.method == "revela":
        watched = [watched_batch(step, batch) for step in STEPS]
        (folder / "dynamics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in watched))
    write_manifest(
        folder,
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


def write_cost(path: Path) -> None:
    """As if REPLUG's cost grew with the square of the batch size, and Revela's with the batch size."""
    sizes, powers = (2, 4, 8, 16), {"REPLUG": 2, "Revela": 1}
    points = [{"method": m, "batch_size": b, "seconds": b**power} for b in sizes for m, power in powers.items()]
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"device": "A100", "points": points}))


def watched_batch(step: int, size: int) -> dict:
    """Chunks of two documents by turns, which find each other as the steps go on."""
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
