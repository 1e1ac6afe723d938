"""Figures: the numbers behind them, and that equal numbers give equal files."""

import hashlib
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from paper_results import printed_study, with_results, write_results

from revela.files import write_json
from revela.paper import PaperError
from revela.paper.figure_corpus import corpus_figure
from revela.paper.figure_means import bars
from revela.paper.figure_same_document import comparable
from revela.paper.figure_timing import slope
from revela.paper.figures import panels, write_figure
from revela.study.study import load
from revela.study.tables import figure_spec, table_spec


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with printed_study(tmp_path_factory.mktemp("results")) as study:
        yield study


def make(study, name, folder):
    """(sha256 of the PDF, the PNG and the SVG, panel -> its data) of a figure."""
    files = [folder / f"{name}.{suffix}" for suffix in ("pdf", "png", "svg")]
    spec = figure_spec(study, name)
    if name == "training":
        cells = [run.system for run in study.runs if run.corpus == "mixed" or run.method == "contriever"]
        spec = spec.model_copy(update={"cells": cells})
    write_figure(spec, study.layout, files, folder / name)
    data = {path.stem: pd.read_csv(path) for path in sorted((folder / name).iterdir())}
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files], data


def numbers(study, name):
    """panel -> its numbers."""
    return panels(figure_spec(study, name), study.layout)


@pytest.mark.parametrize(
    "name, shown",
    [
        ("figure3", {"BRIGHT", "BEIR"}),
        ("figure4", {"CoIR", "BEIR"}),
        ("figure5", {"CoIR", "BEIR"}),
        ("figure6", {"step-0", "step-100", "step-200"}),
        ("same_document", {"same-document"}),
        ("hours", {"CoIR", "BEIR", "BRIGHT"}),
        ("timing", {"A100"}),
        ("training", {"revela-mixed", "contriever-wiki", "contriever-code"}),
    ],
)  # fmt: skip
def test_every_figure_with_its_data(study, tmp_path, name, shown):
    hashes, data = make(study, name, tmp_path)
    assert set(data) == shown and all(len(frame) for frame in data.values())
    if name in ("figure4", "figure6", "same_document"):
        assert make(study, name, tmp_path / "again")[0] == hashes


def test_the_numbers_of_the_bars_and_lines(study):
    bars = numbers(study, "figure3")["BRIGHT"].set_index("label")
    assert bars.loc["Revela-3B", "mean"] == pytest.approx(16.9, abs=0.06) and bars.loc["Revela-3B", "origin"] == "own"
    assert bars.loc["OpenAI", "mean"] == 17.9 and bars.loc["OpenAI", "origin"] == "copied"
    assert np.isnan(bars.loc["OpenAI", "margin"]) and bars.loc["REPLUG-3B", "origin"] == "measured"
    lines = numbers(study, "figure5")["BEIR"]
    found = lines[lines["line"] == "Revela-0.5B"]
    assert list(found["at"]) == ["0.1B", "0.5B", "1B"]
    assert list(found["mean"]) == pytest.approx([41.6, 41.2, 38.8], abs=0.1)


def test_the_weight_on_the_same_document_counts_batches_before_the_step(tmp_path):
    """tiny's cell and its shuffled control; the uniform one is a line of its own."""
    tiny = with_results(load("config/tiny.yaml"), tmp_path)
    cells = {cell.variant: cell for cell in tiny.figure_cells("same_document")}
    assert {*cells} == {"", "shuffled"}
    for cell, (similarity, shares) in zip(cells.values(), (("learned", [0.2, 0.4]), ("shuffled", [0.1, 0.3]))):
        Path(tiny.layout.cell(cell)).mkdir(parents=True)
        write_json(tiny.layout.cell_settings(cell), {"similarity": similarity, "batches_per_step": 8})
        lines = [
            {
                "step": step,
                "loss": 1,
                "elapsed": 1,
                "gpu_hours": 0,
                "same_document": share,
                "same_document_uniform": 0.2,
            }
            for step, share in enumerate(shares, start=1)
        ]
        Path(tiny.layout.cell_log(cell)).write_text("".join(json.dumps(line) + "\n" for line in lines))
    frame = numbers(tiny, "same_document")["same document"]
    assert frame.to_dict("split")["data"] == [
        ["learned", 0, 0.2, 0.2],
        ["learned", 8, 0.4, 0.2],
        ["shuffled Sim", 0, 0.1, 0.2],
        ["shuffled Sim", 8, 0.3, 0.2],
    ]
    log = Path(tiny.layout.cell_log(cells[""]))
    log.write_text(log.read_text().replace('same_document"', 'other"'))
    with pytest.raises(PaperError, match="do not name documents"):
        numbers(tiny, "same_document")


def test_batches_of_few_and_of_many_documents_are_comparable():
    """Worked by hand: half-way from uniform to all, then a batch of one document, then uniform, in a mean batch of 0.5."""
    curve = pd.DataFrame({"share": [0.6, 1.0, 0.25], "uniform": [0.2, 1.0, 0.25]})
    single = comparable(curve, 0.5, 1)
    assert single[[0, 2]].tolist() == pytest.approx([0.75, 0.5]) and np.isnan(single[1])
    both = 0.5 + 0.5 * (0.4 + 0.0) / (0.8 + 0.75)
    assert comparable(curve, 0.5, 3)[1] == pytest.approx(both)
    assert comparable(curve[:1], 0.2, 1).tolist() == pytest.approx([0.6])  # as it is where all batches are alike


def test_an_svg_has_other_colours_where_a_screen_is_dark(study, tmp_path):
    make(study, "same_document", tmp_path)
    svg = (tmp_path / "same_document.svg").read_text()
    ET.fromstring(svg)
    style = re.search(r"<style>@media \(prefers-color-scheme: dark\) (.*?)</style>", svg)[1]
    drawn = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg.replace(style, "")))
    ink = drawn - {"#b0b0b0"}  # the grid
    assert {"#ffffff", "#0072b2"} <= ink and all(f": {colour}" in style for colour in ink)


def test_a_control_is_not_revelas_own(study, tmp_path):
    tiny = with_results(load("config/tiny.yaml"), tmp_path)
    write_results(tiny, lambda table, label, row: 50, queries=2)
    origins = bars(table_spec(tiny, "table1"), tiny.layout).set_index("label")["origin"]
    assert set(origins[origins == "own"].index) == {"Revela-4M"}
    assert origins["Uniform-4M"] == origins["Shuffled-4M"] == "measured"


def test_the_hours_are_those_of_the_logs(study):
    found = numbers(study, "hours")["CoIR"].set_index("label")
    assert set(found.index) == {f"Revela-{s}B" for s in (0.1, 0.5, 1, 3)} | {"REPLUG-1B", "REPLUG-3B"}
    log = Path(study.layout.cell_log("replug/code/llama-3.2-1b/llama-3.2-1b/bs16")).read_text()
    assert found.loc["REPLUG-1B", "hours"] == json.loads(log.splitlines()[-1])["gpu_hours"]
    assert found.loc["REPLUG-1B", "device"] == "GPU"


def test_chunks_of_a_document_stand_side_by_side(study):
    found = numbers(study, "figure6")["step 200"]
    assert list(found["chunk"]) == [*range(1, 17, 2), *range(2, 17, 2)]
    assert list(found["document"]) == [1] * 8 + [2] * 8
    weights = found.filter(regex="^to_")
    assert list(weights) == [f"to_{chunk}" for chunk in found["chunk"]]  # columns as rows
    assert np.allclose(weights.sum(1), 1, atol=1e-4) and np.diag(weights).max() == 0
    inside = weights.to_numpy()[:8, :8].sum() + weights.to_numpy()[8:, 8:].sum()
    assert inside > 0.9 * weights.to_numpy().sum()


def test_the_slope_of_the_times():
    for power in (1, 2):
        points = pd.DataFrame({"batch_size": [2, 4, 8, 16], "seconds": [0.1 * b**power for b in (2, 4, 8, 16)]})
        assert slope(points) == pytest.approx(power)


def test_a_figure_without_its_files_is_an_error(study, tmp_path):
    gone = with_results(study, tmp_path).layout
    for name, message in {
        "figure4": "not a score file",
        "figure6": "no record of a watched batch",
        "timing": "no measured times",
    }.items():
        with pytest.raises(PaperError, match=message):
            panels(figure_spec(study, name), gone)
    training = figure_spec(study, "training")
    with pytest.raises(PaperError, match="no trained cell"):
        panels(training.model_copy(update={"cells": []}), gone)
    cell = "revela/code/llama-3.2-1b/llama-3.2-1b/bs16"
    with pytest.raises(PaperError, match=r"log.jsonl: not a training log"):
        panels(training.model_copy(update={"cells": [cell]}), gone)


def test_the_figure_of_a_corpus_leaves_out_what_its_report_lacks(tmp_path):
    batches = {"words_of_chunk": {"3": 4, "5": 16}, "documents_of_batch": {"1": 1, "2": 4}, "batches": 5}
    group = {"documents": 4, "batches": 3, "documents_of_batch": {"1": 1, "2": 2}}
    ready = {"chunks": None, "batches": {"4": batches}, "group_sizes": None}
    whole = ready | {
        "chunks": {"documents": 6, "chunks": 25, "chunks_of_document": {"1": 1, "6": 4}},
        "group_sizes": {"stated": {"documents": 4, "batches": None}, "group_size": {"1": group, "2": group}},
    }
    for name, report in {"whole": whole, "ready": ready}.items():
        corpus_figure(report, [tmp_path / f"{name}.png", tmp_path / f"{name}.pdf"])
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "whole.png").stat().st_size > (tmp_path / "ready.png").stat().st_size > 10_000
