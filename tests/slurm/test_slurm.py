"""The workflow on a real SLURM of one node: what jobs ask for, and that tables survive whatever a cluster does.

What takes more than a minute or two is marked `by_hand`: `pytest -m by_hand tests/slurm`.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checkout import Checkout
from cluster import Cluster, why_not
from conftest import TEXTS, make_backbone
from run import Run

from revela import usage

SMALL = ("--configfile", "tests/small/config.yaml")
R = "results/small"
CELL = "revela/code/random/random/bs4"
LONG = f"{CELL}-long"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


@pytest.fixture
def checkout(tmp_path):
    """A checkout without results, on a cluster without a partition of its own."""
    return Checkout(tmp_path / "checkout")


@pytest.fixture
def prepared(checkout):
    """A checkout in which everything is there to train a cell, made without the workflow."""
    checkout.edit(
        "tests/small/config.yaml", "max_steps: 400, checkpoint_every: 2", "max_steps: 400, checkpoint_every: 10"
    )
    make_backbone(checkout.folder / R / "resources/models/random", bos=True)
    (checkout.folder / R / "checkpoints").mkdir()
    batches = checkout.folder / R / "corpora/code/bs4/batches.parquet"
    batches.parent.mkdir(parents=True)
    texts = [[TEXTS[(row + chunk) % len(TEXTS)] for chunk in range(4)] for row in range(24)]
    rows = {"text": texts, "src": ["packages"] * 24, "document": [list("abcd")] * 24}
    pq.write_table(pa.table(rows), batches)
    return checkout


# --- what jobs ask for, by SLURM's own records

QUEUED = {
    "results/corpora/fineweb/chunks.parquet": (
        "rule_chunks_wildcards_fineweb",
        {"NumCPUs": "16", "MinMemoryNode": "11000M", "TimeLimit": "00:50:00", "Partition": "closed"},
    ),
    "results/corpora/code/bs16/batches.parquet": (
        "rule_batches_wildcards_code_16",
        {"NumCPUs": "1", "MinMemoryNode": "19000M", "TimeLimit": "00:30:00"},
    ),
    "results/corpora/wiki/bs8/replug-llama-3.2-1b-mean156-bf16.npy": (
        "rule_replug_scores_wildcards_wiki_8_llama-3.2-1b_mean156-bf16",
        {"NumCPUs": "8", "TresPerJob": "gres:gpu:a100:1", "NumNodes": "1-1", "TimeLimit": "1-14:20:00"},
    ),
    "results/models/contriever/wiki/llama-3.2-1b/none/bs8": (
        "rule_train_wildcards_contriever_wiki_llama-3.2-1b_none_bs8",
        {"NumCPUs": "32", "TresPerJob": "gres:gpu:a100:4", "NumNodes": "1-1", "MinMemoryNode": "49000M"},
    ),
    "results/models/revela/wiki/llama-3.1-8b/llama-3.2-1b/bs8": (
        "rule_train_wildcards_revela_wiki_llama-3.1-8b_llama-3.2-1b_bs8",
        {
            "NumCPUs": "32",
            "TresPerJob": "gres:gpu:a100:4",
            "NumNodes": "1-1",
            "MinMemoryNode": "129000M",
            "TimeLimit": "2-00:00:00",
            "Account": "nlp",
            "Features": "a100_80gb",
        },
    ),
    "results/runs/untrained/llama-3.1-8b/beir/hotpotqa.run.gz": (
        "rule_run_wildcards_untrained_llama-3.1-8b_beir_hotpotqa",
        {"NumCPUs": "8", "TresPerJob": "gres:gpu:a100:1", "NumNodes": "1-1", "MinMemoryNode": "45000M"},
    ),
    "results/runs/bm25/beir/hotpotqa.run.gz": (
        "rule_run_bm25_wildcards_bm25_beir_hotpotqa",
        {"NumCPUs": "8", "MinMemoryNode": "19000M", "TimeLimit": "00:40:00", "Features": "(null)"},
    ),
}


def test_what_jobs_of_the_paper_ask_for(cluster, checkout):
    """Jobs whose inputs seem to be there are submitted into a partition that starts none."""
    results = checkout.folder / "results"
    for name in ("llama-3.2-1b", "llama-3.1-8b"):
        (results / "resources/models" / name).mkdir(parents=True)
    for name in ("beir-hotpotqa", "wikipedia", "fineweb-edu"):
        (results / "resources/datasets" / name).mkdir(parents=True)
    (results / "resources/punkt").mkdir()
    for name in ("wiki/bs8/batches.parquet", "wiki/bs8/pairs.parquet", "code/chunks.parquet"):
        (results / "corpora" / name).parent.mkdir(parents=True, exist_ok=True)
        (results / "corpora" / name).touch()
    site = "account: nlp\npartition: closed\ngpu_partition: closed\nconstraint: a100_80gb\ngpus: 16\n"
    (checkout.folder / "workflow/profiles/slurm/site.yaml").write_text(site)
    with Run(cluster, checkout, *QUEUED, "--rerun-triggers", "mtime") as run:
        run.until(lambda: len(run.jobs()) == len(QUEUED))
        jobs = {facts["Comment"]: facts for facts in run.jobs().values()}
    for comment, asked in QUEUED.values():
        job = jobs[comment]
        assert {key: job.get(key) for key in asked} == asked, comment
        assert job["JobName"].startswith("revela_") and job["Requeue"] == "1"
        assert ("TresPerJob" in job) == ("TresPerJob" in asked)


# --- the same results


@pytest.mark.by_hand
def test_the_same_scores_as_without_slurm(cluster, finished, checkout):
    (checkout.folder / "backbone").symlink_to(finished.folder / "backbone")
    scores = [f"{R}/scores/{system}/coir-small.json" for system in (CELL, "bm25")]
    (checkout.folder / "workflow/profiles/slurm/site.yaml").write_text("modules: [cuda/12.8]\n")
    module = {"BASH_FUNC_module%%": '() { echo "$*" >> modules.txt; }'}  # as Lmod and Environment Modules define it
    with Run(cluster, checkout, *scores, *SMALL, **module) as run:
        assert run.wait() == 0, run.text
        done = run.jobs(states=("COMPLETED",))
    assert (checkout.folder / "modules.txt").read_text() == "load cuda/12.8\n" * len(done)
    run_file = f"{R}/runs/{CELL}/coir-small/docstring-code.run.gz"
    for name in (*scores, run_file):
        assert (checkout.folder / name).read_bytes() == (finished.folder / name).read_bytes(), name
    routes = "--wrap=cat /proc/net/route"
    cluster.run("sbatch", "--wait", f"--output={checkout.folder}/routes.txt", routes)
    assert len((checkout.folder / "routes.txt").read_text().splitlines()) == 1  # a heading, and no way out
    comments = {job["Comment"].split("_wildcards_")[0] for job in done.values()}
    assert {"rule_chunks", "rule_train", "rule_run", "rule_score"} <= comments
    assert not {"rule_dataset", "rule_model", "rule_table"} & comments  # downloads and tables stay where snakemake runs


# --- whatever a cluster does


def trained(folder):
    """SHA-256 of the retriever that a cell ended in."""
    return json.loads((folder / "manifest.json").read_text())["retriever_sha256"]


def reference(checkout):
    """The same cell, trained without any interruption, beside."""
    job = json.loads((checkout.folder / f"{R}/logs/train/{LONG}.json").read_text())
    job |= {"output": "reference/model", "checkpoints": "reference/checkpoints"}
    (checkout.folder / "reference.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "revela.launch", "reference.json"]
    subprocess.run(command, cwd=checkout.folder, env=checkout.environment, check=True, capture_output=True)
    return trained(checkout.folder / "reference/model")


def interrupt(run, habits):
    """Each of the habits in turn, once the training has come further than the last time."""
    reached = 0
    for habit in habits:
        run.until(lambda: run.trainers() and run.checkpoint(LONG) > reached)  # noqa: B023
        reached = run.checkpoint(LONG)
        habit()


@pytest.mark.by_hand
def test_training_goes_on_after_interruptions(cluster, prepared):
    """The trainer killed, and its job taken off the node: fewer steps are done again than lie between checkpoints."""
    with Run(cluster, prepared, f"{R}/models/{LONG}", *SMALL) as run:
        interrupt(run, [run.kill_trainer, run.requeue])
        assert run.wait() == 0, run.text
        jobs = run.jobs("train", ("COMPLETED", "FAILED", "CANCELLED"))
    assert sorted(job["JobState"] for job in jobs.values()) == ["COMPLETED", "FAILED"]
    assert sorted(int(job["Restarts"]) for job in jobs.values()) == [0, 1]
    assert trained(prepared.folder / f"{R}/models/{LONG}") == reference(prepared)
    attempts = usage.attempts(prepared.folder / f"{R}/usage/{LONG}")
    assert [attempt["outcome"] for attempt in attempts][-1] == "complete"
    assert len(attempts) == 3
    assert {attempt["slurm_job"] for attempt in attempts} == jobs.keys()


@pytest.mark.by_hand
def test_jobs_that_a_killed_run_left_are_not_doubled(cluster, prepared):
    """Snakemake is killed; its job trains on. Another run is refused, by the queue and then by the stale lock."""
    target = f"{R}/models/{LONG}"
    with Run(cluster, prepared, target, *SMALL) as run:
        job = next(iter(run.until(lambda: run.jobs("train"))))
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()
        with Run(cluster, prepared, target, *SMALL) as second:
            assert second.wait() != 0
            assert f"wait until they have ended, or stop them: scancel {job}" in second.text
        cluster.run("scancel", job, check=False)
    deadline = time.monotonic() + 600
    while run.jobs("train"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    with Run(cluster, prepared, target, *SMALL) as third:
        assert third.wait() != 0
        assert "--unlock" in third.text


# --- every habit, provoked for real; some need a minute's time limit, so all are left to be run by hand


def assert_finished_once(cluster, checkout, cells):
    """No job was run again after it had ended well, by SLURM's account and by ours."""
    done = [
        job["Comment"]
        for job in cluster.jobs().values()
        if job["WorkDir"] == str(checkout.folder) and job["JobState"] == "COMPLETED"
    ]
    assert len(done) == len(set(done))
    for cell in cells:
        outcomes = [attempt["outcome"] for attempt in usage.attempts(checkout.folder / f"{R}/usage/{cell}")]
        assert outcomes.index("complete") == len(outcomes) - 1, outcomes


@pytest.mark.by_hand
def test_every_habit(cluster, prepared):
    with Run(cluster, prepared, f"{R}/models/{LONG}", *SMALL) as run:

        def time_limit():
            """Of one minute, the shortest there is."""
            for job in run.jobs(states=("RUNNING",)):
                cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=1")
            run.until(lambda: run.jobs(states=("TIMEOUT",)))

        def preempt():
            run.preempt()
            run.until(lambda: any(int(job["Restarts"]) for job in run.jobs("train").values()))

        habits = [run.kill_trainer, run.cancel, run.requeue, run.restart_controller, run.restart_node]
        interrupt(run, [*habits, run.lose_node, preempt, time_limit])
        assert run.wait() == 0, run.text
        states = {
            job["JobState"] for job in run.jobs("train", ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")).values()
        }
    assert states == {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}
    assert trained(prepared.folder / f"{R}/models/{LONG}") == reference(prepared)
    assert_finished_once(cluster, prepared, [LONG])


@pytest.mark.by_hand
def test_no_more_gpus_than_the_site_allows(cluster, checkout):
    """Two cells of four GPUs each, of which a site allows six: one waits for the other, and not in the queue."""
    for name in ("models/llama-3.2-1b", "models/smollm2-135m"):
        (checkout.folder / "results/resources" / name).mkdir(parents=True)
    batches = checkout.folder / "results/corpora/wiki/bs8/batches.parquet"
    batches.parent.mkdir(parents=True)
    batches.touch()
    site = "partition: closed\ngpu_partition: closed\ngpus: 6\n"
    (checkout.folder / "workflow/profiles/slurm/site.yaml").write_text(site)
    cells = [
        f"results/models/revela/wiki/{retriever}/llama-3.2-1b/bs8" for retriever in ("llama-3.2-1b", "smollm2-135m")
    ]
    with Run(cluster, checkout, *cells, "--rerun-triggers", "mtime") as run:
        (first,) = run.until(run.jobs)
        time.sleep(10)
        assert list(run.jobs()) == [first]
        cluster.run("scancel", first)
        run.until(lambda: first not in run.jobs() and len(run.jobs()) == 1)


@pytest.mark.by_hand
def test_preempted_and_cancelled(cluster, prepared):
    """A partition whose preempted jobs are not requeued: the executor alone would wait for ever."""
    (prepared.folder / "workflow/profiles/slurm/site.yaml").write_text("partition: cancelled\n")
    with Run(cluster, prepared, f"{R}/models/{LONG}", *SMALL) as run:
        interrupt(run, [run.preempt])
        run.until(lambda: run.jobs("train", ("PREEMPTED",)))
        assert run.wait() == 0, run.text
    assert trained(prepared.folder / f"{R}/models/{LONG}") == reference(prepared)


@pytest.mark.by_hand
def test_killed_for_memory(cluster, prepared):
    """The second attempt asks for half as much again."""
    prepared.edit("tests/small/config.yaml", "training_mem_mb: 1000", "training_mem_mb: 700")
    with Run(cluster, prepared, f"{R}/models/{CELL}", *SMALL) as run:
        assert run.wait() == 0, run.text
        jobs = sorted(run.jobs("train", ("COMPLETED", "FAILED", "CANCELLED", "OUT_OF_MEMORY")).items())
    assert [job["MinMemoryNode"] for _, job in jobs][:2] == ["700M", "1050M"]
    assert jobs[-1][1]["JobState"] == "COMPLETED"


@pytest.mark.by_hand
def test_full_disk(cluster, prepared):
    """Checkpoints do not fit; once there is room the training goes on."""
    folder = prepared.folder / f"{R}/checkpoints"
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder]
    cluster.run(*mount)
    try:
        with Run(cluster, prepared, f"{R}/models/{LONG}", *SMALL) as run:
            run.until(lambda: run.jobs("train", ("FAILED",)))
            log = prepared.folder / f"{R}/logs/train/{LONG}.log"
            run.until(lambda: "older checkpoints are as they were" in log.read_text())
            assert run.checkpoint(LONG) == 0
            cluster.run("mount", "-o", "remount,size=100m", folder)
            assert run.wait() == 0, run.text
    finally:
        cluster.run("umount", folder)
    assert trained(prepared.folder / f"{R}/models/{LONG}") == reference(prepared)


@pytest.mark.by_hand
def test_twenty_random_interruptions(cluster, tmp_path):
    """A table, made once in peace and once on a cluster that interrupts twenty times."""
    peaceful, interrupted = Checkout(tmp_path / "peaceful"), Checkout(tmp_path / "interrupted")
    for checkout in (peaceful, interrupted):
        make_backbone(checkout.folder / "backbone", bos=True)
        checkout.edit("tests/small/config.yaml", "max_steps: 6", "max_steps: 400")
    table = [f"{R}/tables/table1.{suffix}" for suffix in ("tex", "csv", "md")]
    printed, status = peaceful.snakemake(*table, *SMALL, "--cores", "2")
    assert status == 0, printed

    luck, count = random.Random(0), 0
    with Run(cluster, interrupted, *table, *SMALL, "--retries", "30") as run:
        habits = [run.kill_trainer, run.cancel, run.requeue, run.preempt]
        habits += [run.restart_node, run.lose_node, run.restart_controller]
        while run.process.poll() is None and count < 20:
            time.sleep(luck.uniform(1, 15))
            if run.jobs(states=("RUNNING",)):
                luck.choice(habits)()
                count += 1
        assert run.wait() == 0, run.text
    assert count == 20
    for name in table:
        assert (interrupted.folder / name).read_bytes() == (peaceful.folder / name).read_bytes(), name
    cells = [f"{method}/code/random/random/bs4" for method in ("revela", "replug")]
    assert_finished_once(cluster, interrupted, [*cells, "contriever/code/random/none/bs4"])
