"""Cross-entropy with its gradient from the forward pass, against autograd's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from revela.objectives import head

SIZE, VOCABULARY, SCALE = 12, 30, 1 / 3  # of the gradient that comes in


def plain(layer, hidden, labels):
    return F.cross_entropy(layer(hidden).float(), labels, reduction="sum")


def loss_and_gradient(function, hidden):
    hidden = hidden.clone().requires_grad_()
    loss = function(hidden)
    (loss * SCALE).backward()
    return loss.detach(), hidden.grad


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 8e-3)])
def test_it_is_cross_entropy(dtype, tolerance, bias, pieces):
    """The same loss, and a gradient that differs by a rounding at most."""
    torch.manual_seed(0)
    layer = nn.Linear(SIZE, VOCABULARY, bias=bias, dtype=dtype).requires_grad_(False)
    hidden, labels = 3 * torch.randn(10, SIZE, dtype=dtype), torch.randint(VOCABULARY, (10,))
    assert head.takes(layer, hidden)
    loss, gradient = loss_and_gradient(lambda x: head.cross_entropy(layer, x, labels, pieces), hidden)
    expected, reference = loss_and_gradient(lambda x: plain(layer, x, labels), hidden)
    assert loss.dtype == torch.float32 and gradient.dtype == dtype
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert (gradient - reference).norm() <= tolerance * reference.norm()
    exact = loss_and_gradient(lambda x: plain(layer.double(), x, labels), hidden.double())[1]
    assert (gradient - exact).norm() <= 1.2 * (reference - exact).norm() + 1e-7


def test_nothing_is_kept_but_the_gradient():
    layer, hidden = nn.Linear(SIZE, VOCABULARY).requires_grad_(False), torch.randn(10, SIZE, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda x: x):
        head.cross_entropy(layer, hidden, torch.zeros(10, dtype=torch.long), 2)
    assert kept == [(10, SIZE)]
    with torch.no_grad():
        loss = head.cross_entropy(layer, hidden, torch.zeros(10, dtype=torch.long), 2)
    torch.testing.assert_close(loss, plain(layer, hidden, torch.zeros(10, dtype=torch.long)))


def test_heads_that_autograd_keeps():
    """Trained ones, those of another type, those that are gathered when they are called, and those that are no layer."""
    hidden = torch.randn(2, SIZE)
    frozen = nn.Linear(SIZE, VOCABULARY).requires_grad_(False)
    assert head.takes(frozen, hidden) and not head.takes(frozen, hidden.bfloat16())
    assert not head.takes(nn.Linear(SIZE, VOCABULARY), hidden)
    assert not head.takes(nn.Sequential(frozen), hidden)
    frozen.weight.data = torch.empty(0)
    assert not head.takes(frozen, hidden)
