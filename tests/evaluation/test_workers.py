"""Several processes that share the shards of an evaluation: the order, what is kept, and what ends them."""

import os
import time

import numpy as np
import pytest
from benchmark_folders import run_spec, task, write_coir
from worker_systems import HERE, Encoder, System, vector

from revela.evaluation import EvaluationError
from revela.evaluation.dense import Dense
from revela.evaluation.encoders import _environments
from revela.evaluation.ranking import run_task
from revela.evaluation.workers import AHEAD, Workers, embeddings

SHARDS = [[f"{shard}-{n}" for n in range(1 + shard % 3)] for shard in range(14)]


def workers(system, processes=2):
    return Workers((system, None, None), [HERE] * processes)


def expected(shards):
    return [np.stack([vector(text) for text in shard]) for shard in shards]


def lines(path):
    return path.read_text().split() if path.is_file() else []


@pytest.mark.parametrize("processes", [1, 3])
def test_embeddings_in_order(tmp_path, processes):
    """More shards than may be begun ahead, and fewer; each is encoded once, and no file is left."""
    pool = workers(System(tmp_path / "log"), processes)
    for shards in (SHARDS, SHARDS[:1], []):
        found = list(embeddings(pool, shards, "passage", folder=tmp_path / "kept"))
        assert len(found) == len(shards)
        assert all(map(np.array_equal, found, expected(shards)))
    assert sorted(lines(tmp_path / "log")) == sorted([shard[0] for shard in SHARDS] + ["0-0"])
    assert list((tmp_path / "kept").iterdir()) == []
    assert len(SHARDS) > AHEAD * 3


def test_shards_are_taken_when_they_are_needed(tmp_path):
    taken = []
    found = embeddings(workers(System(tmp_path / "log")), (taken.append(0) or [str(n)] for n in range(100)), "passage")
    next(found)
    assert len(taken) <= AHEAD * 2


def test_a_process_is_killed(tmp_path):
    """One line; the next attempt encodes what is neither handed on nor kept, and nothing else."""
    kept, log = tmp_path / "kept", tmp_path / "log"
    found = []
    with pytest.raises(
        EvaluationError, match=r"^a process that encodes was ended by SIGKILL; shards that were finished"
    ):
        found.extend(embeddings(workers(System(log, "6-0", "kill")), SHARDS, "passage", folder=kept))
        pytest.fail("it went on")
    log.unlink()
    there = {int(path.stem) for path in kept.glob("[0-9]*.npy")}
    again = list(embeddings(workers(System(log)), SHARDS, "passage", folder=kept))
    assert all(map(np.array_equal, again, expected(SHARDS)))
    assert sorted(lines(log)) == sorted(shard[0] for number, shard in enumerate(SHARDS) if number not in there)
    assert len(lines(log)) >= 1 and 6 not in there


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("error", "^the embedding of a text is not finite$"),
        ("bug", "^a process that encodes ended with status 1; shards"),
        ("load", "^no such model$"),
    ],
)
@pytest.mark.parametrize("shards", [SHARDS, SHARDS[3:4]], ids=["among others", "the last"])
def test_a_process_that_cannot(tmp_path, capfd, shards, trouble, message):
    """Also where no other shard would wake the thread that reads."""
    with pytest.raises(EvaluationError, match=message):
        list(embeddings(workers(System(tmp_path / "log", "3-0", trouble)), shards, "passage"))
    assert ("RuntimeError: out of memory" in capfd.readouterr().err) == (trouble == "bug")


def test_processes_end_with_the_job(tmp_path):
    pool = workers(System(tmp_path / "log"))
    list(embeddings(pool, SHARDS, "passage"))
    numbers = [worker.process.pid for worker in pool.workers]
    del pool
    assert not any(os.path.exists(f"/proc/{number}") for number in numbers)

    child = os.fork()
    if child == 0:
        try:
            pool = workers(System(tmp_path / "log"))
            list(embeddings(pool, SHARDS, "passage"))
            (tmp_path / "pids").write_text(" ".join(str(worker.process.pid) for worker in pool.workers))
        finally:
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    numbers = (tmp_path / "pids").read_text().split()
    deadline = time.monotonic() + 10
    while any(_runs(number) for number in numbers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(numbers) == 2 and not any(map(_runs, numbers))


def _runs(number):
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_run_by_processes_is_that_of_one(tmp_path):
    """Also after a process was killed: the same bytes, and nothing beside them."""
    documents = {f"d{n}": ("", f"text {n % 50}") for n in range(60)}
    queries = {f"q{n}": f"query {n}" for n in range(7)}
    write_coir(tmp_path / "data", documents=documents, queries=queries, qrels={query: {"d3": 1} for query in queries})
    spec, log = run_spec(task("coir"), top_k=10), tmp_path / "log"

    def run(name, encoder):
        ranker = Dense("dense", encoder, shard_documents=4)
        run_task(ranker, spec, tmp_path / "data", tmp_path / name / "run.gz", state=tmp_path / name / "state")
        assert [path.name for path in (tmp_path / name).iterdir()] == ["run.gz"]
        return (tmp_path / name / "run.gz").read_bytes()

    whole = run("one", Encoder(System(log)))
    assert run("three", workers(System(log), 3)) == whole
    with pytest.raises(EvaluationError, match="SIGKILL"):
        run("killed", workers(System(log, "text 30", "kill"), 3))
    log.unlink()
    assert run("killed", workers(System(log), 2)) == whole
    assert 1 <= len([line for line in log.read_text().splitlines() if line.startswith("text")]) < 13


@pytest.mark.parametrize(("named", "gpus", "found"), [("4,MIG-a", 2, ["4", "MIG-a"]), (None, 3, ["0", "1", "2"])])
def test_each_process_has_a_gpu(monkeypatch, named, gpus, found):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert [variables["CUDA_VISIBLE_DEVICES"] for variables in _environments(gpus, 9)] == found


def test_processes_share_the_threads(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert [variables["OMP_NUM_THREADS"] for variables in _environments(0, 2)] == ["2", "2"]
    assert [variables["OMP_NUM_THREADS"] for variables in _environments(0, 9)] == ["1"] * 9
