"""Muon, and gradients averaged over processes."""

from __future__ import annotations

import torch
import torch.distributed as dist


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by five Newton-Schulz steps (Jordan et al., 2024), in float32.

    torch.optim.Muon orthogonalises in bfloat16, which takes three times as long on a CPU without bfloat16 instructions.
    Parameters of one shape are handled as one stack.
    """

    def __init__(self, parameters, learning_rate: float, momentum: float = 0.95):
        super().__init__(parameters, {"lr": learning_rate, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """Updates every matrix from its gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                updates = []
                for parameter in parameters:
                    buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                    buffer.lerp_(parameter.grad, 1 - group["momentum"])
                    updates.append(torch.lerp(parameter.grad, buffer, group["momentum"]))
                scale = -group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, update in zip(parameters, _orthogonalise(torch.stack(updates)), strict=True):
                    parameter.add_(update, alpha=scale)


def _orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Each [m, n] of a stack with its singular values brought to about 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


def average_gradients(module: torch.nn.Module) -> None:
    """Mean of the gradients over the processes, in one message."""
    if dist.get_world_size() > 1:
        gradients = [p.grad for p in module.parameters()]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
