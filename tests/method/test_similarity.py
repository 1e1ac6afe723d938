"""Sim of section 3.3."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from revela.method.cosine import scores
from revela.method.similarity import similarity


def directions(*angles):
    """Unit vectors in the plane; their cosine is that of the difference of their angles."""
    angles = torch.tensor(angles, dtype=torch.float64)
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_worked_by_hand():
    # Document 0 as a query meets passages 1 and 2 at 60 and 90 degrees: cosines 1/2 and 0, over tau 1/2: 1 and 0.
    queries, passages = directions(0, 0, 0), directions(0, math.pi / 3, math.pi / 2)
    sim = similarity(queries, passages, temperature=0.5)
    e = math.e
    assert torch.allclose(sim[0], torch.tensor([0, e / (e + 1), 1 / (e + 1)], dtype=torch.float64))
    # Query 1 meets passages 0 and 2: cosines 1 and 0.
    assert torch.allclose(sim[1], torch.tensor([e**2 / (e**2 + 1), 0, 1 / (e**2 + 1)], dtype=torch.float64))


def test_a_query_weighs_passages_so_it_is_not_symmetric():
    queries, passages = directions(0.1, 0.5, 2.0), directions(0.3, 1.5, 0.2)
    sim = similarity(queries, passages, temperature=0.2)
    assert torch.allclose(sim, similarity(queries, passages, temperature=0.2))
    assert not torch.allclose(sim, similarity(passages, queries, temperature=0.2))
    # Row 2 does not depend on passage 2, column 2 not on query 2: the diagonal is no candidate.
    passages[2] = directions(-1.0)[0]
    assert torch.equal(sim[2], similarity(queries, passages, temperature=0.2)[2])


@given(
    st.integers(2, 9), st.integers(1, 6), st.sampled_from([1.0, 0.05, 1e-4]), st.sampled_from(["float32", "bfloat16"])
)
def test_rows_are_distributions_over_the_others(size, dim, temperature, dtype):
    generator = torch.Generator().manual_seed(size * dim)
    queries, passages = torch.randn(2, size, dim, generator=generator)
    sim = similarity(queries, passages, temperature=temperature, dtype=getattr(torch, dtype))
    assert sim.dtype == torch.float32
    assert (sim >= 0).all() and not sim.diagonal().any()
    assert torch.allclose(sim.sum(1), torch.ones(size))


def test_cosines_do_not_depend_on_lengths():
    queries, passages = torch.randn(2, 5, 3, dtype=torch.float64)
    scaled = similarity(queries * 7, passages * torch.rand(5, 1).double(), temperature=0.1)
    assert torch.allclose(scaled, similarity(queries, passages, temperature=0.1))


def test_gradient_by_finite_differences():
    queries, passages = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda q, p: similarity(q, p, temperature=0.3), (queries, passages))


def test_bfloat16_cosines_tie():
    # Near 0.8 a bfloat16 step is 2^-8: these cosines are one and the same, and so share the weight and the gradient.
    passages = directions(0.0, math.acos(0.8001), math.acos(0.8002), math.acos(0.5)).float().requires_grad_()
    queries = directions(0.0, 0.0, 0.0, 0.0).float()
    assert torch.allclose(
        similarity(queries, passages, temperature=1e-4, dtype=torch.float32)[0],
        torch.tensor([0, 1 / (math.e + 1), math.e / (math.e + 1), 0]),
        atol=2e-3,
    )
    sim = similarity(queries, passages, temperature=1e-4, dtype=torch.bfloat16)
    assert torch.equal(sim[0], torch.tensor([0, 0.5, 0.5, 0]))
    sim[0, 1].backward()
    assert passages.grad[1].abs().max() > 1000 and torch.allclose(passages.grad[1], -passages.grad[2])


def test_autocast_does_not_lower_the_precision():
    queries, passages = torch.randn(2, 6, 8)
    expected = similarity(queries, passages, temperature=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(similarity(queries, passages, temperature=1e-3), expected)


def test_scores_are_cosines_over_the_temperature():
    queries, passages = directions(0.0), directions(0.0, math.pi / 3, math.pi)
    assert torch.allclose(scores(3 * queries, passages, temperature=0.1)[0], torch.tensor([10, 5, -10]).double())


@pytest.mark.parametrize("shapes", [((3, 4), (2, 4)), ((1, 4), (1, 4)), ((4,), (4,))])
def test_shapes_that_are_no_batch(shapes):
    with pytest.raises(ValueError, match=r"\[B, d\]"):
        similarity(*map(torch.ones, shapes), temperature=0.1)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match="temperature"):
        similarity(torch.ones(2, 2), torch.ones(2, 2), temperature=temperature)
