"""Figures: the numbers behind them, and that equal numbers give equal files. The watched batch of a training run."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TEXTS
from paper_results import printed_study, with_results, write_results
from transformers import AutoModelForCausalLM, AutoTokenizer

from revela.evaluation import timing as cost
from revela.objectives import Contriever, Revela
from revela.paper import PaperError, figures
from revela.retriever import Retriever
from revela.study.study import Training, load
from revela.training import watch as dynamics


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with printed_study(tmp_path_factory.mktemp("results")) as study:
        yield study


def make(study, name, folder):
    """(sha256 of the PDF and the PNG, panel -> its data) of a figure."""
    files = [folder / f"{name}.pdf", folder / f"{name}.png"]
    cells = [run.system for run in study.runs if run.corpus == "mixed" or run.method == "contriever"]
    figures.write_figure(study, name, cells, files, folder / name)
    data = {path.stem: pd.read_csv(path) for path in sorted((folder / name).iterdir())}
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files], data


@pytest.mark.parametrize(
    "name, panels",
    [
        ("figure3", {"BRIGHT", "BEIR"}),
        ("figure4", {"CoIR", "BEIR"}),
        ("figure5", {"CoIR", "BEIR"}),
        ("figure6", {"step-0", "step-100", "step-200"}),
        ("hours", {"CoIR", "BEIR", "BRIGHT"}),
        ("cost", {"A100"}),
        ("training", {"revela-mixed", "contriever-wiki", "contriever-code"}),
    ],
)  # fmt: skip
def test_every_figure_with_its_data(study, tmp_path, name, panels):
    hashes, data = make(study, name, tmp_path)
    assert set(data) == panels and all(len(frame) for frame in data.values())
    if name in ("figure4", "figure6"):
        assert make(study, name, tmp_path / "again")[0] == hashes


def test_the_numbers_of_the_bars_and_lines(study):
    bars = figures.panels(study, "figure3", [])["BRIGHT"].set_index("label")
    assert bars.loc["Revela-3B", "mean"] == pytest.approx(16.9, abs=0.06) and bars.loc["Revela-3B", "origin"] == "own"
    assert bars.loc["OpenAI", "mean"] == 17.9 and bars.loc["OpenAI", "origin"] == "copied"
    assert np.isnan(bars.loc["OpenAI", "margin"]) and bars.loc["REPLUG-3B", "origin"] == "measured"
    lines = figures.panels(study, "figure5", [])["BEIR"]
    found = lines[lines["line"] == "Revela-0.5B"]
    assert list(found["at"]) == ["0.1B", "0.5B", "1B"]
    assert list(found["mean"]) == pytest.approx([41.6, 41.2, 38.8], abs=0.1)


def test_a_control_is_not_revelas_own(study, tmp_path):
    demo = with_results(load("config/demo.yaml"), tmp_path)
    write_results(demo, lambda table, label, row: 50, queries=2)
    origins = figures.bars(demo, "table1").set_index("label")["origin"]
    assert set(origins[origins == "own"].index) == {"Revela-4M"}
    assert origins["Uniform-4M"] == origins["Shuffled-4M"] == "measured"


def test_the_hours_are_those_of_the_logs(study):
    found = figures.panels(study, "hours", [])["CoIR"].set_index("label")
    assert set(found.index) == {f"Revela-{s}B" for s in (0.1, 0.5, 1, 3)} | {"REPLUG-1B", "REPLUG-3B"}
    log = Path(study.config.results, "models/replug/code/llama-3.2-1b/llama-3.2-1b/bs16/log.jsonl").read_text()
    assert found.loc["REPLUG-1B", "hours"] == json.loads(log.splitlines()[-1])["gpu_hours"]
    assert found.loc["REPLUG-1B", "device"] == "GPU"


def test_chunks_of_a_document_stand_side_by_side(study):
    found = figures.panels(study, "figure6", [])["step 200"]
    assert list(found["chunk"]) == [*range(1, 17, 2), *range(2, 17, 2)]
    assert list(found["document"]) == [1] * 8 + [2] * 8
    weights = found.filter(regex="^to_")
    assert list(weights) == [f"to_{chunk}" for chunk in found["chunk"]]  # columns as rows
    assert np.allclose(weights.sum(1), 1, atol=1e-4) and np.diag(weights).max() == 0
    inside = weights.to_numpy()[:8, :8].sum() + weights.to_numpy()[8:, 8:].sum()
    assert inside > 0.9 * weights.to_numpy().sum()


def test_the_slope_of_the_cost():
    for power in (1, 2):
        points = pd.DataFrame({"batch_size": [2, 4, 8, 16], "seconds": [0.1 * b**power for b in (2, 4, 8, 16)]})
        assert figures.slope(points) == pytest.approx(power)


def test_a_figure_without_its_files_is_an_error(study, tmp_path):
    gone = with_results(study, tmp_path)
    for name, message in {
        "figure4": "not a score file",
        "figure6": "no record of a watched batch",
        "cost": "no measured cost",
        "training": "no trained cell",
    }.items():
        with pytest.raises(PaperError, match=message):
            figures.panels(gone, name, [])
    with pytest.raises(PaperError, match=r"log.jsonl: not a training log"):
        figures.panels(gone, "training", ["revela/code/llama-3.2-1b/llama-3.2-1b/bs16"])


# --- the watched batch


SETTINGS = Training(
    retriever_max_length=32,
    lm_max_length=32,
    temperature=0.05,
    precision="fp32",
    query_prefix="query: ",
    passage_prefix="passage: ",
)


@pytest.fixture(scope="module")
def objective(backbone, lm):
    retriever = Retriever.from_backbone(backbone, query_prefix="query: ", passage_prefix="passage: ", max_length=32)
    model = AutoModelForCausalLM.from_pretrained(lm)
    return Revela(SETTINGS, retriever, model, AutoTokenizer.from_pretrained(lm))


ROW = {"text": TEXTS[:4], "src": "x", "document": ["a", "b", "a", "b"]}


def test_the_watched_losses_are_the_objectives(objective):
    objective.eval()
    seen = dynamics.look(objective, objective.collate(ROW))
    batch = objective.collate(ROW)
    with torch.no_grad():
        total, _ = objective(batch)
        assert np.allclose(seen["similarity"], objective.similarity(batch), atol=1e-6)
    tokens = (batch["lm_labels"][:, 1:] >= 0).sum(1)
    assert float((torch.tensor(seen["loss"]) * tokens).sum()) == pytest.approx(float(total), rel=1e-4)


def test_watching_leaves_no_trace_in_the_training(objective):
    objective.train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dynamics.look(objective, objective.collate(ROW))
    assert objective.training and all(p.grad is None for p in objective.parameters())
    assert torch.equal(torch.rand(3), expected)


def test_steps_are_recorded_once_even_after_an_interruption(objective, tmp_path):
    path = tmp_path / dynamics.FILE
    watch = dynamics.Watch(objective, ROW, path)
    for step in range(102):
        watch(step)
    first = path.read_text()
    assert [json.loads(line)["step"] for line in first.splitlines()] == [0, 100]
    assert json.loads(first.splitlines()[0])["document"] == ["a", "b", "a", "b"]
    watch(100)
    assert path.read_text() == first
    watch(0)  # begun anew
    assert path.read_text() == first.splitlines(keepends=True)[0]
    dynamics.Watch(objective, ROW, None)(200)  # a process that writes nothing
    assert path.read_text() == first.splitlines(keepends=True)[0]


def test_other_methods_are_not_watched(objective, tmp_path):
    dynamics.Watch(Contriever(SETTINGS, objective.retriever), {}, tmp_path / dynamics.FILE)(0)
    assert not list(tmp_path.iterdir())


# --- the cost


def test_the_cost_is_measured_for_each_method_and_size(backbone, lm, tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [TEXTS[:3], TEXTS[3:]]}), tmp_path / "batches.parquet")
    monkeypatch.setattr(cost, "REPEATS", 1)
    embedded, embed = [], cost.Revela.embed
    monkeypatch.setattr(cost.Revela, "embed", lambda *given: embedded.append(given) or embed(*given))
    found = cost.measure(backbone, lm, tmp_path / "batches.parquet", SETTINGS, sizes=(2, 4))
    assert found["device"] == "CPU" or torch.cuda.is_available()
    assert [(p["method"], p["batch_size"]) for p in found["points"]] == [
        ("REPLUG", 2), ("Revela", 2), ("REPLUG", 4), ("Revela", 4)
    ]  # fmt: skip
    assert all(p["seconds"] > 0 for p in found["points"])
    assert len(embedded) == 2  # once for each size, before anything is timed
    with pytest.raises(PaperError, match="6 chunks, 7 are needed"):
        cost.read_texts(tmp_path / "batches.parquet", 7)
