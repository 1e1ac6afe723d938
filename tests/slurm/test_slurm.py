"""The workflow on a real SLURM of one node: what jobs ask for, and that tables survive whatever a cluster does.

What takes minutes is marked `by_hand`: `pytest -s -m by_hand tests/slurm`.
"""

import contextlib
import json
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime

import pytest
from checkout import Checkout
from cluster import started
from conftest import make_backbone
from run import CELL, SMALL, R, Run, write_inputs

from revela.plan import usage

LONG = f"{CELL}-long"
CELLS = [CELL, "replug/code/random/random/bs4", "contriever/code/random/none/bs4"]
TABLE = [f"{R}/tables/table1.{suffix}" for suffix in ("tex", "csv", "md")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    yield from started(tmp_path_factory)


@pytest.fixture
def checkout(tmp_path):
    """A checkout without results, on a cluster without a partition of its own."""
    return Checkout(tmp_path / "checkout")


@pytest.fixture
def prepared(checkout):
    """A checkout in which everything is there to train a cell."""
    checkout.edit("tests/small/config.yaml", "max_steps: 400", "max_steps: 200")
    checkout.edit("tests/small/config.yaml", "checkpoint_every: 2", "checkpoint_every: 10")
    write_inputs(checkout)
    (checkout.folder / R / "checkpoints").mkdir()
    return checkout


def set_site(checkout, **values):
    (checkout.folder / "workflow/profiles/slurm/site.yaml").write_text(json.dumps(values))


# --- what jobs ask for, by SLURM's own records


@pytest.fixture
def queue(cluster, checkout):
    """Submits jobs of the paper whose inputs seem to be there into a partition that starts none."""

    def submit(targets, **site):
        results = checkout.folder / "results"
        (results / "resources/models").mkdir(parents=True)
        for name in ("smollm2-135m", "llama-3.2-1b", "llama-3.1-8b"):  # as files, for folders would be examined
            (results / "resources/models" / name).touch()
        for name in ("beir-hotpotqa", "wikipedia", "fineweb-edu"):
            (results / "resources/datasets" / name).mkdir(parents=True)
        (results / "resources/punkt").mkdir()
        for name in ("wiki/bs8/batches.parquet", "wiki/bs8/pairs.parquet", "code/chunks.parquet"):
            (results / "corpora" / name).parent.mkdir(parents=True, exist_ok=True)
            (results / "corpora" / name).touch()
        set_site(checkout, partition="closed", gpu_partition="closed", **site)
        return Run(cluster, checkout, *targets, "--rerun-triggers", "mtime")

    return submit


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
        {"NumCPUs": "8", "TresPerJob": "gres:gpu:a100:4", "NumNodes": "1-1", "TimeLimit": "05:40:00"},
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
        {"NumCPUs": "8", "TresPerJob": "gres:gpu:a100:4", "NumNodes": "1-1", "MinMemoryNode": "134000M"},
    ),
    "results/runs/bm25/beir/hotpotqa.run.gz": (
        "rule_run_bm25_wildcards_bm25_beir_hotpotqa",
        {"NumCPUs": "1", "MinMemoryNode": "19000M", "TimeLimit": "00:40:00", "Features": "(null)"},
    ),
}


def test_what_jobs_of_the_paper_ask_for(queue):
    with queue(QUEUED, account="nlp", constraint="a100_80gb", gpus=16) as run:
        run.until(lambda: len(run.jobs()) == len(QUEUED))
        jobs = {facts["Comment"]: facts for facts in run.jobs().values()}
    for comment, asked in QUEUED.values():
        job = jobs[comment]
        assert {key: job.get(key) for key in asked} == asked, comment
        assert job["JobName"].startswith("revela_") and job["Requeue"] == "1"
        assert ("TresPerJob" in job) == ("TresPerJob" in asked)


def test_no_more_gpus_than_the_site_allows(queue, cluster):
    """Two cells of four GPUs each, of which a site allows six: one waits for the other, and not in the queue."""
    cells = [f"results/models/revela/wiki/{name}/llama-3.2-1b/bs8" for name in ("llama-3.2-1b", "smollm2-135m")]
    with queue(cells, gpus=6) as run:
        (first,) = run.until(run.jobs)
        time.sleep(3)
        assert list(run.jobs()) == [first]
        cluster.run("scancel", first)
        run.until(lambda: first not in run.jobs() and len(run.jobs()) == 1)


# --- the same results


def assert_finished_once(cluster, checkout, cells):
    """By SLURM's account no job was run again after it had ended well; by ours no cell was trained on after it was
    complete, nor by two jobs at a time."""
    done = [
        job["Comment"]
        for job in cluster.jobs().values()
        if job["WorkDir"] == str(checkout.folder) and job["JobState"] == "COMPLETED"
    ]
    assert len(done) == len(set(done))
    for cell in cells:
        attempts = usage.attempts(checkout.folder / f"{R}/usage/{cell}")
        assert [attempt["outcome"] for attempt in attempts].index("complete") == len(attempts) - 1, attempts
        starts = [datetime.fromisoformat(attempt["started"]).timestamp() for attempt in attempts]
        for start, attempt, following in zip(starts, attempts, starts[1:]):
            assert start + attempt["seconds"] <= following + 1, attempts  # times are in whole seconds


@contextlib.contextmanager
def modules(cluster, checkout):
    """A login shell that knows `module`, as with Lmod; here it writes down what it is asked for."""
    profile = checkout.folder / "profile"
    profile.write_text('module() { echo "$*" >> modules.txt; }\n')
    cluster.run("mount", "--bind", profile, "/etc/profile")
    try:
        yield
    finally:
        cluster.run("umount", "/etc/profile")


def test_the_same_table_as_without_slurm(cluster, finished, checkout):
    """From text to Table 1, on a node without network."""
    (checkout.folder / "backbone").symlink_to(finished.folder / "backbone")
    set_site(checkout, modules=["cuda/12.8"])
    with modules(cluster, checkout), Run(cluster, checkout, *TABLE, *SMALL) as run:
        assert run.wait() == 0, run.text
        jobs = run.jobs(states=("COMPLETED",))
    for name in (*TABLE, f"{R}/runs/{CELL}/coir-small/docstring-code.run.gz"):
        assert (checkout.folder / name).read_bytes() == (finished.folder / name).read_bytes(), name
    assert run.jobs(states=("FAILED", "CANCELLED", "TIMEOUT")) == {}
    assert_finished_once(cluster, checkout, CELLS)
    rules = {job["Comment"].removeprefix("rule_").split("_wildcards_")[0] for job in jobs.values()}
    assert {"chunks", "batches", "pairs", "replug_scores", "train", "run", "run_bm25", "score"} == rules  # and no table
    assert (checkout.folder / "modules.txt").read_text() == "load cuda/12.8\n" * len(jobs)
    routes = "--wrap=cat /proc/net/route"
    cluster.run("sbatch", "--wait", f"--output={checkout.folder}/routes.txt", routes)
    assert len((checkout.folder / "routes.txt").read_text().splitlines()) == 1  # a heading, and no way out


# --- whatever a cluster does


def trained(folder):
    """SHA-256 of the retriever that a cell ended in."""
    return json.loads((folder / "manifest.json").read_text())["retriever_sha256"]


def reference(checkout):
    """The same cell, trained without any interruption, beside."""
    job = json.loads((checkout.folder / f"{R}/logs/train/{LONG}.json").read_text())
    job |= {"output": "reference/model", "checkpoints": "reference/checkpoints"}
    (checkout.folder / "reference.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "revela.training.launch", "reference.json"]
    subprocess.run(command, cwd=checkout.folder, env=checkout.environment, check=True, capture_output=True)
    return trained(checkout.folder / "reference/model")


def interrupt(run, habits):
    """Each of the habits in turn, halfway between two checkpoints and further than the last time.

    Returns how many steps each cost: those done since the newest checkpoint when the trainer was gone.
    """
    reached, lost = 0, {}
    for habit in habits:
        run.until(lambda: (done := run.checkpoint(LONG)) > reached and run.steps(LONG) - done >= 5)  # noqa: B023
        before, reached = run.until(run.trainers), run.checkpoint(LONG)
        habit()
        if habit.__name__.startswith("restart"):
            assert before.keys() == run.trainers().keys(), habit  # it trains on
            lost[habit.__name__] = 0
        else:
            run.until(lambda: not before.keys() & run.trainers().keys())  # noqa: B023
            lost[habit.__name__] = run.steps(LONG) - run.checkpoint(LONG)
    return lost


def test_training_goes_on_after_interruptions(cluster, prepared):
    """The work killed, the job taken off its node, Ctrl-C: no more is done again than what lies between checkpoints."""
    with Run(cluster, prepared, f"{R}/models/{LONG}", *SMALL) as run:
        lost = interrupt(run, [run.kill_work, run.requeue])
        run.until(run.trainers)
        run.interrupt()
        assert run.wait() != 0
        cluster.wait_for_jobs()
    assert max(lost.values()) < 10
    with Run(cluster, prepared, f"{R}/models/{LONG}", *SMALL) as run:
        assert all(b"HF_HUB_OFFLINE=1" in environment for environment in run.until(run.trainers).values())
        assert run.wait() == 0, run.text
        jobs = run.jobs("train", ("COMPLETED", "FAILED", "CANCELLED"))
    assert [job["JobState"] for _, job in sorted(jobs.items())] == ["FAILED", "CANCELLED", "COMPLETED"]
    assert [int(job["Restarts"]) for _, job in sorted(jobs.items())] == [0, 1, 0]
    assert trained(prepared.folder / f"{R}/models/{LONG}") == reference(prepared)
    assert_finished_once(cluster, prepared, [LONG])
    attempts = usage.attempts(prepared.folder / f"{R}/usage/{LONG}")
    assert len(attempts) == 4
    assert {attempt["slurm_job"] for attempt in attempts} == jobs.keys()


def test_jobs_that_are_left_are_not_doubled(cluster, prepared):
    """Snakemake is killed; its job stays. Another run is refused, by the queue and then by the stale lock; so is one
    beside a job of another user."""
    target = f"{R}/models/{LONG}"
    set_site(prepared, partition="closed")

    def refusal():
        with Run(cluster, prepared, target, *SMALL) as run:
            assert run.wait() != 0
        return run.text.splitlines()[-1], run.text

    queued = (
        f"SLURM still has jobs of another run in {prepared.folder}, by {{}}: wait until they have ended, or stop them: "
    )
    with Run(cluster, prepared, target, *SMALL) as run:
        (job,) = run.until(lambda: run.jobs("train"))
        run.kill()
        assert refusal()[0] == queued.format("root") + f"scancel {job}"
    cluster.wait_for_jobs()
    assert "--unlock" in refusal()[1]
    printed, status = prepared.snakemake("--unlock", "--profile", "slurm", *SMALL)
    assert status == 0, printed

    other = (
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "sbatch",
        "--parsable",
        "--partition=closed",
    )
    job = cluster.run(*other, "--job-name=revela_other", f"--chdir={prepared.folder}", "--wrap=true").strip()
    assert refusal()[0] == queued.format("nobody") + f"scancel {job}"
    cluster.run("scancel", job)


# --- every habit, provoked for real; to be run by hand


@pytest.mark.by_hand
def test_every_habit(cluster, prepared):
    """Prints how many steps each cost; a checkpoint is written every ten."""
    prepared.edit("tests/small/config.yaml", "max_steps: 200", "max_steps: 400")
    with Run(cluster, prepared, f"{R}/models/{LONG}", *SMALL) as run:
        habits = [run.kill_work, run.cancel, run.requeue, run.restart_controller, run.restart_node]
        lost = interrupt(run, [*habits, run.lose_node, run.preempt, run.time_limit])
        print("\nsteps lost:", lost)
        run.until(run.trainers)
        run.restart_controller(seconds=90)  # longer than commands wait for an answer; five of them in a row
        assert run.wait() == 0, run.text
        jobs = run.jobs("train", ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"))
    assert max(lost.values()) < 10
    assert [job["JobState"] for _, job in sorted(jobs.items())] == ["FAILED", "CANCELLED", "TIMEOUT", "COMPLETED"]
    assert [int(job["Restarts"]) for _, job in sorted(jobs.items())] == [0, 0, 3, 0]
    assert trained(prepared.folder / f"{R}/models/{LONG}") == reference(prepared)
    assert_finished_once(cluster, prepared, [LONG])


@pytest.mark.by_hand
def test_submitted_while_the_controller_is_away(cluster, prepared):
    """sbatch would fail within seconds, and each attempt with it."""
    with Run(cluster, prepared, f"{R}/models/{LONG}", *SMALL, "--retries", "0") as run:
        run.until(lambda: "SLURM run ID" in run.text)
        run.restart_controller(seconds=30)
        assert run.wait() == 0, run.text


@pytest.mark.by_hand
def test_preempted_and_cancelled(cluster, prepared):
    """A partition whose preempted jobs are not requeued: the executor alone would wait for ever."""
    set_site(prepared, partition="cancelled")
    with Run(cluster, prepared, f"{R}/models/{LONG}", *SMALL) as run:
        interrupt(run, [run.preempt])
        run.until(lambda: run.jobs("train", ("PREEMPTED",)))
        assert run.wait() == 0, run.text
    assert trained(prepared.folder / f"{R}/models/{LONG}") == reference(prepared)


@pytest.mark.by_hand
def test_killed_for_memory(cluster, prepared):
    """The second attempt asks for half as much again."""
    prepared.edit("tests/small/config.yaml", "training_mem_mb: 2000", "training_mem_mb: 700")
    with Run(cluster, prepared, f"{R}/models/{CELL}", *SMALL) as run:
        assert run.wait() == 0, run.text
        jobs = sorted(run.jobs("train", ("COMPLETED", "FAILED", "CANCELLED", "OUT_OF_MEMORY")).items())
    assert [job["MinMemoryNode"] for _, job in jobs][:2] == ["700M", "1050M"]
    assert jobs[-1][1]["JobState"] == "COMPLETED"


@pytest.mark.by_hand
def test_full_disk(cluster, prepared):
    """Checkpoints do not fit; once there is room the training goes on."""
    folder = prepared.folder / f"{R}/checkpoints"
    cluster.run("mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder)
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
    """A table, made once in peace and once on a cluster that interrupts twenty times, from its first jobs to training."""
    peaceful, interrupted = Checkout(tmp_path / "peaceful"), Checkout(tmp_path / "interrupted")
    for checkout in (peaceful, interrupted):
        make_backbone(checkout.folder / "backbone", bos=True)
        checkout.edit("tests/small/config.yaml", "max_steps: 6", "max_steps: 100")
    printed, status = peaceful.snakemake(*TABLE, *SMALL, "--cores", "2")
    assert status == 0, printed

    luck, done = random.Random(0), []
    with Run(cluster, interrupted, *TABLE, *SMALL, "--retries", "30") as run:
        habits = [run.kill_work, run.cancel, run.requeue, run.preempt]
        habits += [run.restart_node, run.lose_node, run.restart_controller]
        to_come = luck.sample(3 * habits, 20)  # each of them twice at least
        while run.process.poll() is None and to_come:
            time.sleep(luck.uniform(1, 12))
            ended = len(run.jobs(states=("COMPLETED",)))
            if len(done) <= 4 + 1.5 * ended and run.workers():
                habit = to_come.pop()
                habit()
                done.append(habit.__name__)
        assert run.wait() == 0, run.text
    print("\n", Counter(done))
    assert len(done) == 20 and len(set(done)) == len(habits)
    for name in TABLE:
        assert (interrupted.folder / name).read_bytes() == (peaceful.folder / name).read_bytes(), name
    assert_finished_once(cluster, interrupted, CELLS)
    assert any(len(usage.attempts(interrupted.folder / f"{R}/usage/{cell}")) > 1 for cell in CELLS)
    assert interrupted.plan(*TABLE, *SMALL) == {}
