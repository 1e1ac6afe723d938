"""An evaluation that is killed at any moment resumes and ends with the same bytes."""

import os
import signal

import numpy as np
import pytest
from benchmark_folders import Encoder, run_spec, task, write_coir

from revela.evaluation import runs, search
from revela.evaluation.dense import Dense
from revela.evaluation.ranking import run_task

SPEC = run_spec(task("coir", parts="go;php"), top_k=10)


def embed(texts):
    return np.stack([np.random.default_rng(abs(hash(text)) % 2**32).standard_normal(5) for text in texts])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("go", "php"):
        documents = {f"{name}{n}": ("", f"{name} {n % 35}") for n in range(40)}  # five duplicates; five shards
        write_coir(folder, name, documents=documents, qrels={"q1": {f"{name}3": 1}, "q2": {f"{name}4": 1}})
    return folder


def evaluate(folder, work, encoder):
    ranker = Dense("dense", encoder, shard_documents=8)
    run_task(ranker, SPEC, folder, work / "run.gz", state=work / "state")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_in_shard(number):
    """The call of the encoder in which it ends; the first of each part is for queries."""

    def prepare(encoder):
        def encode(texts):
            if len(encoder.calls) == number:
                die()
            return embed(texts)

        encoder.encode = encode

    return prepare


def killed_while_the_state_is_written(encoder):
    save = np.savez

    def torn(file, **arrays):
        if int(arrays["seen"]) > 16:
            file.write(b"PK torn")
            file.flush()
            die()
        save(file, **arrays)

    search.np.savez = torn


def killed_while_the_run_is_written(encoder):
    seen, encoded = [], runs._encoded

    def torn(id):
        seen.append(id)
        if len(seen) == 25:
            die()
        return encoded(id)

    runs._encoded = torn


MOMENTS = [*(killed_in_shard(number) for number in (1, 2, 4, 7, 9, 12)), killed_while_the_state_is_written]
MOMENTS.append(killed_while_the_run_is_written)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: getattr(moment, "__name__", ""))
def test_killed_and_started_again(data, tmp_path, moment):
    evaluate(data, tmp_path / "whole", Encoder(embed))
    work = tmp_path / "killed"
    child = os.fork()
    if child == 0:
        try:
            encoder = Encoder(embed)
            moment(encoder)
            evaluate(data, work, encoder)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert not (work / "run.gz").exists()
    encoder = Encoder(embed)
    evaluate(data, work, encoder)
    assert (work / "run.gz").read_bytes() == (tmp_path / "whole" / "run.gz").read_bytes()
    assert [path.name for path in work.iterdir()] == ["run.gz"]


def test_no_shard_is_encoded_twice(data, tmp_path):
    """Killed in the third shard of the second part: three shards are left, and the two calls for queries."""
    work = tmp_path / "killed"
    child = os.fork()
    if child == 0:
        try:
            encoder = Encoder(embed)
            killed_in_shard(10)(encoder)
            evaluate(data, work, encoder)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    encoder = Encoder(embed)
    evaluate(data, work, encoder)
    assert len(encoder.calls) == 2 + 3
