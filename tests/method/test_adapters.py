"""Adapters that leave less behind, against PEFT's own forward."""

import copy

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import nn

from revela.method import adapters
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
    """One input for both layers, a bit a number for each mask, and what is narrow. PEFT keeps over three times that."""

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
    assert kept(ours) == 50 * (24 * 4 + 2 * 24 // 8 + 2 * 4 * 4)
    assert kept(theirs) > 3 * kept(ours)


@pytest.mark.parametrize("shape", [(3, 8), (5, 7), (1, 1), (64, 33)])
def test_masks_are_packed(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.9
    bits = adapters._packed(mask)
    assert bits.dtype == torch.uint8 and bits.numel() == -(-mask.numel() // 8)
    assert torch.equal(adapters._unpacked(bits, mask.shape), mask)
    every = torch.arange(256).repeat_interleave(8).view(256, 8) >> torch.arange(8) & 1
    assert adapters._packed(every.bool()).tolist() == list(range(256))


def test_what_is_left_to_peft():
    """Merged and disabled adapters, and weights that are trained, go PEFT's way."""
    ours, theirs = pair(0.0)
    x = torch.randn(5, 24)
    with ours.disable_adapter(), theirs.disable_adapter():
        assert torch.equal(ours(x)[0], theirs(x)[0])
    ours.merge_adapter(), theirs.merge_adapter()
    assert torch.equal(ours(x)[0], theirs(x)[0])
    assert isinstance(ours.base_model.model.first, Linear)  # to be saved by PEFT


CONFIG = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
CONFIG |= {"num_key_value_heads": 1, "vocab_size": 50, "head_dim": 8}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def decoders(architecture, dropout=0.0):
    """A decoder with adapters, slim and as PEFT and transformers have it."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**CONFIG)
    lm = getattr(transformers, f"{architecture}ForCausalLM")(config)
    lora = LoraConfig(r=4, lora_alpha=6, lora_dropout=dropout, target_modules=TARGETS, task_type="CAUSAL_LM")
    theirs = get_peft_model(lm, lora)
    for name, weight in theirs.named_parameters():
        if weight.ndim > 1 or "norm" in name:
            nn.init.normal_(weight, mean=float("norm" in name), std=0.2)
    ours = copy.deepcopy(theirs)
    slim(ours)
    return ours.train(), theirs.train()


def logits_and_gradients(model, checkpointing=False):
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    torch.manual_seed(3)
    ids = torch.randint(50, (3, 11))
    logits = model(input_ids=ids, use_cache=False).logits
    logits.log_softmax(-1)[..., 7].sum().backward()
    return {"logits": logits, **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("architecture, slimmed", [("Llama", 4), ("Qwen2", 4), ("Qwen3", 8), ("Gemma", 0)])
def test_decoders(architecture, slimmed, checkpointing):
    """Norms, MLPs and adapters together; Gemma's norms and activation are others, and stay its own."""
    ours, theirs = decoders(architecture, dropout=0.1)
    norms = [module for module in ours.modules() if getattr(module.forward, "__func__", None) is adapters._norm]
    assert len(norms) == slimmed + bool(slimmed)  # and the last one
    found, expected = (logits_and_gradients(model, checkpointing) for model in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=1e-5)


def test_a_decoder_keeps_what_its_layers_share():
    """Of float32 numbers a token: the residual before each norm, gate and up, and narrow ones; attention's come on top."""

    def kept(model):
        storages = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if not isinstance(tensor, nn.Parameter) and tensor.numel() > 50:
                storages[storage.data_ptr()] = storage, storage.nbytes()
            return tensor

        layer = model.get_decoder().layers[0]
        x = torch.randn(1, 100, 24, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = layer.mlp(layer.post_attention_layernorm(x))
        del out
        parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
        return sum(size for pointer, (_, size) in storages.items() if pointer not in parameters)

    ours, theirs = (kept(model) for model in decoders("Llama"))
    assert ours == 4 * 100 * (24 + 1 + 2 * 40 + 3 * 4)
    assert theirs == 4 * 100 * (24 + 1 + 24 + 4 * 40 + 3 * 4)


def test_gradients_in_float64():
    gate, up = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(adapters._Gated.apply, (gate, up))
    ours, theirs = (transformers.models.llama.modeling_llama.LlamaRMSNorm(12) for _ in range(2))
    ours.weight.requires_grad_(False).normal_()
    theirs.load_state_dict(ours.state_dict())
    slim(nn.ModuleList([ours]))
    x, probe = torch.randn(7, 12, requires_grad=True), torch.randn(7, 12)
    assert torch.equal(ours(x), theirs(x))
    gradients = [torch.autograd.grad(norm(x), x, probe)[0] for norm in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
