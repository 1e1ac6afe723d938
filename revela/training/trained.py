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
from revela.provenance import folder_sha256, versions, write_manifest
from revela.retriever import Retriever, reference, save_adapter
from revela.training import TrainingError
from revela.training.job import Job, inputs

GATE = "gate.safetensors"  # what was learned of training.cross_attention: gate, [layers] or [layers, heads]


def export(job: Job, engine: deepspeed.DeepSpeedEngine, records: list[Path], **facts: Any) -> None:
    """Writes the trained cell, whole or not at all. To be called by all processes.

    records: files and folders of the run that become part of the cell; those that do not exist are left out.
    facts: stand in the manifest. Raises TrainingError for adapters that learned nothing.
    """
    retriever, lm = engine.module.retriever, engine.module.lm
    trained = [parameter for parameter in engine.module.parameters() if parameter.requires_grad]
    settings = job.training.model_dump(mode="json")
    with deepspeed.zero.GatheredParameters(trained) if job.training.zero_stage == 3 else contextlib.nullcontext():
        check_trained(job, retriever, lm)
        if dist.get_rank() == 0:
            with atomic_folder(job.output) as partial:
                retriever.save(partial / "retriever")
                if lm is not None and any(parameter.requires_grad for parameter in lm.parameters()):
                    save_language_model(lm, job, partial / "lm")
                if gate := getattr(engine.module, "learned_gate", None):
                    save_file({"gate": gate.weight.detach().cpu().clone()}, partial / GATE)
                write_json(partial / "settings.json", settings)
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
                    **facts,
                )
    dist.barrier()


def check_trained(job: Job, retriever: Retriever, lm: nn.Module | None) -> None:
    """Refuses adapters that change nothing, as before the first step: TrainingError if all their B are zero."""
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
