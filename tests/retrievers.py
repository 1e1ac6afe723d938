"""Retrievers and cells as training leaves them, made on the spot from random backbones."""

import json
from pathlib import Path

import torch

from revela.provenance import folder_sha256, versions, write_manifest
from revela.retriever import Retriever
from revela.study.settings import Lora

PREFIXES = {"query_prefix": "query: ", "passage_prefix": "passage: "}
LORA = Lora(rank=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj"])


def disturb(module, scale=0.3):
    """Random weights where adapters begin with zeros."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def trained(base, folder, *, lora=False, max_length=40):
    """A retriever's folder as training leaves it. Returns the folder."""
    retriever = Retriever.from_backbone(base, **PREFIXES, max_length=max_length, lora=LORA if lora else None)
    disturb(retriever)
    retriever.save(folder)
    return folder


def cell_folder(base, results, path, *, lora=False, **facts):
    """A cell's folder below a results folder, with settings, log and manifest, which has more facts. Returns it."""
    folder = Path(results) / "models" / path
    trained(base, folder / "retriever", lora=lora)
    (folder / "settings.json").write_text(json.dumps({"temperature": 0.05, "learning_rate": 1e-3}))
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 3.5}\n{"step": 2, "loss": 3.25}\n')
    write_manifest(
        folder,
        cell=path,
        inputs={"retriever": folder_sha256(base), "data": "0" * 64},
        retriever_sha256=folder_sha256(folder / "retriever"),
        processes=1,
        device="cpu",
        versions=versions(),
        steps=2,
        commits=["1" * 40],
        wall_seconds=4.0,
        **facts,
    )
    return folder
