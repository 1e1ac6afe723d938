"""Linear layers with PEFT's adapters that leave less behind for the backward pass, and read memory less often.

PEFT's layer is y = W x + s B A drop(x) in separate operations. Each layer keeps a copy of its input in the adapter's
float32, dropout's mask in float32, and what is left of the input. Here it is one operation for autograd. It keeps the
input as it came, which layers with the same input share; the mask in a byte a number; and A drop(x), which is narrow. All
else the backward pass makes again. Parameters, their names and how they are saved remain PEFT's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def slim(model: nn.Module) -> None:
    """Has all adapters of a model on linear layers computed so. Not for weights that ZeRO-3 gathers module by module."""
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = SlimLinear


class SlimLinear(Linear):
    """PEFT's layer, the same to round-off, with the same draws of dropout."""

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        base, adapters = self.base_layer, self.active_adapters
        plain = not (args or kwargs or self.merged or self.disable_adapters or self.lora_variant) and len(adapters) == 1
        if not plain or self.lora_bias[adapters[0]] or type(base) is not nn.Linear or base.weight.requires_grad:
            return super().forward(x, *args, **kwargs)
        dropout = self.lora_dropout[adapters[0]]
        p = dropout.p if isinstance(dropout, nn.Dropout) and self.training else 0.0
        a, b = self.lora_A[adapters[0]].weight, self.lora_B[adapters[0]].weight
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else base.weight.dtype
        with torch.autocast(device, enabled=False):
            bias = None if base.bias is None else base.bias.to(dtype)
            return _Adapted.apply(x.to(dtype), base.weight.to(dtype), bias, a, b, self.scaling[adapters[0]], p)


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scaling, p):
        row = x.flatten(0, -2)
        mask = _mask(row, p)
        narrow = _drop(row, p, mask) @ a.to(x.dtype).T
        y = F.linear(row, weight, bias).addmm_(narrow, b.to(x.dtype).T, alpha=scaling)
        ctx.save_for_backward(x, weight, a, b, narrow, mask)
        ctx.scaling, ctx.p = scaling, p
        return y.unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, weight, a, b, narrow, mask = ctx.saved_tensors
        shape, gradient = gradient.shape[:-1], gradient.flatten(0, -2)
        b_, a_ = b.to(gradient.dtype), a.to(gradient.dtype)
        of_narrow = (gradient @ b_).mul_(ctx.scaling)
        of_b = (gradient.T @ narrow).mul_(ctx.scaling).to(b.dtype)
        row = x.flatten(0, -2)
        of_a = (of_narrow.T @ _drop(row, ctx.p, mask)).to(a.dtype)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ weight
            of_x = of_x.addmm_(of_narrow, a_) if mask is None else of_x.add_(_drop(of_narrow @ a_, ctx.p, mask))
            of_x = of_x.unflatten(0, shape)
        return of_x, None, None, of_a, of_b, None, None


def _mask(x: Tensor, p: float) -> Tensor | None:
    """Where `F.dropout` of x in float32 keeps what it is given; None: everywhere."""
    if p == 0:
        return None
    if x.is_cuda:
        return torch.native_dropout(x.float(), p, True)[1]
    return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - p)


def _drop(x: Tensor, p: float, mask: Tensor | None) -> Tensor:
    return x if mask is None else (x * mask).mul_(1 / (1 - p))
