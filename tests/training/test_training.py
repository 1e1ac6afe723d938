"""Real runs of the training loop, each in processes of its own, forked from a server that has imported it already."""

import contextlib
import itertools
import json
import math
import multiprocessing
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TEXTS
from safetensors.torch import load_file

from revela.lookahead import lookahead
from revela.objectives import revela as revela_module
from revela.provenance import folder_sha256, read_manifest
from revela.retriever import Retriever
from revela.study import reason
from revela.study.methods import METHODS
from revela.study.settings import Training
from revela.training import TrainingError, advice, checkpoint, entry, launch, loop
from revela.training.engine import load_models
from revela.training.job import Job, read_job
from revela.training.loop import count_steps
from revela.training.rows import Rows, seed_of

B = 4
SETTINGS = {
    "retriever_max_length": 32,
    "lm_max_length": 32,
    "temperature": 0.05,
    "lora": {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj", "v_proj", "down_proj"]},
    "learning_rate": 0.03,
    "warmup_steps": 2,
    "batches_per_step": 4,
    "max_steps": 8,
    "precision": "fp32",
    "zero_stage": 1,
}
MACHINE = {"checkpoint_every": 2, "time_budget_minutes": None, "gradient_checkpointing": None}
FULL = {"lora": None, "learning_rate": 0.003}

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        "revela.training.entry",
        "revela.objectives.contriever",
        "revela.objectives.replug",
        "deepspeed.runtime.zero.muon.muon_optimizer",
        "peft.tuners.lora",
        "torch.distributed.run",
        "transformers.models.llama.modeling_llama",
    ]
)


# --- jobs and their processes


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Training files of batches of 4 chunks: 24 rows of text, scores of an imagined LM for them, and pairs."""
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)
    words = " ".join(TEXTS).split()

    def chunks():
        return [" ".join(rng.choices(words, k=rng.randint(4, 12))) for _ in range(B)]

    rows = [{"src": "code", "text": chunks(), "document": ["a", "b", "a", "b"]} for _ in range(24)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "batches.parquet")
    np.save(folder / "scores.npy", np.random.default_rng(0).random((24, B, B), np.float32))
    pairs = [{"query": row["text"][0], "passages": row["text"], "src": "code"} for row in rows]
    pq.write_table(pa.Table.from_pylist(pairs), folder / "pairs.parquet")
    return folder


@pytest.fixture(scope="module")
def write_job(data, backbone, lm):
    """Writes the file of a job, settings changed by keyword, into a folder and returns its path."""

    def write(folder, method="revela", **changes):
        machine = {name: changes.pop(name, value) for name, value in MACHINE.items()}
        start = changes.pop("start", None)
        job = {
            **machine,
            "cell": f"{method}/code/tiny/{'tiny' if method == 'revela' else 'none'}/bs{B}",
            "training": SETTINGS | changes | ({"start": "by"} if start else {}),
            "start": start and str(start),
            "retriever": str(backbone),
            "lm": str(lm) if method == "revela" else None,
            "data": str(data / ("pairs.parquet" if method == "contriever" else "batches.parquet")),
            "scores": str(data / "scores.npy") if method == "replug" else None,
            "output": str(folder / "output"),
            "checkpoints": str(folder / "checkpoints"),
        }
        folder.mkdir(exist_ok=True)
        (folder / "job.json").write_text(json.dumps(job))
        return folder / "job.json"

    return write


def work(job, environment, prepare):
    """The life of one process of a run."""
    os.environ |= environment
    os.dup2(os.open(job.with_name("messages"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    if prepare:
        prepare()
    sys.exit(entry.main([str(job)]))


class Run:
    """A run under way, each of its processes prepared by a function of this file."""

    def __init__(self, job, number=1, prepare=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        together = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), **together} for rank in range(number)]
        environments = ranks if number > 1 else [{}]
        self.processes = [processes.Process(target=work, args=(job, env, prepare)) for env in environments]
        for process in self.processes:
            process.start()

    def end(self):
        """The exit status of each process."""
        for process in self.processes:
            process.join(600)
        return {process.exitcode for process in self.processes}

    def fall(self):
        """Waits until the first process has been killed, and kills the others."""
        self.processes[0].join(600)
        assert self.processes[0].exitcode == -signal.SIGKILL
        for process in self.processes[1:]:
            process.kill()
            process.join()


def run(job, number=1, prepare=None, status=0):
    """Runs a job to its end and returns its folder."""
    assert Run(job, number, prepare).end() == {status}, messages(job.parent)
    return job.parent


def objective_of(job):
    """The objective of a job on models of its own."""
    kind = METHODS[job.cell.partition("/")[0]].load_objective()
    return kind(job.training, *load_models(job.training, job.retriever, job.lm))


def messages(folder):
    return (folder / "messages").read_text()


def log(folder):
    return [json.loads(line) for line in (folder / "output" / "log.jsonl").read_text().splitlines()]


def losses(folder):
    return [record["loss"] for record in log(folder)]


def weights(folder):
    """The bytes of all trained weights."""
    files = sorted((folder / "output").rglob("*.safetensors"))
    assert files
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, write_job):
    """The folder of a run without interruption, by ZeRO stage and number of processes."""
    done = {}

    def get(stage, number):
        if (stage, number) not in done:
            folder = tmp_path_factory.mktemp(f"stage{stage}-{number}")
            done[stage, number] = run(write_job(folder, zero_stage=stage), number)
        return done[stage, number]

    return get


# --- what a run does


def test_a_run_learns_and_exports(undisturbed, backbone, lm):
    folder = undisturbed(1, 1)
    output, records = folder / "output", log(folder)
    assert [record["step"] for record in records] == list(range(1, 9))
    assert records[-1]["loss"] < records[0]["loss"] - 0.2
    fields = {
        "lr",
        "grad_norm",
        "seconds",
        "tokens_per_second",
        "tflops",
        "h_loss",
        "peak_memory_gb",
        "elapsed",
        "gpu_hours",
    }
    assert fields <= set(records[0]) and all(record["tflops"] > 0 for record in records)
    assert not (folder / "checkpoints").exists()
    start = Retriever.from_backbone(backbone, max_length=32, query_prefix="query: ")
    trained = Retriever.load(output / "retriever")
    assert abs(trained.encode(TEXTS) - start.encode(TEXTS)).max() > 0.01
    assert {path.name for path in (output / "lm").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads((output / "settings.json").read_text())["learning_rate"] == 0.03
    assert list((output / "tensorboard").iterdir())
    manifest = read_manifest(output, verify=True)
    assert manifest["cell"] == "revela/code/tiny/tiny/bs4" and manifest["steps"] == 8 and manifest["processes"] == 1
    assert set(manifest["inputs"]) == {"retriever", "lm", "data"}


def test_full_fine_tuning_exports_whole_models(tmp_path, write_job):
    output = run(write_job(tmp_path, **FULL, zero_stage=0)) / "output"
    assert losses(tmp_path)[-1] < losses(tmp_path)[0] - 0.2
    assert Retriever.load(output / "retriever").encode(TEXTS).shape == (6, 32)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in (output / "lm").iterdir()}


@pytest.mark.parametrize("method", ["replug", "contriever"])
def test_the_baselines_train_the_retriever_alone(tmp_path, write_job, method):
    path = write_job(tmp_path, method, max_steps=2, zero_stage=0, lm_temperature=0.1)
    folder, job = run(path), read_job([str(path)])
    rows, objective = Rows(job.data, job.scores, 42), objective_of(job)
    batches = [objective.collate(rows[position]) for position in range(4)]
    expected = sum(objective(batch)[0].item() for batch in batches) / sum(map(objective.count, batches))
    assert log(folder)[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert len(log(folder)) == 2 and not (folder / "output" / "lm").exists()
    assert Retriever.load(folder / "output" / "retriever").encode(TEXTS).shape == (6, 32)


def test_a_frozen_language_model_is_not_exported(tmp_path, write_job):
    folder = run(write_job(tmp_path, max_steps=2, freeze_lm=True))
    assert not (folder / "output" / "lm").exists() and (folder / "output" / "retriever").exists()


def head_in_pieces():
    revela_module.LOGITS = 2_000


@pytest.mark.parametrize(("stage", "number", "prepare"), [(1, 1, None), (3, 2, head_in_pieces)])
def test_bfloat16_bases_carry_float32_adapters(tmp_path, write_job, undisturbed, stage, number, prepare):
    job = write_job(tmp_path, precision="bf16", gradient_checkpointing=True, zero_stage=stage)
    folder = run(job, number, prepare)
    for part in ("retriever", "lm"):
        tensors = load_file(folder / "output" / part / "adapter_model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        assert all(tensor.any() for tensor in tensors.values())
    assert any((tensor != tensor.bfloat16().float()).any() for tensor in tensors.values())
    np.testing.assert_allclose(losses(folder), losses(undisturbed(1, 1)), rtol=0.02)


def test_gradient_checkpointing_changes_nothing(tmp_path, write_job, undisturbed):
    folder = run(write_job(tmp_path, gradient_checkpointing=True, max_steps=8))
    np.testing.assert_allclose(losses(folder), losses(undisturbed(1, 1)), rtol=1e-5)


# --- the gate


RAMP = {"cross_attention": {"gate": 1.0, "ramp": {"start": 0.1, "steps": 6, "shape": "cosine"}}}
LEARNED = {"cross_attention": {"gate": 0.05, "learned": "head"}}


@pytest.fixture(scope="module")
def gated(tmp_path_factory, write_job):
    """The folder of a run with learned gates, its language model frozen or not."""
    done = {}

    def get(freeze_lm):
        if freeze_lm not in done:
            folder = tmp_path_factory.mktemp(f"gated-{freeze_lm}")
            done[freeze_lm] = run(write_job(folder, **LEARNED, freeze_lm=freeze_lm))
        return done[freeze_lm]

    return get


def test_learned_gates_are_trained_logged_and_exported(gated):
    output, records = gated(True) / "output", log(gated(True))
    exported = load_file(output / "gate.safetensors")
    assert exported.keys() == {"gate"} and exported["gate"].shape == (2, 4)
    assert (exported["gate"] != 0.05).all() and exported["gate"].dtype == torch.float32
    assert records[0]["gate"] == pytest.approx(0.05) and records[0]["gate_1"] == pytest.approx(0.05)
    assert records[-1]["gate"] != pytest.approx(0.05)
    assert json.loads((output / "settings.json").read_text())["cross_attention"]["learned"] == "head"
    assert not (output / "lm").exists() and read_manifest(output, verify=True)
    gain = [json.loads(line) for line in (output / "gain.jsonl").read_text().splitlines()]
    assert [line["step"] for line in gain] == [0]


@pytest.mark.parametrize(("stage", "number"), [(0, 1), (2, 1), (3, 1), (0, 2), (1, 2), (2, 2), (3, 2)])
@pytest.mark.parametrize("freeze_lm", [False, True])
def test_neither_stage_nor_processes_change_learned_gates(tmp_path, write_job, gated, freeze_lm, stage, number):
    job = write_job(
        tmp_path, **LEARNED, freeze_lm=freeze_lm, zero_stage=stage, gradient_checkpointing=(stage, number) == (3, 2)
    )
    found, expected = run(job, number), gated(freeze_lm)
    np.testing.assert_allclose(losses(found), losses(expected), rtol=1e-5)
    gates = [load_file(folder / "output" / "gate.safetensors")["gate"].numpy() for folder in (found, expected)]
    np.testing.assert_allclose(*gates, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "stage", "number"),
    [(RAMP, 1, 1), (RAMP | {"freeze_lm": True}, 0, 1), (LEARNED | {"freeze_lm": True}, 1, 1), (LEARNED, 3, 2)],
)
def test_a_killed_run_with_a_gate_ends_in_the_same_weights(tmp_path, write_job, changes, stage, number):
    expected = run(write_job(tmp_path / "expected", **changes, zero_stage=stage), number)
    job = write_job(tmp_path / "killed", **changes, zero_stage=stage)
    Run(job, number, partial(interrupt, signal.SIGKILL, 22 // number)).fall()
    run(job, number)
    assert_same(job.parent, expected)
    if "ramp" in changes["cross_attention"]:
        gates = [record["gate"] for record in log(job.parent)]
        assert gates == [record["gate"] for record in log(expected)]
        assert gates[0] == pytest.approx(0.1) and gates[3] == pytest.approx(0.55) and gates[6:] == [1.0, 1.0]


def test_a_ramp_of_the_loop_is_that_of_plain_steps(tmp_path, write_job):
    """The loss of each step is that of the objective at that step; nothing has moved after the first."""
    path = write_job(tmp_path, **RAMP, max_steps=2, zero_stage=0)
    folder, job = run(path), read_job([str(path)])
    rows, objective = Rows(job.data, None, 42), objective_of(job).eval()
    with torch.no_grad():
        for step, places in ((1, range(4)), (2, range(4, 8))):
            objective.step = step
            batches = [objective.collate(rows[place]) for place in places]
            expected = sum(objective(batch)[0].item() for batch in batches) / sum(map(objective.count, batches))
            assert log(folder)[step - 1]["loss"] == pytest.approx(expected, rel=0.02)  # dropout
            assert log(folder)[step - 1]["gate"] == objective.gate()


# --- against plain loops


@pytest.mark.parametrize(("stage", "number"), [(0, 1), (2, 1), (3, 1), (0, 2), (1, 2), (2, 2), (3, 2)])
def test_neither_stage_nor_processes_change_the_losses(undisturbed, stage, number):
    """Four batches in a step, one after the other, are two on each of two processes: with dropout, too."""
    expected, found = undisturbed(1, 1), undisturbed(stage, number)
    np.testing.assert_allclose(losses(found), losses(expected), rtol=1e-5)
    norms = [[record["grad_norm"] for record in log(folder)] for folder in (found, expected)]
    np.testing.assert_allclose(*norms, rtol=1e-4)


def test_the_loop_is_plain_adamw_on_the_mean_over_all_tokens(tmp_path, write_job):
    """The same steps in a few lines of torch give the same losses and the same weights."""
    job = write_job(tmp_path, **FULL, zero_stage=0, max_steps=6, max_grad_norm=2.0, weight_decay=0.01)
    folder, job = run(job), read_job([str(job)])
    settings, rows = job.training, Rows(job.data, None, job.training.seed)
    objective = objective_of(job).train()
    optimizer = torch.optim.AdamW(objective.parameters(), weight_decay=0.01)
    expected = []
    for step, rate in enumerate([0, 1 / 2, 1, 3 / 4, 2 / 4, 1 / 4]):
        batches = [objective.collate(rows[4 * step + place]) for place in range(4)]
        loss = sum(objective(batch)[0] for batch in batches) / sum(objective.count(batch) for batch in batches)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), 2.0)
        optimizer.param_groups[0]["lr"] = rate * settings.learning_rate
        optimizer.step()
        expected.append((loss.item(), norm.item(), rate * settings.learning_rate))
    found = [(record["loss"], record["grad_norm"], record["lr"]) for record in log(folder)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)
    assert max(norm for _, norm, _ in found) > 2 > min(norm for _, norm, _ in found), "clipping must matter"
    saved = load_file(folder / "output" / "retriever" / "model.safetensors")
    for name, tensor in objective.retriever.backbone.state_dict().items():
        torch.testing.assert_close(saved[name], tensor, rtol=0, atol=2e-5)


def test_the_logarithmic_warmup(tmp_path, write_job):
    """log(step) / log(warmup_steps + 1) of the rate as DeepSpeed has it, which its linear one reaches at the same step."""
    job = write_job(tmp_path, zero_stage=0, max_steps=6, warmup_steps=4, warmup="log")
    found = [record["lr"] / read_job([str(job)]).training.learning_rate for record in log(run(job))]
    rising = [math.log(step + 1) / math.log(4) for step in range(4)]
    np.testing.assert_allclose(found[:4], rising, rtol=1e-6)


# --- shared batches

STILL = {"lora": SETTINGS["lora"] | {"dropout": 0.0}}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, write_job):
    """The folder of a run of one process without dropout, by method and further changes."""
    done = {}

    def get(method="revela", **changes):
        key = json.dumps([method, changes])
        if key not in done:
            folder = tmp_path_factory.mktemp(f"alone-{len(done)}")
            done[key] = run(write_job(folder, method, **STILL | changes))
        return done[key]

    return get


@pytest.mark.parametrize(
    ("stage", "number", "shared", "changes"),
    [
        (0, 2, 2, {}),
        (1, 4, 2, {}),
        (2, 2, 2, {}),
        (3, 4, 4, {"gradient_checkpointing": True}),
        (1, 2, 2, {"freeze_lm": True, "temperature": 1e-2, "gradient_checkpointing": True}),
        (3, 2, 2, {"freeze_lm": True, **LEARNED}),
    ],
)
def test_processes_that_share_batches_change_nothing(tmp_path, write_job, alone, stage, number, shared, changes):
    """Neither losses, gradients and all else that is logged, nor what is watched."""
    job = write_job(tmp_path, **STILL | changes, zero_stage=stage, processes_per_batch=shared)
    found, expected = run(job, number), alone(**changes)
    np.testing.assert_allclose(losses(found), losses(expected), rtol=1e-5)
    machine = ("seconds", "tokens_per_second", "tflops", "peak_memory_gb", "elapsed")
    for here, there in zip(log(found), log(expected)):
        logged = [{key: value for key, value in record.items() if key not in machine} for record in (here, there)]
        assert logged[0] == pytest.approx(logged[1], rel=1e-3)
    for name in ("dynamics.jsonl", "gain.jsonl"):
        first, second = (
            json.loads((folder / "output" / name).read_text().splitlines()[0]) for folder in (found, expected)
        )
        for key in first.keys() - {"document"}:
            np.testing.assert_allclose(first[key], second[key], atol=2e-6, err_msg=key)


@pytest.mark.parametrize(
    ("method", "changes"),
    [("replug", {"lm_temperature": 0.1}), ("contriever", {}), ("contriever", {"shared_negatives": "step"})],
)
def test_the_baselines_share_batches(tmp_path, write_job, alone, method, changes):
    job = write_job(tmp_path, method, **STILL | changes, processes_per_batch=2)
    found, expected = run(job, 2), alone(method, **changes)
    np.testing.assert_allclose(losses(found), losses(expected), rtol=1e-5)
    kind = {"replug": "agreement", "contriever": "accuracy"}[method]
    assert [record[kind] for record in log(found)] == pytest.approx([record[kind] for record in log(expected)])


@pytest.mark.parametrize("stage", [1, 3])
def test_a_killed_run_of_shared_batches_ends_in_the_same_weights(tmp_path, write_job, stage):
    """With dropout, of which each process has its own."""
    expected = run(write_job(tmp_path / "expected", zero_stage=stage, processes_per_batch=2), 2)
    job = write_job(tmp_path / "killed", zero_stage=stage, processes_per_batch=2)
    Run(job, 2, partial(interrupt, signal.SIGKILL, 22)).fall()
    run(job, 2)
    assert_same(job.parent, expected)


def test_parts_of_a_batch_have_masks_of_their_own():
    seeds = {seed_of(42, position, place) for position in range(20) for place in range(4)}
    assert len(seeds) == 80
    assert seed_of(42, 7) == seed_of(42, 7, 0) == 17091344363464832916


def test_one_process_that_is_killed_ends_the_run_with_one_line(tmp_path, write_job):
    job = write_job(tmp_path, processes_per_batch=2, max_steps=10_000, checkpoint_every=10)
    command = [sys.executable, "-m", "revela.training.launch", str(job), "--processes=2", "--threads=2"]
    launcher = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "checkpoints").glob("step-*")):
        assert launcher.poll() is None
        time.sleep(0.01)
    ranks = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(job).encode() in (path / "cmdline").read_bytes():
                environment = dict(pair.split("=", 1) for pair in (path / "environ").read_text().split("\0") if pair)
                ranks[environment.get("RANK")] = int(path.name)
    os.kill(ranks["1"], signal.SIGKILL)
    said = launcher.communicate(timeout=60)[1]
    assert launcher.returncode == 128 + signal.SIGKILL
    (line,) = [line for line in said.splitlines() if "rror" in line]
    assert line.startswith("error: process 1 of the run was killed by SIGKILL")


def test_processes_that_cannot_share_batches_evenly_are_refused(tmp_path, write_job):
    with pytest.raises(TrainingError, match=r"training.processes_per_batch: 3 do not share 4 chunks evenly$"):
        read_job([str(write_job(tmp_path, processes_per_batch=3))])
    valid = read_job([str(write_job(tmp_path, processes_per_batch=2))])
    rows = Rows(valid.data, None, 0)
    with pytest.raises(TrainingError, match="2 processes share a batch, and 3 are no multiple of that"):
        count_steps(valid.training, rows, 3)
    with pytest.raises(TrainingError, match="batches_per_step: 4 is not a multiple of 3 groups of processes"):
        count_steps(valid.training, rows, 6)
    assert count_steps(valid.training, rows, 8) == count_steps(valid.training, rows, 2) == 8


# --- interruptions


def interrupt(number, batch):
    """Sends the first process a signal in the middle of a step: before that batch of its batches."""
    original, count = loop.seed_of, itertools.count(1)

    def seed_of(*arguments):
        if next(count) == batch and os.environ["RANK"] == "0":
            os.kill(os.getpid(), number)
        return original(*arguments)

    loop.seed_of = seed_of


def interrupt_saving(step):
    """Kills the process when all of the checkpoint of a step has been written but its manifest."""
    original = checkpoint.write_manifest

    def write_manifest(folder, **facts):
        if facts["step"] == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(folder, **facts)

    checkpoint.write_manifest = write_manifest


def assert_same(folder, undisturbed):
    assert weights(folder) == weights(undisturbed)
    assert losses(folder) == losses(undisturbed)
    assert [record["step"] for record in log(folder)] == list(range(1, 9))


@pytest.mark.parametrize(("stage", "number", "kills"), [(1, 1, 3), (3, 1, 1), (1, 2, 1), (3, 2, 1)])
def test_a_killed_run_ends_in_the_same_weights(tmp_path, write_job, undisturbed, stage, number, kills):
    """Killed at random moments, each attempt going on from the newest checkpoint."""
    job, moments = write_job(tmp_path, zero_stage=stage), random.Random(10 * stage + number)
    for attempt in range(kills):
        left = 8 if attempt else 32  # batches at least; the last checkpoint is that of step 6
        Run(job, number, partial(interrupt, signal.SIGKILL, moments.randint(1, left // number))).fall()
    run(job, number)
    assert_same(tmp_path, undisturbed(stage, number))


def test_a_run_begins_with_a_cell_and_goes_on_from_its_own_checkpoints(tmp_path, write_job, undisturbed):
    """The batch that is watched looks as it did at the end of the cell's training."""
    stage, number = 3, 2  # weights are split over two processes
    cell = undisturbed(stage, number) / "output"
    expected = run(write_job(tmp_path / "expected", start=cell, max_steps=3, zero_stage=stage), number)
    job = write_job(tmp_path / "killed", start=cell, max_steps=3, zero_stage=stage)
    Run(job, number, partial(interrupt, signal.SIGKILL, 10 // number)).fall()
    assert (job.parent / "checkpoints" / "step-00000002").exists()
    run(job, number)
    assert weights(job.parent) == weights(expected) and losses(job.parent) == losses(expected)
    watched = [(folder / "dynamics.jsonl").read_text().splitlines() for folder in (cell, expected / "output")]
    assert json.loads(watched[0][-1]) == json.loads(watched[1][0]) | {"step": 8}
    manifest = read_manifest(expected / "output")
    assert manifest["start"] == "revela/code/tiny/tiny/bs4" and manifest["inputs"]["start"] == folder_sha256(cell)
    assert json.loads((expected / "output/settings.json").read_text())["start"] == "by"
    assert "start" not in json.loads((cell / "settings.json").read_text())


def test_a_run_killed_while_it_saves_ends_in_the_same_weights(tmp_path, write_job, undisturbed):
    job = write_job(tmp_path)
    Run(job, 1, partial(interrupt_saving, 4)).fall()
    assert (tmp_path / "checkpoints" / ".partial-step-00000004").exists()
    run(job)
    assert_same(tmp_path, undisturbed(1, 1))


def test_a_damaged_checkpoint_costs_steps_but_changes_nothing(tmp_path, write_job, undisturbed):
    job = write_job(tmp_path)
    Run(job, 1, partial(interrupt, signal.SIGKILL, 26)).fall()
    damaged = list((tmp_path / "checkpoints" / "step-00000006").rglob("*.pt"))
    assert damaged
    for path in damaged:
        os.truncate(path, path.stat().st_size // 2)
    run(job)
    assert "damaged checkpoint, trying an older one" in messages(tmp_path)
    assert_same(tmp_path, undisturbed(1, 1))


def fill_disk(step):
    """From the saving of a step on no file grows beyond 16 KB: a write fails half-way, as on a full disk."""
    original = checkpoint.Checkpoints.save

    def save(self, engine, number, **facts):
        if number == step:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (16384, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        original(self, engine, number, **facts)

    checkpoint.Checkpoints.save = save


def test_a_full_disk_costs_no_checkpoint(tmp_path, write_job, undisturbed):
    job = write_job(tmp_path)
    run(job, 1, partial(fill_disk, 4), status=1)
    assert "step-00000004: cannot be written" in messages(tmp_path)
    assert "older checkpoints are as they were" in messages(tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").glob("*step-*")} == {"step-00000002"}
    run(job)
    assert_same(tmp_path, undisturbed(1, 1))


@pytest.mark.parametrize("number", [1, 2])
def test_a_terminated_run_saves_and_asks_to_be_submitted_again(tmp_path, write_job, undisturbed, number):
    """SIGTERM to one process stops all after the step: the third, which no periodic checkpoint follows."""
    job = write_job(tmp_path)
    run(job, number, partial(interrupt, signal.SIGTERM, 12 // number), status=launch.RESUBMIT)
    assert max(path.name for path in (tmp_path / "checkpoints").glob("step-*")) == "step-00000003"
    run(job, number)
    assert_same(tmp_path, undisturbed(1, number))


def test_a_run_hands_up_why_it_stopped(tmp_path, write_job):
    run(write_job(tmp_path, time_budget_minutes=1e-6), status=75)
    assert reason.read(tmp_path / "job.reason.json") == (
        f"revela/code/tiny/tiny/bs{B}: its time is up (time_budget_minutes: 1e-06); a checkpoint is saved, so give the "
        "same command again to go on"
    )
    job = json.loads((tmp_path / "job.json").read_text())
    (tmp_path / "job.json").write_text(json.dumps(job | {"data": "nowhere.parquet"}))
    run(tmp_path / "job.json", status=1)
    assert "data: nowhere.parquet does not exist" in reason.read(tmp_path / "job.reason.json")


def launched(script):
    sys.exit(launch.torchrun(["--standalone", "--nproc_per_node=2", str(script)]))


@pytest.mark.parametrize(
    ("line", "status"),
    [("sys.exit(0)", 0), ("sys.exit(75)", 75), ("sys.exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)],
)
def test_the_launcher_passes_on_how_several_processes_ended(tmp_path, line, status):
    script = tmp_path / "script.py"
    script.write_text(f"import sys\n{line}\n")
    launcher = processes.Process(target=launched, args=(script,))
    launcher.start()
    launcher.join()
    assert launcher.exitcode == status


BLOCKS = """
import sys, torch
from revela.training.launch import configure_malloc
configure_malloc(int(sys.argv[1]))
held = lambda: int(open("/proc/self/statm").read().split()[0]) * 4096 / 2**20  # MB of address space
for size in (6, 12, 40):
    block, above = torch.zeros(size * 2**18), torch.zeros(2**18)  # so that it is not at the heap's end
    full = held()
    del block
    print(full - held() > size - 1, end=" ")
"""


@pytest.mark.parametrize(
    ("batch_size", "expected"), [(2, "False True True"), (16, "False True True"), (17, "False False False")]
)
def test_large_blocks_of_small_batches_go_back_to_the_system(batch_size, expected):
    command = [sys.executable, "-c", BLOCKS, str(batch_size)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | launch.HUGE_PAGES)
    assert found.stdout.split() == expected.split()


def test_a_launcher_that_is_told_to_stop_tells_its_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "pathlib.Path(__file__).with_name(os.environ['RANK']).touch()\n"
        "time.sleep(600)\n"
    )
    launcher = processes.Process(target=launched, args=(script,))
    launcher.start()
    while len(list(tmp_path.iterdir())) < 3:
        time.sleep(0.01)
    launcher.terminate()
    launcher.join()
    assert launcher.exitcode == launch.RESUBMIT


def test_a_launcher_that_is_killed_takes_its_processes_with_it(tmp_path, write_job):
    job, log = write_job(tmp_path, max_steps=10_000), tmp_path / "checkpoints" / "log.jsonl"

    def workers():
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                found.append(path.read_bytes())
        return sum(str(job).encode() in line and b"revela.training.launch" not in line for line in found)

    command = [sys.executable, "-m", "revela.training.launch", str(job), "--processes", "2", "--threads", "2"]
    launcher = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not log.exists() or not log.read_text():
        assert launcher.poll() is None
        time.sleep(0.01)
    assert workers() == 2
    launcher.kill()
    assert launcher.wait() == -signal.SIGKILL
    while workers():
        time.sleep(0.01)


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_whose_starter_is_killed_saves_and_ends(tmp_path, write_job, number):
    job, folder = write_job(tmp_path, max_steps=10_000, checkpoint_every=5_000), tmp_path / "checkpoints"
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-m', 'revela.training.launch', {str(job)!r}, '--processes={number}'])"
    starter = subprocess.Popen([sys.executable, "-c", start], stderr=subprocess.DEVNULL)
    while not (folder / "log.jsonl").exists() or not (folder / "log.jsonl").read_text():
        assert starter.poll() is None
        time.sleep(0.01)
    starter.kill()
    while not list(folder.glob("step-*")):
        time.sleep(0.01)


# By another launcher, in the shell from which a run is started.
LEFT_BEHIND = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
LEFT_BEHIND |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none", "PET_NNODES": "2"}
LEFT_BEHIND |= {"ROLE_RANK": "1", "NODE_RANK": "1", "CROSS_SIZE": "2", "AZUREML_EXPERIMENT_ID": "x"}
LEFT_BEHIND |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "ACCELERATE_USE_FSDP": "true", "MKL_NUM_THREADS": "7"}


@pytest.mark.parametrize("left, number", [({"RANK": "0"}, 1), (LEFT_BEHIND, 2)])
def test_another_launchers_variables_are_of_no_account(tmp_path, write_job, undisturbed, left, number):
    job = write_job(tmp_path)
    command = [sys.executable, "-m", "revela.training.launch", str(job), f"--processes={number}", "--threads=2"]
    subprocess.run(command, env=os.environ | left, check=True, timeout=300, capture_output=True)
    assert losses(tmp_path) == pytest.approx(losses(undisturbed(1, number)), rel=1e-5)


@pytest.mark.parametrize(
    "own, expected",
    [({}, {"OMP_WAIT_POLICY": "passive"}), ({"GOMP_SPINCOUNT": "9"}, {}), ({"OMP_WAIT_POLICY": "ACTIVE"}, {})],
)
def test_threads_sleep_while_they_wait_unless_told_otherwise(own, expected):
    environment = dict(own)
    launch.rest_between(environment)
    assert environment == own | expected


def test_launchers_variables_are_told_from_others():
    others = {
        "SLURM_JOB_ID": "1",
        "NCCL_SOCKET_IFNAME": "x",
        "CUDA_VISIBLE_DEVICES": "0",
        "HF_HOME": "y",
        "RANKING": "z",
    }
    environment = LEFT_BEHIND | others
    launch.clear(environment)
    assert environment == others | {"MKL_NUM_THREADS": "7"}


SUBNORMAL = """
import threading, torch
from revela.training.engine import set_arithmetic
set_arithmetic()
def flushed():
    found.append(bool((torch.full((2, 2**20), 1e-30) * 1e-10 == 0).all()))
found = []
flushed()
thread = threading.Thread(target=flushed)
thread.start()
thread.join()
print(found, 1e-310 * 1.0 == 0.0)
"""


def test_every_thread_that_computes_flushes_subnormals():
    environment = os.environ | {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    found = subprocess.run(
        [sys.executable, "-c", SUBNORMAL], capture_output=True, text=True, check=True, env=environment
    )
    assert found.stdout.split("] ")[0] == "[True, True"


def test_a_run_goes_on_with_its_own_settings_and_inputs_only(tmp_path, write_job):
    """A time budget that is used up after one step leaves a checkpoint, which other settings cannot use."""
    run(write_job(tmp_path, time_budget_minutes=1e-9, max_steps=2), status=launch.RESUBMIT)
    run(write_job(tmp_path, learning_rate=0.02, max_steps=2), status=1)
    expected = "differ in learning_rate (0.03 there, 0.02 now); delete the folder to start anew"
    assert expected in messages(tmp_path) and not (tmp_path / "output").exists()
    run(write_job(tmp_path, checkpoint_every=1, max_steps=2))


# --- guards


def spoil(where):
    """Gives a process a Revela whose loss or gradient is not a number from its ninth batch on, or with an idle weight."""

    class Spoiled(revela_module.Revela):
        seen = 0

        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.unused = torch.nn.Parameter(torch.zeros(2), requires_grad=where == "unused")

        def forward(self, batch):
            loss, scalars = super().forward(batch)
            self.seen += 1
            if where == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has no more.")
            if where == "loss" and self.seen > 8:
                loss = loss * math.nan
            if where == "gradient" and self.seen > 8:
                zero = sum(parameter.sum() * 0 for parameter in self.parameters() if parameter.requires_grad)
                loss = loss + zero.abs().sqrt()  # the derivative of the root is infinite at zero
            return loss, scalars

    revela_module.Revela = Spoiled


@pytest.mark.parametrize(
    ("where", "stage", "number", "message"),
    [
        ("loss", 1, 2, "error: step 5: the loss is nan"),
        ("gradient", 0, 1, "error: step 3: the gradient is not finite"),
        ("gradient", 1, 1, "error: step 3: the gradient is not finite"),
        ("unused", 1, 1, "error: step 1: 1 of 25 trainable parameters got no gradient, unused among them"),
    ],
)
def test_a_run_that_went_wrong_stops_with_a_sentence(tmp_path, write_job, where, stage, number, message):
    folder = run(write_job(tmp_path, zero_stage=stage), number, partial(spoil, where), status=1)
    assert message in messages(folder)
    assert messages(folder).count("error: ") == 1
    assert not (folder / "output").exists()


def test_adapters_that_are_still_zero_are_not_exported(tmp_path, write_job):
    """The learning rate of the first step of a warm-up is zero, so after it alone nothing has moved."""
    folder = run(write_job(tmp_path, max_steps=1), status=1)
    assert "the retriever's adapters are all zero, so nothing was learned" in messages(folder)
    assert messages(folder).count("error: ") == 1 and not (folder / "output").exists()


def test_weights_that_have_not_moved_are_not_exported(tmp_path, write_job):
    folder = run(write_job(tmp_path, **FULL, max_steps=1), status=1)
    assert "the retriever's weights are those of its start, so nothing was learned" in messages(folder)
    assert messages(folder).count("error: ") == 1 and not (folder / "output").exists()


def small_gpu():
    spoil("memory")
    advice.device_memory = lambda: 10**9


def test_a_run_that_does_not_fit_names_settings_that_would(tmp_path, write_job):
    folder = run(write_job(tmp_path), 2, small_gpu, status=1)
    assert "error: out of memory (CUDA out of memory); by estimate these would fit into 0.9 GiB: " in messages(folder)
    for change in (
        "gradient_checkpointing: true (",
        "zero_stage: 3 with gradient_checkpointing: true (",
        "all that and batch size 3 (",
    ):
        assert change in messages(folder)


def test_the_uniform_control_needs_no_gradient_of_the_retriever(tmp_path, write_job, backbone):
    folder = run(write_job(tmp_path, similarity="uniform", max_steps=2, warmup_steps=1))
    start = Retriever.from_backbone(backbone, max_length=32, query_prefix="query: ")
    trained = Retriever.load(folder / "output" / "retriever")
    np.testing.assert_array_equal(trained.encode(TEXTS), start.encode(TEXTS))


def test_faulty_jobs_are_refused_in_one_line(tmp_path, write_job):
    path = write_job(tmp_path)
    job = json.loads(path.read_text())

    def message(call):
        with pytest.raises(TrainingError) as error:
            call()
        assert "\n" not in str(error.value)
        return str(error.value)

    assert message(lambda: read_job([])) == "usage: python -m revela.training.entry JOB.json"
    path.write_text(json.dumps(job | {"data": "nowhere.parquet"}))
    assert "data: nowhere.parquet does not exist" in message(lambda: read_job([str(path)]))
    path.write_text(json.dumps(job | {"training": {"learning_rat": 1}}))
    assert "training.learning_rat: Extra inputs are not permitted, got 1" in message(lambda: read_job([str(path)]))
    path.write_text(json.dumps(job | {"start": str(path.parent)}))
    assert "and training.start is backbone" in message(lambda: read_job([str(path)]))
    path.write_text(json.dumps(job | {"cell": "revel/code/tiny/tiny/bs4"}))
    assert "unknown method; valid are revela, replug" in message(lambda: read_job([str(path)]))
    valid = Job.model_validate(job)
    rows, one_epoch = Rows(valid.data, None, 0), Training(batches_per_step=32)
    assert "not a multiple of 3 processes" in message(lambda: count_steps(valid.training, rows, 3))
    assert "24 batches are less than a step of 32" in message(lambda: count_steps(one_epoch, rows, 1))
    assert count_steps(one_epoch, range(95), 2) == 2


# --- batches that are made ahead


def test_the_next_steps_batches_are_made_while_the_caller_is_busy():
    made = []

    def make(step):
        made.append(step)
        return -step

    steps = lookahead(make, range(3, 7))
    assert next(steps) == -3
    while made != [3, 4]:  # in a thread
        time.sleep(0.001)
    assert list(steps) == [-4, -5, -6] and made == [3, 4, 5, 6]
    assert list(lookahead(make, [])) == [] and list(lookahead(make, [1])) == [-1]


def test_a_fault_in_a_batch_made_ahead_is_met_at_its_step():
    steps = lookahead(lambda step: 1 // (step - 2), range(1, 4))
    assert next(steps) == -1
    with pytest.raises(ZeroDivisionError):
        next(steps)


# --- the order of rows


def test_each_epoch_sees_each_row_once_with_its_chunks_in_an_order_of_its_own(data):
    rows = Rows(data / "batches.parquet", None, seed=1)
    table = pq.read_table(data / "batches.parquet").to_pylist()
    names = [sorted(row["text"]) for row in table]
    seen = [rows[position] for position in range(2 * 24)]
    epochs = [[names.index(sorted(row["text"])) for row in epoch] for epoch in (seen[:24], seen[24:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(24)) and epochs[0] != epochs[1]
    assert epochs[0] != list(range(24))
    orders = {tuple(table[index]["text"].index(text) for text in row["text"]) for index, row in zip(epochs[0], seen)}
    assert len(orders) > 8
    for index, row in zip(epochs[0], seen):
        pairs = set(zip(table[index]["text"], table[index]["document"]))
        assert set(zip(row["text"], row["document"])) == pairs
    assert seen[30] == Rows(data / "batches.parquet", None, seed=1)[30]
    assert seen[30] != Rows(data / "batches.parquet", None, seed=2)[30]


def test_scores_follow_their_chunks(data):
    rows = Rows(data / "batches.parquet", data / "scores.npy", seed=1)
    table, scores = pq.read_table(data / "batches.parquet").to_pylist(), np.load(data / "scores.npy")
    for position in range(24):
        row = rows[position]
        index = next(i for i, other in enumerate(table) if sorted(other["text"]) == sorted(row["text"]))
        for i, query in enumerate(row["text"]):
            for j, passage in enumerate(row["text"]):
                original = scores[index, table[index]["text"].index(query), table[index]["text"].index(passage)]
                assert row["scores"][i, j] == original


def test_pairs_keep_their_positive_in_front(data):
    table, rows = pq.read_table(data / "pairs.parquet").to_pylist(), Rows(data / "pairs.parquet", None, seed=1)
    assert all(rows[position] in table for position in range(24))


def test_scores_must_fit_the_batches(data, tmp_path):
    np.save(tmp_path / "scores.npy", np.zeros((23, B, B), np.float32))
    with pytest.raises(TrainingError, match="23 batches of scores for 24 in"):
        Rows(data / "batches.parquet", tmp_path / "scores.npy", seed=1)
