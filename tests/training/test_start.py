"""A run that begins with the weights of another cell: all of them, in their places, or a sentence on why not."""

import pytest
import torch
from safetensors.torch import save_file

from revela.objectives.contriever import Contriever
from revela.objectives.revela import Revela
from revela.provenance import folder_sha256, write_manifest
from revela.retriever import save_adapter
from revela.study.settings import Training
from revela.training import TrainingError
from revela.training.engine import load_models
from revela.training.start import GATE, beginning_with, check_backbones, load_weights

LORA = {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj", "v_proj", "down_proj"]}
LEARNED = {"cross_attention": {"gate": 0.05, "learned": "head"}}
KINDS = {
    "adapters": {"lora": LORA},
    "all weights": {},
    "adapters beside a frozen LM": {"lora": LORA, "freeze_lm": True},
    "all weights of the retriever": {"freeze_lm": True},
    "a learned gate": {"lora": LORA, **LEARNED},
}


def settings(**changes):
    return Training(retriever_max_length=32, lm_max_length=32, precision="fp32", **changes)


def trained(objective):
    """name -> weight, of all that is trained."""
    return {name: weight.detach() for name, weight in objective.named_parameters() if weight.requires_grad}


@pytest.fixture
def cell(tmp_path, backbone, lm):
    """Makes the folder of a cell that differs from its backbones in all weights. Returns it and its objective."""

    def make(**changes):
        objective = Revela(settings(**changes), *load_models(settings(**changes), backbone, lm))
        generator, folder = torch.Generator().manual_seed(7), tmp_path / "cell"
        for weight in trained(objective).values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
        objective.retriever.save(folder / "retriever")
        if changes.get("lora") and not changes.get("freeze_lm"):
            save_adapter(objective.lm, folder / "lm", str(lm))
        elif not changes.get("freeze_lm"):
            objective.lm.save_pretrained(folder / "lm")
        if objective.learned_gate:
            save_file({"gate": objective.learned_gate.weight.detach().clone()}, folder / GATE)
        inputs = {"retriever": folder_sha256(backbone), "lm": folder_sha256(lm)}
        write_manifest(folder, cell="revela/code/tiny/tiny/bs4", inputs=inputs, steps=8)
        return folder, objective

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_all_weights_are_those_that_were_saved(cell, backbone, lm, kind):
    folder, expected = cell(**KINDS[kind])
    ours, other = settings(**KINDS[kind]), settings(**KINDS[kind], seed=1)
    begun = beginning_with(folder, Revela)(other, *load_models(other, backbone, lm))
    assert isinstance(begun, Revela) and trained(begun).keys() == trained(expected).keys()
    assert all(torch.equal(weight, trained(expected)[name]) for name, weight in trained(begun).items())
    plain = trained(Revela(ours, *load_models(ours, backbone, lm)))
    assert not any(torch.equal(weight, plain[name]) for name, weight in trained(begun).items())


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("adapters", {"lora": LORA | {"rank": 8}}, "retriever: its weights are not those of the retriever here"),
        ("adapters", {"lora": LORA | {"targets": ["q_proj"]}}, "8 do not match"),
        ("adapters", {"lora": LORA | {"targets": [*LORA["targets"], "o_proj"]}}, "4 do not match"),
        ("adapters", {}, "retriever: its weights are not those of the retriever here"),
        ("all weights", {"lora": LORA}, "retriever: its weights are not those of the retriever here"),
        ("adapters", {"lora": LORA, "freeze_lm": True}, "lm: its weights are there, and the lm's are not trained here"),
        ("adapters beside a frozen LM", {"lora": LORA}, "lm: its weights are not there, and the lm's are trained here"),
        ("adapters", {"lora": LORA, **LEARNED}, f"{GATE}: its weights are not there, and the gate's are trained here"),
        ("a learned gate", {"lora": LORA}, f"{GATE}: its weights are there, and the gate's are not trained here"),
    ],
)  # fmt: skip
def test_no_weight_is_passed_over(cell, backbone, lm, kind, changes, said):
    folder, _ = cell(**KINDS[kind])
    objective = Revela(settings(**changes), *load_models(settings(**changes), backbone, lm))
    with pytest.raises(TrainingError) as error:
        load_weights(objective, folder)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_retriever_alone_takes_no_language_model(cell, backbone):
    folder, _ = cell(lora=LORA)
    objective = Contriever(settings(lora=LORA), *load_models(settings(lora=LORA), backbone, None))
    with pytest.raises(TrainingError, match="lm: its weights are there, and the lm's are not trained here"):
        load_weights(objective, folder)


def test_the_backbones_are_those_of_the_cell(cell, backbone, lm):
    folder, _ = cell(lora=LORA)
    check_backbones(folder, backbone, lm)
    for wrong in ((lm, lm), (backbone, backbone), (backbone, None)):
        with pytest.raises(TrainingError, match="was trained from another backbone than is in"):
            check_backbones(folder, *wrong)
