"""What a cell's models make of batches: Sim's entropy by hand, and losses that are those of `gain.jsonl`."""

import json
import math

import pytest
import torch
from conftest import TEXTS

from revela.grouping.gain import measured, trained_objective, write_gain
from revela.grouping.report import write_report
from revela.grouping.sample import drawn, rows_at
from revela.objectives.revela import Revela
from revela.provenance import folder_sha256, write_manifest
from revela.study.grouping import GainSpec
from revela.study.settings import Training
from revela.text.batches import BATCHES
from revela.text.parquet import write_table
from revela.training.engine import load_models
from revela.training.watch import gain

CELL = "revela/code/tiny/tiny/bs4"


def settings(**changes):
    return Training(retriever_max_length=32, lm_max_length=32, temperature=0.05, precision="fp32", freeze_lm=True, **changes)  # fmt: skip


def spec(**changes):
    return GainSpec(**{"cell": CELL, "settings": settings(), "batches": 3, "documents": True, "seed": 5} | changes)


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """Six batches of four chunks, two of each of two documents."""
    path = tmp_path_factory.mktemp("batches") / "batches.parquet"
    rows = [("a", [TEXTS[(row + place) % 6] for place in range(4)], ["x", "y", "x", "y"]) for row in range(6)]
    write_table(path, BATCHES, rows, lambda row: 1)
    return path


@pytest.fixture(scope="module")
def cell(tmp_path_factory, backbone, lm):
    """The folder of a cell whose retriever has moved."""
    folder = tmp_path_factory.mktemp("cell")
    objective = Revela(settings(), *load_models(settings(), backbone, lm))
    with torch.no_grad():
        for weight in objective.retriever.parameters():
            weight.mul_(1.5)
    objective.retriever.save(folder / "retriever")
    inputs = {"retriever": folder_sha256(backbone), "lm": folder_sha256(lm)}
    write_manifest(folder, cell=CELL, inputs=inputs, steps=8)
    return folder


def test_each_batch_is_measured_as_while_training(batches, cell, backbone, lm, tmp_path):
    found = write_gain(spec(), batches, cell, backbone, lm, tmp_path / "gain.json")
    assert json.loads((tmp_path / "gain.json").read_text()) == found and found["cell"] == CELL
    assert {one["batch"] for one in found["batches"]} == drawn(batches, 5, 3)
    objective = trained_objective(settings(), cell, backbone, lm)
    assert not torch.equal(
        objective.retriever.backbone.norm.weight, Revela(settings(), *load_models(settings(), backbone, lm)).retriever.backbone.norm.weight
    )  # fmt: skip
    for one, row in zip(found["batches"], rows_at(batches, drawn(batches, 5, 3)).values(), strict=True):
        batch = objective.collate(row)
        expected = gain(objective, batch)
        assert {name: one[name] for name in expected} == expected and len(expected) == 3
        sim = objective.eval().similarity(batch)[~torch.eye(4, dtype=bool)].view(4, 3).double()
        entropy = -(sim * sim.log()).sum(1).mean().item()
        assert one["entropy"] == pytest.approx(entropy, abs=1e-4) and 0 < one["of_uniform"] < 1
        assert one["of_uniform"] == pytest.approx(entropy / math.log(3), abs=1e-4)
    assert found["mean"]["learned"] == pytest.approx(sum(one["learned"] for one in found["batches"]) / 3, abs=1e-6)
    again = write_gain(spec(), batches, cell, backbone, lm, tmp_path / "again.json")
    assert again == found


def test_a_uniform_sim_has_the_entropy_of_all_others(batches, cell, backbone, lm):
    objective = trained_objective(settings(similarity="uniform"), cell, backbone, lm)
    row = next(iter(rows_at(batches, [2]).values()))
    found = measured(objective, row, documents=False)
    assert found["entropy"] == pytest.approx(math.log(3), abs=1e-6) and found["of_uniform"] == 1
    assert found["learned"] == found["uniform"] and "same_document" not in found


def test_two_chunks_have_one_sim(tmp_path, cell, backbone, lm):
    """Each sees the other alone, so there is nothing to choose."""
    path = tmp_path / "batches.parquet"
    write_table(path, BATCHES, [("a", TEXTS[:2], ["x", "y"])], lambda row: 1)
    [row] = rows_at(path, [0]).values()
    found = measured(trained_objective(settings(), cell, backbone, lm), row, documents=True)
    assert found["entropy"] == 0 and found["of_uniform"] == 1


def test_the_report_shows_what_was_measured(batches, tmp_path):
    values = {"entropy": 0.5, "of_uniform": 0.45, "learned": 3.1, "uniform": 3.2}
    for name, more in (("before", {"same_document": 3.05}), ("after", {})):
        one = values | more
        gain = {"cell": CELL, "mean": one, "batches": [{"batch": place, **one} for place in (1, 4)]}
        (tmp_path / f"{name}.json").write_text(json.dumps(gain))
    gains, outputs = [tmp_path / "before.json", tmp_path / "after.json"], (tmp_path / "out.json", tmp_path / "out.md")
    pair = ("code", batches), ("code+r1", batches)
    report = write_report(*pair, None, outputs, documents=True, seed=1, gains=gains)
    assert report["gain"] == {name: json.loads(path.read_text()) for name, path in zip(("code", "code+r1"), gains)}
    page = outputs[1].read_text()
    assert f"Measured with the models of `{CELL}`" in page and page.count("### ") == 4
    assert "| code | 2 | 0.500 | 45.0% | 3.200 | 0.100 | 0.150 |" in page
    assert "| code+r1 | 2 | 0.500 | 45.0% | 3.200 | 0.100 | unknown |" in page
    said = "### 1. a\n\nEntropy of Sim 0.500 nats, 45.0% of the uniform's; loss 3.200 under a uniform Sim, 3.100 under this one."
    assert page.count(said) == 2
    assert "gain" not in write_report(*pair, None, outputs, documents=True, seed=1)
