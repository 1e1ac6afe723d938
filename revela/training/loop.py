"""The training loop: rows become batches, an objective makes a loss of each, DeepSpeed takes the step.

    torchrun --standalone --nproc_per_node N -m revela.training.loop JOB.json     (python -m revela.training.loop for one process)

What happens at a step follows from the seed and the step alone: which rows are seen, in which order their chunks
stand, and what dropout does. So the result depends neither on the number of processes, but for round-off, nor on
interruptions: a run that was killed goes on from its newest checkpoint when started again, and ends in the same
weights, on a CPU to the last bit.

Exit status: 0 the cell is complete; 75 it was told to stop or its time is up, and a checkpoint is saved: submit it
again; anything else is an error.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import shutil
import signal
import sys
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import deepspeed
import numpy as np
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from deepspeed.runtime.lr_schedules import WarmupDecayLR
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from revela.errors import RevelaError
from revela.files import atomic_folder, sha256_file, sha256_json
from revela.method.packing import PackingError
from revela.objectives import OBJECTIVES
from revela.objectives.base import Objective, ObjectiveError, Tokens
from revela.plan import flops, memory
from revela.pretrained import PretrainedError, load_model, load_tokenizer, quietly
from revela.provenance import ProvenanceError, folder_sha256, git_commit, versions, write_manifest
from revela.retriever import Retriever, add_lora, reference, save_adapter
from revela.study.study import Cell, ConfigError, Strict, Training
from revela.training import watch as dynamics
from revela.training.checkpoint import CheckpointError, Checkpoints, SaveError
from revela.training.compilation import CompilationError, compile_layers
from revela.training.launch import RESUBMIT, end_with_parent, give_back

NO_MATTER = {"checkpoint_every", "time_budget_minutes"}  # settings that the result does not depend on
# Met by all processes alike.
COMMON_ERRORS = (CheckpointError, CompilationError, ConfigError, PretrainedError, ProvenanceError)
OWN_ERRORS = (PackingError, ObjectiveError, SaveError, OSError)  # met by one process

T = TypeVar("T")


class TrainingError(RevelaError):
    """A run that cannot start or cannot go on. The message is one line."""


class Job(Strict):
    """What one run reads and writes; paths are relative to the working directory."""

    cell: str
    training: Training
    retriever: Path
    lm: Path | None = None
    data: Path
    scores: Path | None = None
    output: Path
    checkpoints: Path


def main(arguments: list[str]) -> int:
    """Runs the job of a JSON file and returns the exit status."""
    stop = StopRequest()
    join_processes()
    try:
        job = read_job(arguments)
        give_back(Cell.parse(job.cell).batch_size)
        complete = train(job, stop)
    except torch.OutOfMemoryError as error:
        print(f"error: {out_of_memory(job, error)}", file=sys.stderr)
        return 1
    except (TrainingError, *COMMON_ERRORS, *OWN_ERRORS) as error:
        if dist.get_rank() == 0 or isinstance(error, OWN_ERRORS):
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    dist.destroy_process_group()
    return 0 if complete else RESUBMIT


def train(job: Job, stop: StopRequest) -> bool:
    """Trains a cell, from its newest checkpoint if there is one, and exports it. False: stopped before the end."""
    settings, started = job.training, time.monotonic()
    rank, processes = dist.get_rank(), dist.get_world_size()
    rows = Rows(job.data, job.scores, settings.seed)
    steps = count_steps(job, len(rows), processes)
    torch.manual_seed(settings.seed)
    retriever, lm, lm_tokenizer = load_models(job)
    if settings.compile:
        for model in filter(None, (retriever.backbone, lm)):
            compile_layers(model)
    objective = OBJECTIVES[Cell.parse(job.cell).method](settings, retriever, lm, lm_tokenizer)
    engine = build_engine(objective, settings, steps)
    checkpoints = Checkpoints(job.checkpoints, fingerprint(job) if rank == 0 else {})
    done = checkpoints.restore(engine) or {"step": 0, "elapsed": 0.0, "commits": []}
    commits = list(dict.fromkeys([*done["commits"], git_commit()]))
    log = Log(checkpoints.log, steps) if rank == 0 else None
    silent = parameters_without_gradient(objective) if done["step"] == 0 else set()
    watch = dynamics.Watch(
        objective, rows.first_of_several_documents(), checkpoints.folder / dynamics.FILE if log else None
    )
    operations = Operations(job, retriever, lm)

    def batches_of(step: int) -> list[Tokens]:
        """What this process has a share in: every so-many-th row of the step."""
        positions = positions_of(step, settings, rank, processes)
        return [to_pinned(objective.collate(rows[position])) for position in positions]

    step_started = time.monotonic()
    for step, batches in prefetched(batches_of, range(done["step"] + 1, steps + 1)):
        watch(step - 1)
        learning_rate = engine.get_lr()[0]
        counts = [objective.count(batch) for batch in batches]
        lengths = [text_lengths(batch) for batch in batches]
        items, tokens = sum_over_processes([sum(counts), sum(sum(map(sum, of.values())) for of in lengths)])

        sums: dict[str, Any] = defaultdict(float)
        for position, batch, count in zip(positions_of(step, settings, rank, processes), batches, counts):
            torch.manual_seed(seed_of(settings.seed, position))
            loss, scalars = engine(
                {name: tensor.to(engine.device, non_blocking=True) for name, tensor in batch.items()}
            )
            # Each item of the step weighs the same, whichever process has it. DeepSpeed averages over processes.
            engine.backward(loss * (processes / items), scale_wrt_gas=False)
            for name, value in scalars.items():
                sums[name] += value.double() * count
            sums["loss"] += loss.detach().double()
            engine.step()

        norm = float(engine.get_global_grad_norm())
        elapsed = done["elapsed"] + time.monotonic() - started
        attended = float(sums.get("attended", 0)) / sum(counts)
        computed = sum(operations(of, attended) for of in lengths)
        *totals, computed, stops = sum_over_processes([*sums.values(), computed, stop.requested(settings, started)])
        means = {name: total / items for name, total in zip(sums, totals)}
        check_finite(step, means["loss"], norm, job)
        if step == 1 and settings.similarity != "uniform":
            check_gradients(silent, objective)
        if log:
            seconds = time.monotonic() - step_started  # waiting for its texts included
            log.write(
                {
                    "step": step,
                    **means,
                    "lr": learning_rate,
                    "grad_norm": norm,
                    "tokens_per_second": tokens / seconds,
                    **operations.speed(computed / processes / seconds),
                    "peak_memory_gb": peak_memory(),
                    "elapsed": elapsed,
                    "gpu_hours": processes * torch.cuda.is_available() * elapsed / 3600,
                }
            )
        if step < steps and (stops or step % settings.checkpoint_every == 0):
            checkpoints.save(engine, step, elapsed=elapsed, commits=commits)
        if step < steps and stops:
            if log:
                log.close()
                print(f"stopped after step {step}/{steps}, which is saved; start it again to go on", file=sys.stderr)
            return False
        step_started = time.monotonic()

    watch(steps)
    if log:
        log.close()
    export(job, engine, retriever, lm, checkpoints, steps=steps, commits=commits, wall_seconds=elapsed)
    return True


class StopRequest:
    """Whether the run was told to stop by SIGTERM, or its time is up."""

    def __init__(self):
        self.signalled = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_) -> None:
        self.signalled = True

    def requested(self, settings: Training, started: float) -> bool:
        """`started`: the time by `time.monotonic` when the run did."""
        minutes = settings.time_budget_minutes
        return self.signalled or (minutes is not None and time.monotonic() - started >= 60 * minutes)


# --- before the first step


def join_processes() -> None:
    """Joins the processes of this run that torchrun started; without torchrun this process is the only one."""
    if "RANK" in os.environ:
        # torchrun puts its processes into sessions of their own, where they would outlive it if it is killed.
        end_with_parent(signal.SIGKILL)
    else:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if os.environ["WORLD_SIZE"] == "1":
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group(backend)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled now; gloo does as well
    deepspeed.init_distributed(backend)
    torch.set_flush_denormal(True)  # Sim at tau = 1e-4 makes subnormal floats, on which a CPU takes twice as long
    warnings.simplefilter("ignore", FutureWarning)  # what DeepSpeed and PEFT should call instead is their affair


def read_job(arguments: list[str]) -> Job:
    """The job of a JSON file, whose inputs exist; TrainingError naming the key otherwise."""
    if len(arguments) != 1:
        raise TrainingError("usage: python -m revela.training.loop JOB.json")
    path = Path(arguments[0])
    try:
        job = Job.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        raise TrainingError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}"
        ) from None
    if Cell.parse(job.cell).method not in OBJECTIVES:
        raise TrainingError(f"{path}: cell: {job.cell}: unknown method; valid are {', '.join(OBJECTIVES)}")
    for name in ("retriever", "lm", "data", "scores"):
        value = getattr(job, name)
        if value is not None and not value.exists():
            raise TrainingError(f"{path}: {name}: {value} does not exist")
    return job


class Rows:
    """The rows of the training file in the order in which they are seen: rows[position], for any position >= 0.

    data: parquet, a row a batch. scores: REPLUG's l_ij, float32 [batches, B, B]; each row gets its own.
    Every epoch is a permutation of all rows, and every visit permutes the chunks of a row's "text", by the seed.
    """

    def __init__(self, data: Path, scores: Path | None, seed: int):
        self.table, self.seed = pq.ParquetFile(data).read(), seed
        self.scores = None if scores is None else np.load(scores, mmap_mode="r")
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))
        if self.scores is not None and len(self.scores) != len(self.table):
            raise TrainingError(f"{scores}: {len(self.scores)} batches of scores for {len(self.table)} in {data}")

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, position: int) -> dict[str, Any]:
        epoch, place = divmod(position, len(self))
        index = int(self._permutation(epoch)[place])
        row = self.table.slice(index, 1).to_pylist()[0]
        if self.scores is not None:
            row["scores"] = np.array(self.scores[index])
        if "text" not in row:
            return row
        order = np.random.default_rng([self.seed, epoch, index, 1]).permutation(len(row["text"]))
        for name in ("text", "document"):
            if name in row:
                row[name] = [row[name][chunk] for chunk in order]
        if "scores" in row:
            row["scores"] = row["scores"][np.ix_(order, order)]
        return row

    def first_of_several_documents(self) -> dict[str, Any]:
        """The first row with chunks of two documents or more, as it stands in the file; where none has, the first."""
        documents = self.table["document"] if "document" in self.table.column_names else []
        index = next((index for index, ids in enumerate(documents) if len(set(ids.as_py())) > 1), 0)
        return self.table.slice(index, 1).to_pylist()[0]

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch, 2]).permutation(len(self))
        return self._order[1]


def seed_of(seed: int, position: int) -> int:
    """The seed of dropout for the batch at a position of the training order."""
    return int(np.random.SeedSequence([seed, position, 3]).generate_state(1, np.uint64)[0])


def count_steps(job: Job, batches: int, processes: int) -> int:
    """Steps of the whole run: as set, or one epoch; what is left over for less than a step is not used.

    Raises TrainingError where there is less than one, or processes cannot share one.
    """
    settings = job.training
    steps = settings.max_steps or batches // settings.batches_per_step
    if batches == 0 or steps == 0:
        raise TrainingError(f"{job.data}: {batches} batches are less than a step of {settings.batches_per_step}")
    if settings.batches_per_step % processes:
        raise TrainingError(f"batches_per_step: {settings.batches_per_step} is not a multiple of {processes} processes")
    return steps


def load_models(job: Job):
    """Retriever, language model and its tokenizer; the last two are None if the job has none.

    Frozen weights are in the precision of the run, trained ones in float32.
    """
    settings = job.training
    frozen = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    retriever = Retriever.from_backbone(
        job.retriever,
        query_prefix=settings.query_prefix,
        passage_prefix=settings.passage_prefix,
        max_length=settings.retriever_max_length,
        lora=settings.lora,
        dtype=frozen if settings.lora else torch.float32,
    )
    checkpointing = {"gradient_checkpointing_kwargs": {"use_reentrant": False}}
    if settings.gradient_checkpointing:
        retriever.backbone.gradient_checkpointing_enable(**checkpointing)
    if job.lm is None:
        return retriever, None, None
    dtype = frozen if settings.lora or settings.freeze_lm else torch.float32
    lm = load_model(AutoModelForCausalLM, job.lm, dtype)
    if settings.gradient_checkpointing:
        lm.gradient_checkpointing_enable(**checkpointing)
    if settings.freeze_lm:
        lm.requires_grad_(False)
    elif settings.lora:
        lm = add_lora(lm, settings.lora, "CAUSAL_LM")
    return retriever, lm, load_tokenizer(job.lm)


def build_engine(objective: Objective, settings: Training, steps: int) -> deepspeed.DeepSpeedEngine:
    """The objective under DeepSpeed: AdamW over what is trainable, linear warm-up and decay, clipping, ZeRO."""
    trainable = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    bucket = min(5 * 10**7, sum(parameter.numel() for parameter in trainable))
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": settings.batches_per_step // dist.get_world_size(),
        "gradient_clipping": settings.max_grad_norm,
        "zero_optimization": {
            "stage": settings.zero_stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
        "zero_allow_untested_optimizer": True,
        # Without the list, gradients and new weights of linear layers would travel in bfloat16.
        "torch_autocast": {
            "enabled": settings.precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
        "data_types": {"grad_accum_dtype": "fp32"},
        "timers": {"throughput": {"enabled": False}},  # it would wait for the GPU twice in each batch
    }
    optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)

    def schedule(optimizer):
        scheduler = WarmupDecayLR(
            optimizer,
            total_num_steps=steps,
            warmup_max_lr=settings.learning_rate,
            warmup_num_steps=max(1, settings.warmup_steps),
            warmup_type="linear",
            last_batch_iteration=0,
        )
        scheduler.step(0)
        return scheduler

    engine, *_ = deepspeed.initialize(
        model=objective, optimizer=optimizer, model_parameters=trainable, lr_scheduler=schedule, config=config
    )
    if settings.zero_stage == 0:  # where DeepSpeed clips, but keeps the norm to itself

        def clip() -> None:
            engine._global_grad_norm = nn.utils.clip_grad_norm_(trainable, settings.max_grad_norm)

        engine.clip_fp32_gradients = clip
    engine.train()
    return engine


def inputs(job: Job) -> dict[str, str]:
    """SHA-256 of each input."""
    hashes = {"retriever": folder_sha256, "lm": folder_sha256, "data": sha256_file, "scores": sha256_file}
    return {name: sha256(path) for name, sha256 in hashes.items() if (path := getattr(job, name)) is not None}


def fingerprint(job: Job) -> dict[str, Any]:
    """All that the weights depend on, by name, apart from code and versions."""
    return {"cell": job.cell, **what_matters(job.training), **inputs(job), "processes": dist.get_world_size()}


def what_matters(settings: Training) -> dict[str, Any]:
    """The settings that the weights depend on, as JSON values."""
    return settings.model_dump(mode="json", exclude=NO_MATTER)


# --- at each step


def positions_of(step: int, settings: Training, rank: int, processes: int) -> range:
    """Places in the training order of the rows that a process has in a step."""
    return range((step - 1) * settings.batches_per_step, step * settings.batches_per_step)[rank::processes]


def prefetched(make: Callable[[int], T], steps: Iterable[int]) -> Iterator[tuple[int, T]]:
    """(step, make(step)) of each step. The next one is made in a thread while the caller is busy with this one."""
    with ThreadPoolExecutor(1) as thread:
        ahead: deque[tuple[int, Future[T]]] = deque()
        for step in steps:
            ahead.append((step, thread.submit(make, step)))
            if len(ahead) > 1:
                ready, future = ahead.popleft()
                yield ready, future.result()
        for ready, future in ahead:
            yield ready, future.result()


def to_pinned(batch: Tokens) -> Tokens:
    """The batch in memory from which a GPU copies without waiting, if there is one."""
    return {name: tensor.pin_memory() for name, tensor in batch.items()} if torch.cuda.is_available() else batch


def sum_over_processes(values: list[float | Tensor]) -> list[float]:
    """The sums over all processes of these values, a scalar each."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    total = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=device) for value in values])
    dist.all_reduce(total)
    return total.tolist()


def text_lengths(batch: Tokens) -> dict[str, list[int]]:
    """Tokens of each text that goes through a model, by the part that it plays: all that an attention mask shows."""
    end = "_attention_mask"
    return {name.removesuffix(end): mask.sum(1).tolist() for name, mask in batch.items() if name.endswith(end)}


class Operations:
    """Floating-point operations of a batch, and how near a process comes to its chip's peak (`revela.plan.flops`)."""

    def __init__(self, job: Job, retriever: Retriever, lm: nn.Module | None):
        self.method, self.settings = Cell.parse(job.cell).method, job.training
        models = [retriever.backbone] if lm is None else [retriever.backbone, lm]
        shapes = [flops.Shape.from_config(model.config.to_dict()) for model in models]
        self.retriever, self.lm = shapes[0], shapes[-1]
        bf16_gpu = torch.cuda.is_available() and self.settings.precision == "bf16"
        self.peak = flops.peak(torch.cuda.get_device_name()) if bf16_gpu else None

    def __call__(self, lengths: dict[str, list[int]], attended: float) -> float:
        """Forward and backward of a batch of texts of these lengths."""
        return flops.training(self.method, self.settings, self.retriever, self.lm, lengths, attended=attended)

    def speed(self, rate: float) -> dict[str, float]:
        """What is logged of so many operations a second of one process; MFU where the chip's peak is known."""
        return {"tflops": rate / 1e12} | ({"mfu": rate / self.peak} if self.peak else {})


def peak_memory() -> float:
    """GiB that this process held at most: of the GPU, if it has one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def check_finite(step: int, loss: float, norm: float, job: Job) -> None:
    """Stops a run that has diverged, by TrainingError; its checkpoints are from before."""
    if not math.isfinite(loss):
        raise TrainingError(f"step {step}: the loss is {loss}; lower learning_rate, or raise temperature ({job.cell})")
    if not math.isfinite(norm) or norm < 0:
        raise TrainingError(f"step {step}: the gradient is not finite; lower learning_rate ({job.cell})")


def parameters_without_gradient(objective: Objective) -> set[str]:
    """Names of trainable parameters; each leaves the set when a gradient reaches it."""
    silent = {name for name, parameter in objective.named_parameters() if parameter.requires_grad}
    for name in silent:
        objective.get_parameter(name).register_hook(lambda gradient, name=name: silent.discard(name))
    return silent


def out_of_memory(job: Job, error: torch.OutOfMemoryError) -> str:
    """A sentence on a run that did not fit, with the settings under which it would."""
    cell, processes = Cell.parse(job.cell), dist.get_world_size()
    paths = [job.retriever] if job.lm is None else [job.retriever, job.lm]
    shapes = [flops.Shape.from_config(json.loads((path / "config.json").read_text("utf-8"))) for path in paths]
    needs = memory.alternatives(cell, job.training, shapes, processes)
    room = device_memory()
    fitting = [f"{change} ({need / 2**30:.1f} GiB)" for change, need in needs.items() if need < 0.9 * room]
    reason = str(error).split(". ")[0]
    return (
        f"out of memory ({reason}); by estimate these would fit into {room / 2**30:.1f} GiB: "
        f"{', '.join(fitting) or 'none of ' + ', '.join(needs)} ({job.cell})"
    )


def device_memory() -> int:
    """Bytes that the process's GPU has, or the machine where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_gradients(silent: set[str], objective: Objective) -> None:
    """Stops a run in which something trainable has no part in the loss, by TrainingError."""
    if silent:
        first = min(silent)
        total = sum(parameter.requires_grad for parameter in objective.parameters())
        raise TrainingError(
            f"step 1: {len(silent)} of {total} trainable parameters got no gradient, {first} among them; "
            "the loss does not depend on them"
        )


class Log:
    """The log of the first process: JSON lines, TensorBoard, and on a terminal a progress bar.

    path: the JSON lines, which may hold steps already; TensorBoard's folder stands beside them and is made from them.
    """

    def __init__(self, path: Path, steps: int):
        self.path, self.steps = path, steps
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        shutil.rmtree(path.with_name("tensorboard"), ignore_errors=True)
        self.board = SummaryWriter(path.with_name("tensorboard"))
        for record in records:
            self._draw(record)
        self.bar = tqdm(total=steps, initial=len(records), unit="step", disable=None)

    def write(self, record: dict[str, Any]) -> None:
        """Adds a step."""
        with self.path.open("a", encoding="utf-8") as file:
            print(json.dumps(record), file=file)
        self._draw(record)
        self.bar.set_postfix(loss=record["loss"], refresh=False)
        self.bar.update()
        if self.bar.disable and (record["step"] % max(1, self.steps // 10) == 0 or record["step"] == self.steps):
            print(f"step {record['step']}/{self.steps}: loss {record['loss']:.4f}", file=sys.stderr)

    def close(self) -> None:
        self.board.close()
        self.bar.close()

    def _draw(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name != "step":
                self.board.add_scalar(name, value, record["step"])


# --- after the last step


def export(
    job: Job, engine, retriever: Retriever, lm: nn.Module | None, checkpoints: Checkpoints, **facts: Any
) -> None:
    """Writes the trained cell, whole or not at all, and then removes its checkpoints. To be called by all processes."""
    trained = [parameter for parameter in engine.module.parameters() if parameter.requires_grad]
    with deepspeed.zero.GatheredParameters(trained) if job.training.zero_stage == 3 else contextlib.nullcontext():
        check_trained(job, retriever, lm)
        if dist.get_rank() == 0:
            with atomic_folder(job.output) as partial:
                retriever.save(partial / "retriever")
                if lm is not None and any(parameter.requires_grad for parameter in lm.parameters()):
                    save_language_model(lm, job, partial / "lm")
                settings = job.training.model_dump_json(indent=1)
                (partial / "settings.json").write_text(settings + "\n", encoding="utf-8")
                for record in (checkpoints.log, checkpoints.folder / dynamics.FILE):
                    if record.exists():
                        shutil.copy(record, partial)
                shutil.copytree(checkpoints.log.with_name("tensorboard"), partial / "tensorboard")
                write_manifest(
                    partial,
                    cell=job.cell,
                    inputs=inputs(job),
                    settings_sha256=sha256_json(what_matters(job.training)),
                    retriever_sha256=folder_sha256(partial / "retriever"),
                    processes=dist.get_world_size(),
                    device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
                    versions=versions(),
                    **facts,
                )
            checkpoints.remove()
    dist.barrier()


def check_trained(job: Job, retriever: Retriever, lm: nn.Module | None) -> None:
    """Refuses adapters that change nothing, as they are before the first step: TrainingError if all their B are zero."""
    idle = job.training.similarity == "uniform"  # the control whose retriever stays as it was
    for part, model in {"retriever": None if idle else retriever, "lm": lm}.items():
        b = [] if model is None else [weight for name, weight in model.named_parameters() if ".lora_B." in name]
        if b and not any(weight.any() for weight in b):
            raise TrainingError(
                f"{job.cell}: the {part}'s adapters are all zero, so nothing was learned; is learning_rate "
                f"{job.training.learning_rate} times {job.training.max_steps or 'its'} steps enough?"
            )


def save_language_model(lm: nn.Module, job: Job, folder: Path) -> None:
    """Writes the trained language model, or its adapters, as a Hugging Face folder."""
    if job.training.lora:
        save_adapter(lm, folder, reference(job.lm, folder))
    else:
        with quietly():
            lm.save_pretrained(folder)
        load_tokenizer(job.lm).save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
