"""Attention on a CPU: in bfloat16 against float64, and the sum over texts against softmax written out."""

import pytest
import torch
import torch.nn.functional as F
from test_inbatch import make, make_batch
from torch.utils.checkpoint import checkpoint

from revela.method import inbatch, packing, short
from revela.method.inbatch import logits
from revela.method.packing import Packing
from revela.method.short import causal_attention, summed_attention


def relative(ours, exact):
    return ((ours.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("window", [None, 3])
def test_causal_attention(window):
    """Values are torch's own; gradients are as near to float64 as bfloat16 inputs and outputs allow."""
    generator = torch.Generator().manual_seed(0)
    query, key, value, probe = (torch.randn(3, heads, 7, 8, generator=generator).bfloat16() for heads in (4, 2, 2, 4))
    back = torch.arange(7)[:, None] - torch.arange(7)
    mask = None if window is None else (back >= 0) & (back < window)
    inputs = [x.clone().requires_grad_() for x in (query, key, value)]
    out = causal_attention(*inputs, mask, scale=0.4)
    exact = [x.double().requires_grad_() for x in (query, key, value)]
    settings = {"attn_mask": mask, "is_causal": mask is None, "scale": 0.4, "enable_gqa": True}
    assert torch.equal(out, F.scaled_dot_product_attention(query, key, value, **settings))
    ours = torch.autograd.grad(out, inputs, probe)
    theirs = torch.autograd.grad(F.scaled_dot_product_attention(*exact, **settings), exact, probe.double())
    for gradient, reference in zip(ours, theirs):
        assert gradient.dtype == torch.bfloat16 and relative(gradient, reference) < 4e-3  # 2**-8 is a rounding


@pytest.mark.parametrize("value_norm", [False, True])
@pytest.mark.parametrize("spread", [1.0, 0.02])  # Sim of all pairs, and of some
@pytest.mark.parametrize("frozen", [True, False])
def test_in_batch_attention_in_bfloat16(frozen, spread, value_norm, monkeypatch):
    """Logits and the gradient to Sim are as near to float64 as they are by torch's attention."""
    ids, mask, sim = make_batch((5, 2, 7, 4, 6), spread=spread)
    found = []
    for dtype, fast in ((torch.bfloat16, True), (torch.bfloat16, False), (torch.float64, False)):
        monkeypatch.setattr(packing, "fast_products", lambda query, fast=fast: fast)
        monkeypatch.setattr(inbatch, "fast_products", lambda query, fast=fast: fast)
        lm = make("Qwen2", dtype).requires_grad_(not frozen)
        given = sim.detach().to(torch.promote_types(dtype, torch.float32)).requires_grad_()
        out = logits(lm, ids, mask, given, value_norm=value_norm, gate=0.5)[mask.bool()]
        probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
        (gradient,) = torch.autograd.grad((out.log_softmax(1) * probe).sum(), [given])
        found.append((out, gradient * sim.detach()))  # what the softmax of Sim passes on
    for ours, plain, exact in zip(*found):
        assert relative(ours, exact) < 1.5 * relative(plain, exact) < 0.4


def test_gradient_checkpointing_makes_it_again():
    """A checkpoint lets what is saved be looked at once."""
    query, key, value = (torch.randn(2, heads, 5, 8).bfloat16().requires_grad_() for heads in (4, 2, 2))

    def run(*inputs):
        return causal_attention(*inputs, None, scale=0.4)

    gradients = [
        torch.autograd.grad(out.float().square().sum(), [query, key, value])
        for out in (run(query, key, value), checkpoint(run, query, key, value, use_reentrant=False))
    ]
    assert all(map(torch.equal, *gradients))


def sum_of_texts(query, key, value, weights, lengths, scale):
    """Head by head and text by text."""
    groups, heads = query.shape[1] // key.shape[1], []
    for head, q in enumerate(query[0]):
        k, v = (x[0, head // groups].split(lengths) for x in (key, value))
        weight = weights[head % len(weights)]
        heads.append(sum(weight[:, [j]] * ((scale * q @ k[j].T).softmax(1) @ v[j]) for j in range(len(lengths))))
    return torch.stack(heads)[None]


@pytest.mark.parametrize("scores", [1, 60, 2**18])  # a token at a time, a few, all
@pytest.mark.parametrize("trained", ["", "key", "value", "key value"])  # adapters may be on one of the two alone
@pytest.mark.parametrize("of_heads", [1, 6])
@pytest.mark.parametrize("keys", [1, 2, 6])
def test_summed_attention(keys, of_heads, trained, scores, monkeypatch):
    monkeypatch.setattr(short, "SCORES", scores)
    generator, lengths = torch.Generator().manual_seed(0), [3, 1, 5]

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    given = {"query": draw(1, 11, 6, 4).transpose(1, 2), "key": draw(1, keys, 9, 4), "value": draw(1, keys, 9, 4)}
    given["weights"] = draw(of_heads, 11, 3)
    inputs = [given[name].requires_grad_() for name in ("query", "weights", *trained.split())]
    found = summed_attention(*given.values(), lengths, scale=0.7)
    expected = sum_of_texts(*given.values(), lengths, 0.7)
    torch.testing.assert_close(found, expected)
    probe = draw(*found.shape)
    torch.testing.assert_close(*(torch.autograd.grad(out, inputs, probe) for out in (found, expected)))


@pytest.mark.parametrize("spread, expected", [(1.0, {"_summed"}), (0.02, {"_sparse"})])
def test_a_cpu_sums_where_most_pairs_count(spread, expected, monkeypatch):
    """Not in bfloat16, not under autocast, and not where V-normalisation divides each pair."""
    taken, way = set(), inbatch._Batch.way

    def noted(*given):
        taken.add(way(*given).__name__)
        return way(*given)

    monkeypatch.setattr(inbatch._Batch, "way", noted)
    ids, mask, sim = make_batch((5, 2, 7, 4, 6), spread=spread, dtype=torch.float32)

    def ways(dtype=torch.float32, *, value_norm=False, autocast=False):
        taken.clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits(make(dtype=dtype), ids, mask, sim, value_norm=value_norm)
        return set(taken)

    assert ways() == expected
    assert ways(value_norm=True) == {"_sparse"} and "_summed" not in ways(torch.bfloat16) | ways(autocast=True)


def test_grid_and_back():
    """The grid repeats a text's last token at its pads; gradients pass exactly the tokens, of two streams."""
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    places = Packing(mask, streams=2)
    row = torch.randn(1, 2, 16, 3, dtype=torch.float64, requires_grad=True)
    grid = places.to_grid(row)
    assert grid.shape == (6, 2, 4, 3) and torch.equal(grid[4, :, 2], row[0, :, 11])
    assert torch.equal(places.from_grid(grid), row.transpose(1, 2))
    tokens = mask.repeat(2, 1)[:, None, :, None]
    assert torch.autograd.gradcheck(lambda row: places.to_grid(row) * tokens, row)
    assert torch.autograd.gradcheck(places.from_grid, torch.randn_like(grid, requires_grad=True))
