"""A smoke test for a new machine: ten steps of each method and one task encoded, with the libraries as they are there.

What is trained is a language model of random weights in a shape of `config/sizes.yaml`, so nothing is downloaded; where
there is no GPU, the smallest of the project's own backbones. Texts are random words. Each training is a run of its own, started
as the workflow starts one: with a process for each GPU and NCCL, or with two processes and gloo.

`run` measures on the node, `judge` says what is wrong, `page` writes it on one page.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from revela.files import write_json
from revela.plan import flops
from revela.provenance import git_commit, versions
from revela.root import BACKBONES, root
from revela.study import reason
from revela.study.cell import Cell
from revela.study.layout import LOG
from revela.study.settings import Training
from revela.study.sizes import load_sizes

if TYPE_CHECKING:
    from revela.study.specification import SmokeSpec

SHAPE = "qwen2.5-0.5b"  # of config/sizes.yaml, for GPUs
STEPS, WARM = 10, 4  # steps of a training; those before its speed is taken
DOCUMENTS, QUERIES = 512, 32
CHANGES: dict[str, dict[str, Any]] = {
    "": {"zero_stage": 1},
    "ZeRO 3": {"zero_stage": 3},
    "compiled": {"zero_stage": 1, "compile": True},
}
AGREE = 0.02  # share of the loss by which two ways of the same first step may differ, in bfloat16
SLOW = 0.5  # share of the planned speed below which a run is slow


def run(spec: SmokeSpec, gpus: int, threads: int) -> dict[str, Any]:
    """What this machine is, and what each training and the encoding gave: JSON.

    A training that failed has `error`. Others have `loss` (of each step), `tokens_per_second` and `mfu` (medians of the
    later steps; `mfu` where the chip's peak is known), `peak_memory_gb` and `seconds` (with its start).
    """
    with tempfile.TemporaryDirectory(prefix="revela-smoke-") as scratch:
        folder = Path(scratch)
        _write_inputs(folder, gpus, spec)
        found = {"machine": _machine(gpus, threads), "commit": git_commit(), "versions": versions(), "trainings": {}}
        for path in spec.cells:
            method = Cell.parse(path).method
            for change, values in CHANGES.items():
                if change and method != "revela" or (values.get("compile") and not gpus):
                    continue
                name = " ".join(filter(None, [method, change]))
                settings = {**spec.cells[path].model_dump(), **values, "precision": "bf16"}
                settings |= {"batches_per_step": gpus or 2, "max_steps": STEPS, "warmup_steps": 2, "start": "backbone"}
                found["trainings"][name] = _train(folder, name, path, Training.model_validate(settings), gpus, threads)
        found["encoding"] = _encode(folder)
    return found


def judge(spec: SmokeSpec, found: dict[str, Any]) -> list[str]:
    """What is wrong, each a line with what to do; nothing if all is well."""
    faults, machine, trainings = [], found["machine"], found["trainings"]
    for name, one in [*trainings.items(), ("encoding", found["encoding"])]:
        if "error" in one:
            faults.append(f"{name}: {one['error']}")
        elif name in trainings and not (len(one["loss"]) == STEPS and all(map(math.isfinite, one["loss"]))):
            faults.append(f"{name}: the losses of {STEPS} steps are {one['loss']}")
        planned = spec.encoding_mfu if name == "encoding" else spec.training_mfu
        if one.get("mfu") is not None and one["mfu"] < SLOW * planned:
            faults.append(
                f"{name}: MFU {100 * one['mfu']:.1f} %, planned {100 * planned:.1f} %: see whether other jobs use the "
                "GPUs (nvidia-smi), how they are linked (nvidia-smi topo -m), and the cores of the job; or plan by "
                f"compute.{'encoding' if name == 'encoding' else 'training'}_mfu: {one['mfu']:.3f}"
            )
    first = trainings.get("revela", {}).get("loss", [None])[0]
    for name, one in trainings.items():
        if name.startswith("revela ") and first and one.get("loss"):
            off = abs(one["loss"][0] - first) / first
            if off > AGREE:
                faults.append(
                    f"{name}: its first loss is {one['loss'][0]:.4f}, and {first:.4f} without: this combination of "
                    "libraries computes something else; do not use it here"
                )
    if machine["gpus"] and not machine["peak"]:
        faults.append(f"the peak of {machine['devices'][0]} is not known: add it to PEAK in revela/plan/flops.py")
    return faults


def page(spec: SmokeSpec, found: dict[str, Any], faults: list[str]) -> str:
    """The page in Markdown."""
    machine = found["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    where = (
        f"{machine['host']}: {', '.join(machine['devices']) or 'no GPU'}, {machine['cores']} cores for the job. "
        f"{machine['backend']}, {libraries}. Code at commit {found['commit'] or 'unknown'}. {machine['model']}."
    )
    below = (
        f"Medians of the steps after the first {WARM} of {STEPS}. The plan assumes {spec.device}; tokens are of all "
        "processes. Without GPU no MFU is known."
    )
    lines = [
        "# Smoke test",
        where,
        f"## What is wrong: {len(faults)}",
        "\n".join(f"- {fault}" for fault in faults) or "Nothing.",
        "## Speed",
        "| | first loss | last loss | tokens/s | planned tokens/s | MFU | planned MFU | GiB | seconds, with start |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
        + "\n".join(_row(name, one, spec.training_mfu) for name, one in found["trainings"].items())
        + "\n"
        + _row("encoding", found["encoding"], spec.encoding_mfu),
        below,
    ]
    return "\n\n".join(lines) + "\n"


def _row(name: str, one: dict[str, Any], planned: float) -> str:
    if "error" in one:
        return f"| {name} | failed | | | | | | | |"
    losses = one.get("loss") or [None]
    mfu, speed = one.get("mfu"), one["tokens_per_second"]
    cells = [
        *(f"{loss:.4f}" if loss is not None else "" for loss in (losses[0], losses[-1])),
        f"{speed:,.0f}",
        f"{speed * planned / mfu:,.0f}" if mfu else "",
        f"{100 * mfu:.1f} %" if mfu else "",
        f"{100 * planned:.1f} %",
        f"{one['peak_memory_gb']:.1f}" if "peak_memory_gb" in one else "",
        f"{one['seconds']:.0f}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


# --- on the node


def _machine(gpus: int, threads: int) -> dict[str, Any]:
    import torch

    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if gpus else []
    nccl = f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}" if devices else "gloo"
    return {
        "host": platform.node(),
        "gpus": gpus,
        "devices": devices,
        "peak": flops.peak(devices[0]) if devices else None,
        "cores": threads,
        "backend": f"{nccl}, CUDA {torch.version.cuda}" if devices else nccl,
        "model": f"Random weights in the shape of {SHAPE}" if gpus else "The tiny backbones of the checkout",
    }


def _write_inputs(folder: Path, gpus: int, spec: SmokeSpec) -> None:
    """Models, batches, pairs, scores and a benchmark of random words."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from revela.text.pairs import PAIRS

    if gpus:
        _random_model(folder / "model")
    else:
        (folder / "model").symlink_to(root() / BACKBONES / "tiny-1m", target_is_directory=True)
    rng = np.random.default_rng(0)
    known = (root() / "config/README.md").read_text(encoding="utf-8").split()

    def text() -> str:
        return " ".join(rng.choice(known, 120))

    size = 1 + max(Cell.parse(path).batch_size for path in spec.cells)
    rows = [[text() for _ in range(size)] for _ in range((gpus or 2) * STEPS)]
    for path in spec.cells:
        count = Cell.parse(path).batch_size
        batches = {"src": ["smoke"] * len(rows), "text": [row[:count] for row in rows]}
        batches["document"] = [[str(place // 2) for place in range(count)]] * len(rows)
        pq.write_table(pa.table(batches), folder / f"batches{count}.parquet")
        pairs = {"query": [row[-1] for row in rows], "passages": batches["text"], "src": batches["src"]}
        pq.write_table(
            pa.table(pairs | {"document": batches["document"]}, schema=PAIRS), folder / f"pairs{count}.parquet"
        )
        np.save(folder / f"scores{count}.npy", rng.random((len(rows), count, count), np.float32))
    task = folder / "task"
    (task / "qrels").mkdir(parents=True)
    documents = [json.dumps({"_id": f"d{number}", "title": "", "text": text()}) for number in range(DOCUMENTS)]
    queries = [json.dumps({"_id": f"q{number}", "text": text()[:200]}) for number in range(QUERIES)]
    judged = [f"q{number}\td{number}\t1" for number in range(QUERIES)]
    for name, lines in (
        ("corpus.jsonl", documents),
        ("queries.jsonl", queries),
        ("qrels/test.tsv", ["query-id\tcorpus-id\tscore", *judged]),
    ):
        (task / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _random_model(folder: Path, device: str = "cuda") -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from revela.pretrained import load_tokenizer

    size = load_sizes().models[SHAPE]
    tokenizer = load_tokenizer(root() / BACKBONES / "tiny-1m")
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.head_dim,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()


def _train(folder: Path, name: str, cell: str, settings: Training, gpus: int, threads: int) -> dict[str, Any]:
    parsed, place = Cell.parse(cell), folder / name.replace(" ", "-")
    place.mkdir()
    job = {
        "cell": cell,
        "training": settings.model_dump(mode="json"),
        "retriever": str(folder / "model"),
        "lm": str(folder / "model") if parsed.needs.lm == "beside" else None,
        "data": str(folder / f"{parsed.needs.data}{parsed.batch_size}.parquet"),
        "scores": str(folder / f"scores{parsed.batch_size}.npy") if parsed.needs.lm == "scores" else None,
        "output": str(place / "cell"),
        "checkpoints": str(place / "checkpoints"),
    }
    write_json(place / "job.json", job)
    command = [sys.executable, "-m", "revela.training.launch", str(place / "job.json")]
    command += [f"--processes={gpus or 2}", f"--threads={threads}"]
    started = time.monotonic()
    status = subprocess.run(command, check=False).returncode
    if status:
        said = reason.read(reason.reason_file(place / "job.json"))
        return {"error": said or f"{reason.ended(status)}; its output is in the log of this job"}
    lines = [json.loads(line) for line in (place / "cell" / LOG).read_text(encoding="utf-8").splitlines()]
    later = lines[WARM:]
    return {
        "loss": [line["loss"] for line in lines],
        "tokens_per_second": statistics.median(line["tokens_per_second"] for line in later),
        "mfu": statistics.median(line["mfu"] for line in later) if "mfu" in later[0] else None,
        "peak_memory_gb": max(line["peak_memory_gb"] for line in lines),
        "seconds": time.monotonic() - started,
    }


def _encode(folder: Path) -> dict[str, Any]:
    """One task, ranked and scored as a benchmark is; and the speed at which its documents are encoded."""
    import torch

    from revela.evaluation.folder import AsSaved, evaluate_folder
    from revela.retriever import Retriever

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    started = time.monotonic()
    retriever = Retriever.from_backbone(folder / "model", max_length=160, dtype=dtype).to(device).eval()
    found = evaluate_folder(AsSaved("smoke", retriever), folder / "task")
    lines = (folder / "task/corpus.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    lengths = retriever.tokenize(texts, "passage")["attention_mask"].sum(1).tolist()
    begun = time.monotonic()
    retriever.encode(texts, "passage")
    seconds = time.monotonic() - begun
    shape = flops.Shape.from_config(retriever.backbone.config.to_dict())
    peak = flops.peak(torch.cuda.get_device_name()) if device == "cuda" else None
    return {
        "queries": found["queries"],
        "tokens_per_second": sum(lengths) / seconds,
        "mfu": flops.forward(shape, lengths) / seconds / peak if peak else None,
        "seconds": time.monotonic() - started,
    }
