"""The batch that is watched while a cell is trained."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TEXTS
from transformers import AutoModelForCausalLM, AutoTokenizer

from revela.objectives.contriever import Contriever
from revela.objectives.revela import Revela
from revela.retriever import Retriever
from revela.study.settings import Training
from revela.training import watch
from revela.training.rows import Rows

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
    seen = watch.measure(objective, objective.collate(ROW))
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
    watch.measure(objective, objective.collate(ROW))
    assert objective.training and all(p.grad is None for p in objective.parameters())
    assert torch.equal(torch.rand(3), expected)


def test_steps_are_recorded_once_even_after_an_interruption(objective, tmp_path):
    path = tmp_path / watch.FILE
    record = watch.Watch(objective, ROW, path)
    for step in range(102):
        record(step)
    first = path.read_text()
    assert [json.loads(line)["step"] for line in first.splitlines()] == [0, 100]
    assert json.loads(first.splitlines()[0])["document"] == ["a", "b", "a", "b"]
    record(100)
    assert path.read_text() == first
    record(0)  # begun anew
    assert path.read_text() == first.splitlines(keepends=True)[0]
    watch.Watch(objective, ROW, None)(200)  # a process that writes nothing
    assert path.read_text() == first.splitlines(keepends=True)[0]


def test_other_methods_are_not_watched(objective, tmp_path):
    watch.Watch(Contriever(SETTINGS, objective.retriever), {}, tmp_path / watch.FILE)(0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("documents, expected", [(["aa", "ab", "cd"], 1), (["aa", "bb"], 0), (None, 0)])
def test_the_batch_that_is_watched_is_of_several_documents(tmp_path, documents, expected):
    columns = {"text": [["x", "y"], ["z", "w"], ["v", "u"]][: len(documents or "xyz")]}
    columns |= {"document": list(map(list, documents))} if documents else {}
    pq.write_table(pa.table(columns), tmp_path / "batches.parquet")
    found = watch.first_of_several_documents(Rows(tmp_path / "batches.parquet", None, 1).table)
    assert found == pa.table(columns).to_pylist()[expected]
