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
from revela.study.cross_attention import CrossAttention
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


def test_the_distance_that_sim_can_still_go(objective):
    """Each loss is that of the stream under its Sim; a chunk that is alone in its document looks at all others."""
    objective.eval()
    row = ROW | {"document": ["a", "b", "a", "c"]}
    found, batch = watch.gain(objective, objective.collate(row)), objective.collate(row)
    third = 1 / 3
    sims = {
        "learned": objective.similarity(batch),
        "uniform": torch.full((4, 4), third).fill_diagonal_(0),
        "same_document": torch.tensor([[0, 0, 1, 0], [third, 0, third, third], [1, 0, 0, 0], [third, third, third, 0]]),
    }
    assert list(found) == list(sims)
    for name, sim in sims.items():
        h, _ = objective.streams(batch, sim, 1.0)
        expected = objective.next_token_loss(h, batch["lm_labels"]) / objective.count(batch)
        assert found[name] == pytest.approx(expected.item(), abs=1e-5)
    assert len(set(found.values())) == 3
    unnamed = {"text": ROW["text"], "src": "x"}
    assert list(watch.gain(objective, objective.collate(unnamed))) == ["learned", "uniform"]


def test_the_distance_is_written_at_doubling_steps(objective, tmp_path):
    assert [step for step in range(1000) if watch.doubles(step)] == [0, 10, 20, 40, 80, 160, 320, 640]
    record, path = watch.Watch(objective, ROW, tmp_path / watch.FILE), tmp_path / watch.GAIN
    for step in (0, 10, 11, 20):
        record(step)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in records] == [0, 10, 20]
    assert all(line.keys() == {"step", "learned", "uniform", "same_document"} for line in records)
    record(10)  # after an interruption
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 10]


def test_the_gate_that_is_watched_is_that_of_the_next_step(backbone, lm, tmp_path):
    """So that an interrupted run writes what an uninterrupted one does."""
    settings = SETTINGS.model_copy(
        update={"cross_attention": CrossAttention(ramp={"start": 0.1, "steps": 20, "shape": "linear"})}
    )
    retriever = Retriever.from_backbone(backbone, query_prefix="query: ", passage_prefix="passage: ", max_length=32)
    objective = Revela(settings, retriever, AutoModelForCausalLM.from_pretrained(lm), AutoTokenizer.from_pretrained(lm))
    record = watch.Watch(objective, ROW, tmp_path / watch.FILE)
    objective.step = 10  # of the run; a resumed one has not taken it
    record(10)
    before = (tmp_path / watch.GAIN).read_text()
    (tmp_path / watch.GAIN).unlink()
    objective.step = 1
    record(10)
    assert (tmp_path / watch.GAIN).read_text() == before and objective.gate() == pytest.approx(0.55)
