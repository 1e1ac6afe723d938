"""Models with the weights that a trained cell saved, in place of those of its backbones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.utils import set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from revela.pretrained import PretrainedError, load_model
from revela.provenance import folder_sha256, read_manifest
from revela.training import TrainingError

if TYPE_CHECKING:
    from revela.objectives.base import Objective

GATE = "gate.safetensors"  # what was learned of training.cross_attention: gate, [layers] or [layers, heads]


def beginning_with(cell: Path, objective: type[Objective]) -> type[Objective]:
    """The objective of a run that begins with the weights of a cell; its optimizer and its schedule begin anew."""

    class Begun(objective):
        def __init__(self, *given: Any):
            super().__init__(*given)
            load_weights(self, cell)

    return Begun


def load_weights(objective: Objective, cell: Path) -> None:
    """Puts all weights that a cell saved in the place of an objective's trainable ones.

    Raises TrainingError where one of either has no counterpart, or one of another shape.
    """
    models = {"retriever": objective.retriever.backbone, "lm": objective.lm}
    models["gate"] = getattr(objective, "learned_gate", None)
    for name, model in models.items():
        saved = cell / (GATE if name == "gate" else name)
        wanted = model is not None and any(weight.requires_grad for weight in model.parameters())
        if wanted != saved.exists():
            here, there = ("trained here", "not there") if wanted else ("not trained here", "there")
            raise TrainingError(f"{saved}: its weights are {there}, and the {name}'s are {here}")
        if not wanted:
            continue
        try:
            _load(model, saved)
        except (RuntimeError, OSError, SafetensorError, PretrainedError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise TrainingError(f"{saved}: its weights are not those of the {name} here ({reason})") from None


def check_backbones(cell: Path, retriever: Path, lm: Path | None) -> None:
    """Raises TrainingError for a cell that was trained from other backbones than are in these folders."""
    inputs = read_manifest(cell)["inputs"]
    for name, folder in {"retriever": retriever, "lm": lm}.items():
        if inputs.get(name) != (folder and folder_sha256(folder)):
            raise TrainingError(f"{cell}: its {name} was trained from another backbone than is in {folder} now")


def _load(model: nn.Module, saved: Path) -> None:
    if isinstance(model, PeftModel):
        found = set_peft_model_state_dict(model, load_file(saved / "adapter_model.safetensors"))
        odd = [*found.unexpected_keys, *(name for name in found.missing_keys if "lora_" in name)]
        if odd:
            raise RuntimeError(f"{len(odd)} do not match, {odd[0]} among them")
    elif saved.is_dir():
        model.load_state_dict(load_model(type(model), saved, torch.float32).state_dict())
    else:
        model.load_state_dict({"weight": load_file(saved)["gate"]})
