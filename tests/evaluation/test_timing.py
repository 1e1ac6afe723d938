"""How long the methods take to relate the documents of a batch."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TEXTS

from revela.evaluation import EvaluationError, timing
from revela.study.settings import Training

SETTINGS = Training(retriever_max_length=32, lm_max_length=32, temperature=0.05, precision="fp32")


@pytest.fixture
def batches(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "REPEATS", 1)
    pq.write_table(pa.table({"text": [TEXTS[:3], TEXTS[3:]]}), tmp_path / "batches.parquet")
    return tmp_path / "batches.parquet"


def test_each_method_is_timed_for_each_size(backbone, lm, batches, monkeypatch):
    embedded, embed = [], timing.Revela.embed
    monkeypatch.setattr(timing.Revela, "embed", lambda *given: embedded.append(given) or embed(*given))
    found = timing.measure(backbone, lm, batches, SETTINGS, sizes=(2, 4))
    assert found["device"] == "CPU" or torch.cuda.is_available()
    assert [(p["method"], p["batch_size"]) for p in found["points"]] == [
        ("REPLUG", 2), ("Revela", 2), ("REPLUG", 4), ("Revela", 4)
    ]  # fmt: skip
    assert all(p["seconds"] > 0 for p in found["points"])
    assert len(embedded) == 2  # once for each size, before anything is timed


def test_the_result_is_written_as_json(backbone, lm, batches, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "measure", lambda *given: {"device": "CPU", "points": []})
    timing.write_timing(backbone, lm, batches, SETTINGS, tmp_path / "timing" / "cell.json")
    assert json.loads((tmp_path / "timing" / "cell.json").read_text()) == {"device": "CPU", "points": []}


def test_too_few_chunks_are_an_error(batches):
    with pytest.raises(EvaluationError, match="6 chunks; 7 are needed"):
        timing.read_texts(batches, 7)
