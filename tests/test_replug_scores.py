"""REPLUG's scores of a whole corpus: a file that an interrupted run goes on with."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TEXTS

from revela.config import Training
from revela.objectives import replug

SETTINGS = Training(precision="fp32", lm_max_length=16)


def test_an_interrupted_run_scores_no_batch_twice(lm, tmp_path, monkeypatch):
    pq.write_table(pa.table({"text": [TEXTS[:2], TEXTS[2:4], TEXTS[4:6]]}), tmp_path / "batches.parquet")
    replug.write_scores(lm, tmp_path / "batches.parquet", tmp_path / "whole.npy", SETTINGS)

    scored, score_batch = [], replug.score_batch

    def interrupted(model, tokenizer, texts, settings):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(texts)
        return score_batch(model, tokenizer, texts, settings)

    monkeypatch.setattr(replug, "score_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replug.write_scores(lm, tmp_path / "batches.parquet", tmp_path / "scores.npy", SETTINGS)
    assert not (tmp_path / "scores.npy").exists()

    monkeypatch.setattr(
        replug, "score_batch", lambda *arguments: scored.append(arguments[2]) or score_batch(*arguments)
    )
    replug.write_scores(lm, tmp_path / "batches.parquet", tmp_path / "scores.npy", SETTINGS)
    assert scored == [TEXTS[:2], TEXTS[2:4], TEXTS[4:6]]
    assert (tmp_path / "scores.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert {
        path.name
        for path in tmp_path.glob(
            "*",
        )
    } == {"batches.parquet", "whole.npy", "scores.npy"}


def test_other_batches_begin_anew(lm, tmp_path):
    for texts in (TEXTS[:2], TEXTS[2:4]):
        pq.write_table(pa.table({"text": [texts]}), tmp_path / "batches.parquet")
        replug.write_scores(lm, tmp_path / "batches.parquet", tmp_path / f"{len(texts[0])}.npy", SETTINGS)
    first, second = (np.load(tmp_path / f"{len(text)}.npy") for text in (TEXTS[0], TEXTS[2]))
    assert not np.allclose(first, second)
