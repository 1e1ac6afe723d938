"""The times that the methods take for a batch."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TEXTS

from revela.errors import RevelaError
from revela.evaluation import timing
from revela.study.settings import Training

SETTINGS = Training(
    retriever_max_length=32,
    lm_max_length=32,
    temperature=0.05,
    precision="fp32",
    query_prefix="query: ",
    passage_prefix="passage: ",
)


def test_the_time_is_measured_for_each_method_and_size(backbone, lm, tmp_path, monkeypatch):
    pq.write_table(pa.table({"text": [TEXTS[:3], TEXTS[3:]]}), tmp_path / "batches.parquet")
    monkeypatch.setattr(timing, "REPEATS", 1)
    embedded, embed = [], timing.Revela.embed
    monkeypatch.setattr(timing.Revela, "embed", lambda *given: embedded.append(given) or embed(*given))
    found = timing.measure(backbone, lm, tmp_path / "batches.parquet", SETTINGS, sizes=(2, 4))
    assert found["device"] == "CPU" or torch.cuda.is_available()
    assert [(p["method"], p["batch_size"]) for p in found["points"]] == [
        ("REPLUG", 2), ("Revela", 2), ("REPLUG", 4), ("Revela", 4)
    ]  # fmt: skip
    assert all(p["seconds"] > 0 for p in found["points"])
    assert len(embedded) == 2  # once for each size, before anything is timed
    with pytest.raises(RevelaError, match="6 chunks, 7 are needed"):
        timing.read_texts(tmp_path / "batches.parquet", 7)
