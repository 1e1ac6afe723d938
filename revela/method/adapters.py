"""Layers of frozen decoders, with PEFT's adapters or without, that leave less behind for the backward pass.

As transformers and PEFT write them, each adapter keeps a copy of its input in its own type, dropout's mask in the input's
type, and what dropout leaves of the input; a gated MLP keeps both factors of its product and the product; a norm keeps
its input in float32, and the layers behind it its output. Here

    a linear layer with an adapter   y = W x + s B A drop(x), is one operation: it keeps x, a bit a number of dropout's
                                     mask, and A drop(x), which is narrow
    silu(gate) * up                  is one that keeps gate and up
    RMSNorm                          is one that keeps its input as it came

and where x is such a product or norm, x is made again from what that keeps. Parameters, their names and how they are
saved stay as they were. The result is the same to round-off, and so are the draws of dropout.
"""

from __future__ import annotations

from types import CodeType, MethodType

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm


def slim(model: nn.Module) -> None:
    """Has the layers of a model computed so: adapters on linear layers, and Llama's MLPs and norms that are frozen.

    Not for weights that ZeRO-3 gathers module by module, as an operation here takes those of several.
    """
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = SlimLinear
        elif _computes(module, LlamaMLP) and isinstance(module.act_fn, (nn.SiLU, SiLUActivation)):
            module.forward = MethodType(_mlp, module)
        elif _computes(module, LlamaRMSNorm) and not module.weight.requires_grad:
            module.forward = MethodType(_norm, module)


def _computes(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module's forward is that of a class, as many models have copies of Llama's."""
    ours, theirs = getattr(type(module).forward, "__code__", None), kind.forward.__code__
    return isinstance(ours, CodeType) and (ours.co_code, ours.co_names) == (theirs.co_code, theirs.co_names)


class SlimLinear(Linear):
    """PEFT's layer with one adapter; anything else goes PEFT's way."""

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        """x [..., in] -> [..., out]; under autocast in its type."""
        base, adapters = self.base_layer, self.active_adapters
        plain = not (args or kwargs or self.merged or self.disable_adapters or self.lora_variant) and len(adapters) == 1
        if not plain or self.lora_bias[adapters[0]] or type(base) is not nn.Linear or base.weight.requires_grad:
            return super().forward(x, *args, **kwargs)
        dropout = self.lora_dropout[adapters[0]]
        p = dropout.p if isinstance(dropout, nn.Dropout) and self.training else 0.0
        a, b = self.lora_A[adapters[0]].weight, self.lora_B[adapters[0]].weight
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else base.weight.dtype
        again, *kept = getattr(x, "made_again", (None, x)) if x.dtype == dtype else (None, x.to(dtype))
        with torch.autocast(device, enabled=False):
            bias = None if base.bias is None else base.bias.to(dtype)
            scaling = self.scaling[adapters[0]]
            return _Adapted.apply(x.to(dtype), base.weight.to(dtype), bias, a, b, scaling, p, again, *kept)


class _Adapted(torch.autograd.Function):
    """again(*kept) is x; without it, the one that is kept is x."""

    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scaling, p, again, *kept):
        row = x.flatten(0, -2)
        mask = _mask(row, p)
        narrow = _drop(row, p, mask) @ a.to(x.dtype).T
        y = F.linear(row, weight, bias).addmm_(narrow, b.to(x.dtype).T, alpha=scaling)
        ctx.save_for_backward(weight, a, b, narrow, None if mask is None else _packed(mask), *kept)
        ctx.scaling, ctx.p, ctx.again = scaling, p, again
        return y.unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        weight, a, b, narrow, bits, *kept = ctx.saved_tensors
        x = ctx.again(*kept) if ctx.again else kept[0]
        shape, gradient = x.shape, gradient.flatten(0, -2)
        mask = None if bits is None else _unpacked(bits, x.flatten(0, -2).shape)
        of_narrow = (gradient @ b.to(gradient.dtype)).mul_(ctx.scaling)
        of_b = (gradient.T @ narrow).mul_(ctx.scaling).to(b.dtype)
        of_a = (of_narrow.T @ _drop(x.flatten(0, -2), ctx.p, mask)).to(a.dtype)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x, a = gradient @ weight, a.to(gradient.dtype)
            of_x = of_x.addmm_(of_narrow, a) if mask is None else of_x.add_(_drop(of_narrow @ a, ctx.p, mask))
            of_x = of_x.view(shape)
        return of_x, None, None, of_a, of_b, *[None] * (3 + len(kept))


def _mask(x: Tensor, p: float) -> Tensor | None:
    """Where `F.dropout` of x in float32 keeps what it is given; None: everywhere."""
    if p == 0:
        return None
    if x.is_cuda:
        return torch.native_dropout(x.float(), p, True)[1]
    return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - p)


def _drop(x: Tensor, p: float, mask: Tensor | None) -> Tensor:
    return x if mask is None else (x * mask).mul_(1 / (1 - p))


def _packed(mask: Tensor) -> Tensor:
    """Eight booleans in a byte."""
    eights = F.pad(mask.flatten(), (0, -mask.numel() % 8)).view(torch.int64)
    return (
        (eights * 0x0102040810204080).bitwise_right_shift_(56).to(torch.uint8)
    )  # the n-th byte's bit becomes the n-th


def _unpacked(bits: Tensor, shape: torch.Size) -> Tensor:
    """The mask of a shape that was packed."""
    eights = bits.to(torch.int64).mul_(0x0101010101010101).bitwise_and_(0x8040201008040201 - 2**64)
    return eights.view(torch.uint8).bool()[: shape.numel()].view(shape)


# --- inputs that are made again


def _mlp(self: nn.Module, x: Tensor) -> Tensor:
    """Llama's MLP."""
    gate, up = self.gate_proj(x), self.up_proj(x)
    product = _Gated.apply(gate, up)
    product.made_again = _gated, gate.detach(), up.detach()
    return self.down_proj(product)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return _gated(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradient * up, gate), F.silu(gate).mul_(gradient)


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate).mul_(up)


def _norm(self: nn.Module, x: Tensor) -> Tensor:
    """Llama's RMSNorm, in float32 inside."""
    scale = torch.rsqrt(x.detach().float().square().mean(-1, keepdim=True) + self.variance_epsilon)
    out = _Normed.apply(x, scale, self.weight)
    out.made_again = _normed, x.detach(), scale, self.weight
    return out


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, weight):
        ctx.save_for_backward(x, scale, weight)
        return _normed(x, scale, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, scale, weight = ctx.saved_tensors
        gradient, unit = (gradient * weight).float(), x.float() * scale
        along = (gradient * unit).mean(-1, keepdim=True)
        return gradient.sub(unit.mul_(along)).mul_(scale).to(x.dtype), None, None


def _normed(x: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    return weight * (x.float() * scale).to(x.dtype)
