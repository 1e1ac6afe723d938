"""The trained cell as a folder: retriever, language model, settings, log and manifest."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn

from revela.files import atomic_folder, sha256_json, write_json
from revela.pretrained import load_tokenizer, quietly
from revela.provenance import folder_sha256, read_manifest, versions, write_manifest
from revela.retriever import Retriever, reference, save_adapter
from revela.study.layout import SETTINGS
from revela.training import TrainingError
from revela.training.job import Job, inputs
from revela.training.start import GATE


def weights_of(engine: deepspeed.DeepSpeedEngine) -> dict[str, int]:
    """A number for each trainable weight of retriever and language model, by its name, which differs once it has moved.

    It is the sum of its bits read as integers, so that it depends neither on the order of summation nor on the device.
    To be called by all processes.
    """
    with _whole(engine):
        return {
            name: int(weight.detach().contiguous().view(torch.int32).sum(dtype=torch.int64))
            for name, weight in engine.module.named_parameters()
            if weight.requires_grad
        }


def export(
    job: Job, engine: deepspeed.DeepSpeedEngine, start: dict[str, int], records: list[Path], **facts: Any
) -> None:
    """Writes the trained cell, whole or not at all. To be called by all processes.

    start: the `weights_of` its models before the first step.
    records: files and folders of the run that become part of the cell; those that do not exist are left out.
    facts: stand in the manifest. Raises TrainingError for a model that learned nothing.
    """
    retriever, lm = engine.module.retriever, engine.module.lm
    settings = job.training.model_dump(mode="json")
    begun = {"start": read_manifest(job.start)["cell"]} if job.start else {}
    end = weights_of(engine)
    with _whole(engine):
        check_trained(job, {name for name in start if start[name] != end[name]}, retriever, lm)
        if dist.get_rank() == 0:
            with atomic_folder(job.output) as partial:
                retriever.save(partial / "retriever")
                if lm is not None and any(parameter.requires_grad for parameter in lm.parameters()):
                    save_language_model(lm, job, partial / "lm")
                if gate := getattr(engine.module, "learned_gate", None):
                    save_file({"gate": gate.weight.detach().cpu().clone()}, partial / GATE)
                write_json(partial / SETTINGS, settings)
                for record in records:
                    if record.is_dir():
                        shutil.copytree(record, partial / record.name)
                    elif record.exists():
                        shutil.copy(record, partial)
                write_manifest(
                    partial,
                    cell=job.cell,
                    inputs=inputs(job),
                    settings_sha256=sha256_json(settings),
                    retriever_sha256=folder_sha256(partial / "retriever"),
                    processes=dist.get_world_size(),
                    device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
                    versions=versions(),
                    **begun,
                    **facts,
                )
    dist.barrier()


def _whole(engine: deepspeed.DeepSpeedEngine) -> contextlib.AbstractContextManager:
    """Within it all trainable weights are whole, also where the processes share them out."""
    if engine.zero_optimization_stage() != 3:
        return contextlib.nullcontext()
    return deepspeed.zero.GatheredParameters([weight for weight in engine.module.parameters() if weight.requires_grad])


def check_trained(job: Job, moved: set[str], retriever: Retriever, lm: nn.Module | None) -> None:
    """Refuses a model that is as before the first step: TrainingError if no weight has moved, or all B are zero.

    moved: names of weights, as the engine's module has them, that differ from the start.
    """
    idle = job.training.similarity == "uniform"  # the control whose retriever stays as it was
    for part, model in {"retriever": None if idle else retriever, "lm": lm}.items():
        b = [] if model is None else [weight for name, weight in model.named_parameters() if ".lora_B." in name]
        if b and not any(weight.any() for weight in b):
            fault = "adapters are all zero"
        elif model is not None and any(weight.requires_grad for weight in model.parameters()):
            fault = None if any(name.startswith(f"{part}.") for name in moved) else "weights are those of its start"
        else:
            continue
        if fault:
            raise TrainingError(
                f"{job.cell}: the {part}'s {fault}, so nothing was learned; is learning_rate "
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
