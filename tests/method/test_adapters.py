"""Adapters that leave less behind, against PEFT's own forward."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import nn

from revela.method.adapters import SlimLinear, slim


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(24, 40), nn.Linear(24, 16, bias=False)

    def forward(self, x):
        return self.first(x), self.second(x)


def pair(dropout, dtype=torch.float32):
    """The same adapters twice, by PEFT and slim, on weights of a type."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=6, lora_dropout=dropout, target_modules=["first", "second"])
    theirs = get_peft_model(Two(), config)
    for name, weight in theirs.named_parameters():
        nn.init.normal_(weight, std=0.3)
        if "lora" not in name:
            weight.data = weight.data.to(dtype)
    ours = copy.deepcopy(theirs)
    slim(ours)
    assert [type(module) for module in ours.modules()].count(SlimLinear) == 2
    return ours, theirs


def run(model, x, *, autocast=False):
    x = x.clone().requires_grad_()
    torch.manual_seed(7)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        first, second = model(x)
        after = torch.rand(3)  # the draws that follow are the same as well
    loss = (first.float() * torch.linspace(-1, 1, 40)).sum() + second.float().square().sum()
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {"first": first, "second": second, "x": x.grad, "after": after, **gradients}


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5])
def test_the_same_in_float32(dropout):
    """Only round-off differs, so every number of dropout is drawn as PEFT draws it."""
    ours, theirs = pair(dropout)
    x = torch.randn(2, 9, 24)
    torch.testing.assert_close(run(ours, x), run(theirs, x), rtol=1e-5, atol=1e-5)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(run(ours, x), run(theirs, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_no_further_from_float32_under_autocast(dropout):
    ours, theirs = pair(dropout, torch.bfloat16)
    _, exact = pair(dropout)
    for weight, rounded in zip(exact.parameters(), theirs.parameters()):
        weight.data = rounded.data.float()
    x = torch.randn(2, 9, 24).bfloat16()
    exact = run(exact, x.float())
    found = [run(model, x, autocast=True) for model in (ours, theirs)]
    assert found[0].keys() == found[1].keys()
    for name, mine in found[0].items():
        errors = [(one.float() - exact[name]).norm() for one in (mine, found[1][name])]
        assert mine.dtype == found[1][name].dtype and errors[0] <= 1.2 * errors[1] + 1e-6, name


def test_what_stays_behind():
    """One input for both layers, a byte a number for each mask, and what is narrow. PEFT keeps over three times that."""

    def kept(model):
        storages = {}

        def pack(tensor):
            if not isinstance(tensor, nn.Parameter):
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        x = torch.randn(50, 24, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = model(x)
        del out
        return sum(storages.values())

    ours, theirs = pair(0.1)
    assert kept(ours) == 50 * (24 * 4 + 2 * 24 + 2 * 4 * 4)
    assert kept(theirs) > 3 * kept(ours)


def test_what_is_left_to_peft():
    """Merged and disabled adapters, and weights that are trained, go PEFT's way."""
    ours, theirs = pair(0.0)
    x = torch.randn(5, 24)
    with ours.disable_adapter(), theirs.disable_adapter():
        assert torch.equal(ours(x)[0], theirs(x)[0])
    ours.merge_adapter(), theirs.merge_adapter()
    assert torch.equal(ours(x)[0], theirs(x)[0])
    assert isinstance(ours.base_model.model.first, Linear)  # to be saved by PEFT
