"""Tiny's backbones: tokenizer, rows, optimiser, similarities and the gate."""

import numpy as np
import pytest
import torch

from revela.tiny import data, optimizer, pretraining, two_streams
from revela.tiny.settings import BackboneShape, Pretraining

SHAPE = BackboneShape(hidden_size=32, layers=2, heads=2, intermediate_size=64, tokens=1)
SETTINGS = Pretraining(models={"tiny": SHAPE}, gate_batches=4)
TEXTS = ["def splitLines(text): return text", "split lines of a text, and join_lines again"] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return data.train_tokenizer(iter(TEXTS), 300)


def test_identifiers_and_prose_share_their_tokens(tokenizer):
    ids = [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("splitLines", "split  LINES", "split_lines")
    ]
    assert ids[0] == ids[1] != ids[2]


def test_a_text_begins_with_bos_and_any_byte_has_a_token(tokenizer):
    ids = tokenizer("naïve 東")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == "naïve東"


def test_contexts_hold_consecutive_chunks():
    rows = data.contexts([[[5, 6], [7]], [[8, 9, 10]]], length=5, bos=0, eos=1)
    # 0 5 6 1 7 | 1 is cut; the next row begins with BOS again
    assert rows.tolist() == [[0, 5, 6, 1, 7], [0, 8, 9, 10, 1]]


def test_encode_keeps_documents_apart_and_cuts_at_the_limit(tokenizer):
    whole = tokenizer(TEXTS[1], add_special_tokens=False)["input_ids"]
    assert data.encode(tokenizer, [[TEXTS[1], "text"], [], [TEXTS[1]]], 3) == [
        [whole[:3], tokenizer("text", add_special_tokens=False)["input_ids"][:3]],
        [],
        [whole[:3]],
    ]


def test_a_repetition_can_be_copied():
    source = np.arange(64)
    row = data.repetition(np.random.default_rng(0), source)
    assert len(row) == 64 and row[0] == 0 and set(row[1:]) <= set(source[1:])
    assert any((row[1 + span :] == row[1:-span]).all() for span in range(8, 32))


def test_an_untrained_model_copies():
    torch.manual_seed(0)
    shape = BackboneShape(hidden_size=128, layers=2, heads=2, intermediate_size=128, tokens=1)
    lm = pretraining.language_model(shape, 64, 500, bos=0, eos=1)
    stretch = torch.randint(2, 500, (8, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = pretraining.next_token_loss(lm, torch.cat([torch.zeros(8, 1, dtype=torch.long), stretch, stretch], 1))
    assert loss[:, 31:].mean() < loss[:, :30].mean() - 2


@pytest.mark.parametrize("shape", [(3, 24, 8), (2, 8, 24), (1, 16, 16)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(optimizer._orthogonalise(matrices))
    assert 0.4 < values.min() and values.max() < 1.4


def test_muon_descends():
    weight = torch.nn.Parameter(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    muon = optimizer.Muon([weight], 0.05)
    losses = []
    for _ in range(80):
        loss = (weight**2).sum()
        losses.append(loss.item())
        weight.grad = None
        loss.backward()
        muon.step()
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("name", ["oracle", "uniform", "wrong", "random"])
def test_similarities_are_rows_of_weights(name):
    document = torch.arange(4).repeat_interleave(4)
    if name == "random":
        sim = two_streams.random_similarity(document, np.random.default_rng(0))
    else:
        sim = getattr(two_streams, name)(document)
    assert torch.allclose(sim.sum(1), torch.ones(16)) and (sim.diagonal() == 0).all()
    same = document[:, None] == document
    if name == "oracle":
        assert (sim[~same] == 0).all() and torch.allclose(sim[0, 1:4], torch.full((3,), 1 / 3))
    if name == "wrong":
        assert (sim[same] == 0).all()


def batches(documents=8):
    generator = np.random.default_rng(0)
    texts = [[generator.integers(2, 60, 5 + i % 3).tolist() for i in range(4)] for _ in range(documents)]
    return two_streams.TwoStreamBatches(texts, group=2, chunks=3, bos=0, eos=1)


def test_two_stream_batches_know_their_documents():
    ids, mask, document = batches().draw(np.random.default_rng(0))
    assert document.tolist() == [0, 0, 0, 1, 1, 1]
    assert (ids[:, 0] == 0).all() and (ids[mask == 0] == 1).all() and mask.sum(1).min() >= 6


def test_a_model_that_cannot_use_another_chunk_does_not_pass_the_gate():
    torch.manual_seed(0)
    lm = pretraining.language_model(SHAPE, 64, 60, bos=0, eos=1)
    facts = two_streams.gate(lm, batches(), SETTINGS)
    assert facts["gain"] == pytest.approx(facts["h_uniform"] - facts["h_oracle"], abs=2e-4)
    with pytest.raises(two_streams.GateError, match="pretrain on more tokens"):
        two_streams.check_gate(facts, SETTINGS)
    two_streams.check_gate({"gain": 0.15, "standard_error": 0.02}, SETTINGS)
    with pytest.raises(two_streams.GateError, match="0.15"):
        two_streams.check_gate({"gain": 0.15, "standard_error": 0.06}, SETTINGS)
