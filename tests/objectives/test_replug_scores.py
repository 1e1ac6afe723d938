"""REPLUG's scores of a whole corpus: a file that an interrupted run goes on with."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TEXTS

from revela.objectives import replug_scores
from revela.objectives.tokens import ObjectiveError
from revela.study.specification import ReplugScoreSpec

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
    pq.write_table(pa.table({"text": [TEXTS[:2], TEXTS[2:4]]}), tmp_path / "batches.parquet")
    shutil.copytree(lm, tmp_path / "lm")
    bad = iter([torch.ones(2, 2), torch.full((2, 2), torch.nan)])
    with monkeypatch.context() as patch, pytest.raises(ObjectiveError, match="a score of batch 1 is not finite"):
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
