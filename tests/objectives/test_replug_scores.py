"""REPLUG's scores of a whole corpus: a file that an interrupted run goes on with."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TEXTS

from revela.objectives import replug_scores
from revela.objectives.tokens import ObjectiveError
from revela.study.cell import Cell
from revela.study.specification import ReplugScoreSpec, replug_score_spec
from revela.study.study import load
from revela.training import TrainingError
from revela.training.rows import Rows, positions_of

SPEC = ReplugScoreSpec(length_normalised=True, lm_max_length=16, precision="fp32")


def test_an_interrupted_run_scores_no_batch_twice(lm, tmp_path, monkeypatch):
    pq.write_table(pa.table({"text": [TEXTS[:2], TEXTS[2:4], TEXTS[4:6]]}), tmp_path / "batches.parquet")
    replug_scores.write_scores(lm, tmp_path / "batches.parquet", tmp_path / "whole.npy", SPEC)

    scored, score_batch = [], replug_scores.score_batch

    def interrupted(model, tokenizer, texts, spec):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(texts)
        return score_batch(model, tokenizer, texts, spec)

    monkeypatch.setattr(replug_scores, "score_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replug_scores.write_scores(lm, tmp_path / "batches.parquet", tmp_path / "scores.npy", SPEC)
    assert not (tmp_path / "scores.npy").exists()

    monkeypatch.setattr(
        replug_scores, "score_batch", lambda *arguments: scored.append(arguments[2]) or score_batch(*arguments)
    )
    replug_scores.write_scores(lm, tmp_path / "batches.parquet", tmp_path / "scores.npy", SPEC)
    assert scored == [TEXTS[:2], TEXTS[2:4], TEXTS[4:6]]
    assert (tmp_path / "scores.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"batches.parquet", "whole.npy", "scores.npy"}


def test_scores_of_another_model_are_not_gone_on_with(lm, tmp_path, monkeypatch):
    """Nor is a score that is not finite taken for one that is still to come."""
    rows = {"text": [TEXTS[:2], TEXTS[2:4]], "document": [["a", "b"], ["c", "d"]]}
    pq.write_table(pa.table(rows), tmp_path / "batches.parquet")
    shutil.copytree(lm, tmp_path / "lm")
    bad = iter([torch.ones(2, 2), torch.tensor([[1, 1], [torch.nan, 1]])])
    said = r"a score of batch 1 is not finite: chunk 1 \(d\) after chunk 0 \(c\); try"
    with monkeypatch.context() as patch, pytest.raises(ObjectiveError, match=said):
        patch.setattr(replug_scores, "score_batch", lambda *_: next(bad))
        replug_scores.write_scores(tmp_path / "lm", tmp_path / "batches.parquet", tmp_path / "scores.npy", SPEC)
    config = tmp_path / "lm/config.json"
    config.write_text(config.read_text() + " ")
    replug_scores.write_scores(tmp_path / "lm", tmp_path / "batches.parquet", tmp_path / "scores.npy", SPEC)
    assert not (np.load(tmp_path / "scores.npy")[0] == 1).any()


def test_other_batches_begin_anew(lm, tmp_path):
    for texts in (TEXTS[:2], TEXTS[2:4]):
        pq.write_table(pa.table({"text": [texts]}), tmp_path / "batches.parquet")
        replug_scores.write_scores(lm, tmp_path / "batches.parquet", tmp_path / f"{len(texts[0])}.npy", SPEC)
    first, second = (np.load(tmp_path / f"{len(text)}.npy") for text in (TEXTS[0], TEXTS[2]))
    assert not np.allclose(first, second)


# --- what training sees, and by whom it is scored


@pytest.fixture
def nine(tmp_path):
    """Nine batches of two documents."""
    texts = [[f"{number} {TEXTS[number % 6]}", TEXTS[(number + 1) % 6]] for number in range(9)]
    pq.write_table(pa.table({"text": texts, "src": ["s"] * 9}), tmp_path / "batches.parquet")
    return tmp_path / "batches.parquet"


def test_only_what_training_sees_is_scored(lm, nine, tmp_path):
    """All that a run of these steps asks for is there and as in the file of all scores; the rest is NaN."""
    replug_scores.write_scores(lm, nine, tmp_path / "all.npy", SPEC)
    part = SPEC.model_copy(update={"seed": 5, "positions": 4})
    replug_scores.write_scores(lm, nine, tmp_path / "part.npy", part)
    every, some = np.load(tmp_path / "all.npy"), np.load(tmp_path / "part.npy")
    there = ~np.isnan(some).any((1, 2))
    assert there.sum() == 4 and np.array_equal(some[there], every[there])

    rows, full = Rows(nine, tmp_path / "part.npy", 5), Rows(nine, tmp_path / "all.npy", 5)
    for step in (1, 2):
        for rank in (0, 1):
            for position in positions_of(step, 2, rank, 2):
                assert np.array_equal(rows[position]["scores"], full[position]["scores"])
    with pytest.raises(TrainingError, match="has no scores"):
        rows[4]
    with pytest.raises(TrainingError, match="has no scores"):
        [Rows(nine, tmp_path / "part.npy", 6)[position] for position in range(4)]  # of another seed

    more = SPEC.model_copy(update={"seed": 5, "positions": 100})  # several epochs
    replug_scores.write_scores(lm, nine, tmp_path / "more.npy", more)
    assert np.array_equal(np.load(tmp_path / "more.npy"), every)


def test_processes_share_the_rows_and_go_on_with_what_others_began(lm, nine, tmp_path, monkeypatch):
    """Two processes give what one gives, after one was stopped in the middle; a fault of one ends all."""
    replug_scores.write_scores(lm, nine, tmp_path / "one.npy", SPEC)
    count, score_batch = iter(range(4)), replug_scores.score_batch
    with monkeypatch.context() as patch, pytest.raises(StopIteration):
        patch.setattr(replug_scores, "score_batch", lambda *arguments: (next(count), score_batch(*arguments))[1])
        replug_scores.write_scores(lm, nine, tmp_path / "two.npy", SPEC)
    (begun,) = tmp_path.glob(".*two.npy")
    assert np.isnan(np.load(begun)).any((1, 2)).sum() == 5
    replug_scores.write_scores(lm, nine, tmp_path / "two.npy", SPEC, workers=2)
    assert np.array_equal(np.load(tmp_path / "one.npy"), np.load(tmp_path / "two.npy"))
    assert not begun.exists()

    pq.write_table(pa.table({"text": [["a", "b"], ["c", ""]], "document": [["a", "b"], ["c", "d"]]}), nine)
    said = r"scoring in 2 processes: a chunk has no token for the language model: '', chunk 1 \(d\) of batch 1"
    with pytest.raises(ObjectiveError, match=said):
        replug_scores.write_scores(lm, nine, tmp_path / "bad.npy", SPEC, workers=2)


def test_the_name_says_which_scores_they_are(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    for name in ("mean156-bf16", "sum64-fp32", "mean156-bf16-seed42-144000"):
        assert ReplugScoreSpec.parse(name).name == name
    study = load("config/config.yaml")
    names = {
        replug_score_spec(study, Cell.parse(f"replug/{corpus}/qwen2.5-0.5b/llama-3.2-1b/{end}")).name
        for corpus, end in (("wiki", "bs16"), ("code", "bs8"), ("wiki", "bs16-without-self"), ("mixed", "bs16-tau1e-2"))
    }
    assert names == {"mean156-bf16-seed42-144000"}  # 4,500 steps of 32; cells that differ otherwise share them
    seeded = replug_score_spec(study, Cell.parse("replug/wiki/qwen2.5-0.5b/llama-3.2-1b/bs16-seed1"))
    assert seeded.name == "mean156-bf16-seed1-144000"
