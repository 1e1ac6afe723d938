"""The objectives: what they make of a row, and the loss they make of that."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from revela.method import inbatch, similarity
from revela.objectives import replug, replug_scores
from revela.objectives import revela as revela_module
from revela.objectives.contriever import Contriever
from revela.objectives.replug import Replug
from revela.objectives.replug_scores import score_batch
from revela.objectives.revela import Revela
from revela.objectives.tokens import ObjectiveError
from revela.retriever import Retriever
from revela.study.methods import METHODS
from revela.study.settings import Training
from revela.study.specification import ReplugScoreSpec
from revela.training.compilation import compile_layers

TEXTS = [
    "A retriever finds the passage that answers a query.",
    "def sort_values(values):\n    return sorted(values)",
    "The weight of another chunk is its similarity.",
    "import numpy as np",
]
ROW = {"src": "wiki", "text": TEXTS, "document": ["a", "b", "a", "b"]}


def settings(**changes):
    return Training(**{"temperature": 0.1, "retriever_max_length": 40, "lm_max_length": 30} | changes)


@pytest.fixture
def make(backbone, lm):
    """An objective with its own models, by name and settings; a language model for Revela."""

    def make(name="revela", **changes):
        chosen = settings(**changes)
        retriever = Retriever.from_backbone(
            backbone,
            query_prefix=chosen.query_prefix,
            passage_prefix=chosen.passage_prefix,
            max_length=chosen.retriever_max_length,
        )
        model = AutoModelForCausalLM.from_pretrained(lm, dtype=torch.float32)
        return METHODS[name].load_objective()(chosen, retriever, model, AutoTokenizer.from_pretrained(lm)).train()

    return make


def gradients(objective, batch):
    objective.zero_grad()
    loss, _ = objective(batch)
    loss.backward()
    return loss, {name: weight.grad for name, weight in objective.named_parameters() if weight.grad is not None}


# --- Revela: rows


def test_query_side_sees_half_and_the_other_sides_all(make):
    objective = make(first_half=True, first_half_except=["stackoverflow", "code-batches"])
    # Ready batches of code may call themselves anything; the ids of their documents begin with their dataset.
    row = {"text": ["one two three four"] * 2, "src": "train"}
    lengths = {
        name: int(
            objective.tokenize_chunks(row | {"document": [f"{name}/train.jsonl:0:0"] * 2})["query_attention_mask"].sum()
        )
        for name in ("wiki-batches", "code-batches")
    }
    assert lengths["wiki-batches"] < lengths["code-batches"]
    batch = objective.collate(ROW)
    tokenizer, eos = objective.retriever.tokenizer, objective.retriever.tokenizer.eos_token_id
    for index, text in enumerate(TEXTS):
        whole = tokenizer("query: " + text)["input_ids"]
        ids = batch["query_input_ids"][index][batch["query_attention_mask"][index].bool()].tolist()
        assert ids == [*whole[: int(0.5 * len(whole))], eos]
        ids = batch["passage_input_ids"][index][batch["passage_attention_mask"][index].bool()].tolist()
        assert ids == [*tokenizer("passage: " + text)["input_ids"], eos]
    exempt = objective.collate(ROW | {"src": "stackoverflow"})
    assert exempt["query_input_ids"].shape[1] > batch["query_input_ids"].shape[1]
    assert torch.equal(exempt["query_input_ids"], make().collate(ROW)["query_input_ids"])


def test_language_model_reads_whole_chunks_after_bos(make):
    objective = make(lm_max_length=12)
    batch = objective.collate(ROW)
    tokenizer = objective.lm_tokenizer
    for index, text in enumerate(TEXTS):
        ids = batch["lm_input_ids"][index][batch["lm_attention_mask"][index].bool()].tolist()
        assert ids == [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]][:12]
    assert batch["lm_input_ids"].shape == (4, 12)


def test_labels_are_masked_where_the_token_is_the_pad(make):
    objective = make(lm_max_length=60)
    assert objective.lm_tokenizer.pad_token_id is None, "EOS has to stand in for the pad"
    row = ROW | {"text": ["import</s>numpy", "import numpy as np"]}
    batch = objective.collate(row)
    eos = objective.lm_tokenizer.eos_token_id
    assert (batch["lm_input_ids"][0] == eos).any() and batch["lm_attention_mask"][0].all() != batch[
        "lm_attention_mask"
    ][1].all()
    assert torch.equal(batch["lm_labels"] == -100, batch["lm_input_ids"] == eos)
    assert objective.count(batch) == int((batch["lm_labels"][:, 1:] != -100).sum())
    assert objective.lm_tokenizer.pad_token_id is None, "collate has changed the tokenizer"


def test_a_chunk_without_a_token_is_named(make):
    with pytest.raises(ObjectiveError, match="no token for the language model: ''"):
        make().collate({"src": "wiki", "text": ["import numpy", ""]})


# --- Revela: loss


@pytest.mark.parametrize("attention", ["sparse", "dense"])
@pytest.mark.parametrize("value_norm", [False, True])
def test_loss_is_the_h_streams_cross_entropy(make, attention, value_norm):
    objective = make(attention=attention, value_norm=value_norm)
    batch = objective.collate(ROW)
    retriever = objective.retriever
    sim = similarity.similarity(
        retriever(**retriever.tokenize(TEXTS, "query")),
        retriever(**retriever.tokenize(TEXTS, "passage")),
        temperature=0.1,
    )
    assert not torch.allclose(sim, sim.T)
    ids, mask = batch["lm_input_ids"], batch["lm_attention_mask"]
    logits = inbatch.logits(objective.lm, ids, mask, sim, value_norm=value_norm)
    expected = sum(
        -logits[row, t - 1].log_softmax(0)[ids[row, t]]
        for row in range(4)
        for t in range(1, int(mask[row].sum()))
        if ids[row, t] != objective.lm_tokenizer.eos_token_id
    )
    loss, scalars = objective(batch)
    torch.testing.assert_close(loss, expected)
    assert scalars["h_loss"] == pytest.approx(loss.item() / objective.count(batch))
    assert scalars["similarity_max"] == pytest.approx(sim.max(1).values.mean().item(), rel=1e-4)


def test_dual_loss_adds_the_stock_models_loss(make):
    objective, dual = make(), make(dual_loss=True)
    batch = objective.collate(ROW)
    labels = batch["lm_labels"]
    logits = objective.lm(input_ids=batch["lm_input_ids"], attention_mask=batch["lm_attention_mask"]).logits
    e_loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    loss, scalars = dual(batch)
    torch.testing.assert_close(loss, objective(batch)[0] + e_loss)
    assert scalars["e_loss"] == pytest.approx(e_loss.item() / objective.count(batch))


def test_both_models_learn_through_one_loss(make):
    _, grads = gradients(objective := make(), objective.collate(ROW))
    assert {name.split(".")[0] for name, gradient in grads.items() if gradient.any()} == {"retriever", "lm"}
    assert set(grads) == set(dict(objective.named_parameters()))


def test_a_frozen_language_model_passes_the_gradient_on(make):
    objective, frozen = make(), make(freeze_lm=True)
    batch = objective.collate(ROW)
    (loss, expected), (same, grads) = gradients(objective, batch), gradients(frozen, batch)
    assert torch.equal(loss, same)
    assert not any(weight.requires_grad for weight in frozen.lm.parameters())
    assert {name.split(".")[0] for name in grads} == {"retriever"}
    torch.testing.assert_close(grads, {name: expected[name] for name in grads})


def test_a_head_in_pieces_is_the_same_head(make, monkeypatch):
    objective = make(dual_loss=True)
    batch = objective.collate(ROW)
    loss, expected = gradients(objective, batch)
    calls = []
    objective.lm.get_output_embeddings().register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    # As many pieces for any batch of four chunks under these settings, however short the chunks are.
    monkeypatch.setattr(revela_module, "LOGITS", 4 * 30 * objective.lm.config.vocab_size // 3)
    pieces, grads = gradients(objective, batch)
    assert len(calls) == 2 * 2 * 3 and sum(calls) == 2 * 2 * objective.count(batch)  # e and h, forward and recomputed
    torch.testing.assert_close(pieces, loss)
    torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-5)


# --- Revela: controls


def test_uniform_similarity_leaves_the_retriever_alone(make):
    objective = make(similarity="uniform")
    batch = objective.collate(ROW)
    assert torch.equal(objective.similarity(batch), (1 - torch.eye(4)) / 3)
    loss, grads = gradients(objective, batch)
    assert {name.split(".")[0] for name in grads} == {"lm"}
    ids, mask = batch["lm_input_ids"], batch["lm_attention_mask"]
    logits = inbatch.logits(objective.lm, ids, mask, (1 - torch.eye(4)) / 3, value_norm=False)
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["lm_labels"][:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(loss, expected)


def test_shuffled_similarity_keeps_the_weights_and_loses_their_places(make):
    learned, shuffled = make(), make(similarity="shuffled")
    texts = [f"import number {n}" for n in range(8)]
    batch = shuffled.collate({"src": "wiki", "text": texts})
    sim, moved = learned.similarity(batch), shuffled.similarity(batch)
    assert not moved.diagonal().any()
    torch.testing.assert_close(moved.sort(1).values, sim.sort(1).values)
    assert not torch.allclose(moved, sim)
    assert gradients(shuffled, batch)[1].keys() == dict(shuffled.named_parameters()).keys()
    # A pure function of row and settings; another for another seed, or for another order of the chunks.
    columns = batch["columns"]
    assert torch.equal(shuffled.collate({"src": "wiki", "text": texts})["columns"], columns)
    for other in (
        make(similarity="shuffled", seed=7).collate({"text": texts}),
        shuffled.collate({"text": texts[::-1]}),
    ):
        assert not torch.equal(other["columns"], columns)


def test_shuffled_columns_are_uniform_over_the_others():
    counts = torch.zeros(4, 4)
    for seed in range(600):
        counts.scatter_add_(1, revela_module._shuffled_columns(TEXTS, seed), torch.eye(4)[:1].expand(4, 4).contiguous())
    # Where the first column of each row ends up: itself in row 0, anywhere but on the diagonal elsewhere.
    assert counts[0, 0] == 600 and counts[1:].diagonal(1).eq(0).all()
    assert (counts[1:][counts[1:] > 0] - 200).abs().max() < 60


# --- Revela: the gate


def test_the_gate_on_its_ramp_is_a_factor_of_sim(make):
    """Hand-worked: 0.2 at the first step, half-way after two of four, 1 from the fifth on; the same as Sim scaled."""
    plain = make()
    for shape, values in {"linear": [0.2, 0.4, 0.6, 0.8, 1, 1], "cosine": [0.2, 0.3172, 0.6, 0.8828, 1, 1]}.items():
        ramp = {"start": 0.2, "steps": 4, "shape": shape}
        objective = make(cross_attention={"ramp": ramp})
        batch = objective.collate(ROW)
        sim = plain.similarity(batch)
        for step, gate in enumerate(values, start=1):
            objective.step = step
            assert objective.gate() == pytest.approx(gate, abs=1e-4)
            loss, scalars = objective(batch)
            h, _ = plain.streams(batch, objective.gate() * sim, 1.0)
            torch.testing.assert_close(loss, plain.next_token_loss(h, batch["lm_labels"]))
            assert scalars["gate"].item() == objective.gate()
        torch.testing.assert_close(loss, plain(batch)[0], rtol=0, atol=0)  # the ramp has ended


def test_a_constant_gate_is_neither_a_parameter_nor_logged(make):
    objective = make(cross_attention={"gate": 0.3})
    assert objective.gate() == 0.3 and "gate" not in objective(objective.collate(ROW))[1]
    assert dict(objective.named_parameters()).keys() == dict(make().named_parameters()).keys()


@pytest.mark.parametrize("per, shape", [("layer", (2,)), ("head", (2, 4))])
@pytest.mark.parametrize("freeze_lm", [False, True])
def test_a_learned_gate_is_trained_with_the_retriever(make, per, shape, freeze_lm):
    objective = make(cross_attention={"gate": 0.05, "learned": per}, freeze_lm=freeze_lm)
    batch = objective.collate(ROW)
    constant = make(cross_attention={"gate": 0.05}, freeze_lm=freeze_lm)
    (loss, grads), (expected, others) = gradients(objective, batch), gradients(constant, batch)
    torch.testing.assert_close(loss, expected)
    gate = grads.pop("learned_gate.weight")
    assert gate.shape == shape and gate.all()
    torch.testing.assert_close(grads, others, rtol=1e-4, atol=1e-5)
    # The sum of its gradient is that of one gate for all, by central differences of the loss.
    with torch.no_grad():
        sim = constant.similarity(batch)
        low, high = (
            constant.next_token_loss(constant.streams(batch, sim, g)[0], batch["lm_labels"]) for g in (0.04, 0.06)
        )
    assert gate.sum().item() == pytest.approx((high - low).item() / 0.02, rel=0.05)
    with torch.no_grad():
        objective.learned_gate.weight.copy_(torch.arange(float(gate.numel())).view(shape))
    _, scalars = objective(batch)
    means = {"layer": [0, 1], "head": [1.5, 5.5]}[per]
    assert [scalars[f"gate_{layer}"].item() for layer in range(2)] == means
    assert scalars["gate"].item() == sum(means) / 2


# --- Revela: what is logged


def test_the_weight_on_chunks_of_the_same_document_worked_by_hand():
    sim = torch.tensor([[0, 0.5, 0.3, 0.2], [0.6, 0, 0.1, 0.3], [0.2, 0.2, 0, 0.6], [0.25, 0.25, 0.5, 0]])
    logged = revela_module._sharpness(sim, revela_module._numbered(["a", "b", "a", "c"]))
    # Row 0 has 0.3 on chunk 2, row 2 has 0.2 on chunk 0; the other two chunks are alone.
    assert logged["same_document"].item() == pytest.approx((0.3 + 0.2) / 4)
    assert logged["same_document_uniform"].item() == pytest.approx((1 / 3 + 1 / 3) / 4)
    assert "same_document" not in revela_module._sharpness(sim, None)


def test_documents_are_logged_where_rows_name_them(make):
    objective = make()
    _, scalars = objective(objective.collate(ROW))
    sim = objective.similarity(objective.collate(ROW))
    assert scalars["same_document"].item() == pytest.approx((sim[[0, 2, 1, 3], [2, 0, 3, 1]].sum() / 4).item())
    assert scalars["same_document_uniform"].item() == pytest.approx(1 / 3)
    unnamed = {key: value for key, value in ROW.items() if key != "document"}
    _, scalars = objective(objective.collate(unnamed))
    assert "same_document" not in scalars


# --- shared


@pytest.mark.parametrize("checkpointing", [False, True])
def test_both_sides_run_through_the_retriever_at_once_without_pads(make, checkpointing):
    objective = make(first_half=True)
    retriever = objective.retriever
    if checkpointing:
        retriever.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    batch = objective.collate(ROW)
    seen = []
    handle = retriever.backbone.layers[0].mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    together = torch.cat(objective.embed(batch))
    together[:, 0].sum().backward()
    handle.remove()
    tokens = sum(int(batch[f"{side}_attention_mask"].sum()) for side in ("query", "passage"))
    assert seen == [(1, tokens, 32)] * (2 if checkpointing else 1)
    gradient = retriever.backbone.layers[0].mlp.up_proj.weight.grad.clone()
    retriever.zero_grad()
    apart = torch.cat([retriever(batch[f"{s}_input_ids"], batch[f"{s}_attention_mask"]) for s in ("query", "passage")])
    apart[:, 0].sum().backward()
    torch.testing.assert_close(together, apart)
    torch.testing.assert_close(gradient, retriever.backbone.layers[0].mlp.up_proj.weight.grad)


@pytest.mark.parametrize("name", METHODS)
def test_interface(make, name):
    """The loss is a sum over count() items; collate gives tensors alone and is repeatable."""
    objective = make(name)
    row = ROW | {"query": TEXTS[0], "passages": TEXTS, "scores": torch.rand(4, 4).numpy()}
    batch = objective.collate(row)
    again = objective.collate(row)
    assert batch.keys() == again.keys() and all(torch.equal(batch[key], again[key]) for key in batch)
    loss, scalars = objective(batch)
    assert loss.shape == () and loss.requires_grad
    assert isinstance(objective.count(batch), int) and objective.count(batch) > 0
    assert all(value.shape == () and not value.requires_grad for value in scalars.values())
    assert math.isfinite(loss.item()) and scalars and "loss" not in scalars  # the loop's own name for it


# --- REPLUG


def test_replug_worked_by_hand(monkeypatch):
    """Two documents; P_LM = (3/4, 1/4) and (1/5, 4/5), P_retriever = (1/2, 1/2) and (1/5, 4/5)."""
    objective = Replug(settings(temperature=1.0, lm_temperature=0.5), torch.nn.Module())
    target = torch.tensor([[0.75, 0.25], [0.2, 0.8]])
    logits = torch.tensor([[0.3, 0.3], [0.0, math.log(4)]], requires_grad=True)
    monkeypatch.setattr(objective, "embed", lambda batch: (None, None))
    monkeypatch.setattr(replug, "scores", lambda *_, **__: logits)
    batch = {"scores": -0.5 * target.log() + torch.tensor([[3.0], [-8.0]])}  # a constant in a row does not matter
    loss, scalars = objective(batch)
    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-5)
    assert scalars["agreement"] == 1 and objective.count(batch) == 2
    loss.backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(1) - target)  # and zero where both agree


def test_replug_includes_each_document_itself(make):
    objective = make("replug", lm_temperature=0.1)
    lm_scores = torch.rand(4, 4)
    batch = objective.collate(ROW | {"scores": lm_scores.numpy()})
    queries = objective.retriever(batch["query_input_ids"], batch["query_attention_mask"])
    passages = objective.retriever(batch["passage_input_ids"], batch["passage_attention_mask"])
    p, q = (-lm_scores / 0.1).softmax(1), (queries @ passages.T / 0.1).softmax(1)
    torch.testing.assert_close(objective(batch)[0], (p * (p / q).log()).sum(), rtol=1e-4, atol=1e-5)


def test_replug_without_the_document_itself(make):
    """Both distributions over the other three; what the language model makes of a document alone changes nothing."""
    objective = make("replug", lm_temperature=0.1, include_self=False)
    lm_scores = torch.rand(4, 4)
    losses = []
    for own in (0.0, 5.0):
        batch = objective.collate(ROW | {"scores": lm_scores.fill_diagonal_(own).numpy()})
        queries = objective.retriever(batch["query_input_ids"], batch["query_attention_mask"])
        passages = objective.retriever(batch["passage_input_ids"], batch["passage_attention_mask"])
        itself = torch.eye(4, dtype=torch.bool)
        p, q = (
            x.masked_fill(itself, float("-inf")).softmax(1)[~itself]
            for x in (-lm_scores / 0.1, queries @ passages.T / 0.1)
        )
        loss, scalars = objective(batch)
        torch.testing.assert_close(loss, (p * (p / q).log()).sum(), rtol=1e-4, atol=1e-5)
        losses.append(loss.item())
    assert losses[0] == losses[1] and scalars["target_on_itself"] < 1e-6


def test_replugs_target_is_the_identity_where_a_document_explains_itself(make):
    """What App. B.3 comes to at eta = 1e-3: the mass that is logged is all of it."""
    batch = make("replug").collate(ROW | {"scores": (torch.rand(4, 4) + 1).fill_diagonal_(0.5).numpy()})
    _, scalars = make("replug", lm_temperature=1e-3)(batch)
    assert scalars["target_on_itself"] == 1


def test_replug_at_the_papers_temperatures_is_finite(make):
    objective = make("replug", temperature=1e-3, lm_temperature=1e-3)
    batch = objective.collate(ROW | {"scores": 300 * torch.rand(4, 4).numpy()})
    loss, grads = gradients(objective, batch)
    assert loss.isfinite() and all(gradient.isfinite().all() for gradient in grads.values())


def test_replug_scores_of_another_batch_are_refused(make):
    with pytest.raises(ObjectiveError, match=r"scores are \(3, 3\) for a batch of 4"):
        make("replug").collate(ROW | {"scores": torch.zeros(3, 3).numpy()})


def naive_scores(lm, tokenizer, max_length, mean):
    """Each pair concatenated and read alone, one token after the other."""
    scores = torch.zeros(len(TEXTS), len(TEXTS))
    for i, d_i in enumerate(TEXTS):
        for j, d_j in enumerate(TEXTS):
            before = tokenizer(d_j)["input_ids"][:max_length]
            special = len(tokenizer("")["input_ids"])
            own = tokenizer(d_i)["input_ids"][special:max_length]
            log_p = lm(torch.tensor([before + own])).logits[0].log_softmax(1)
            losses = [-log_p[len(before) + t - 1, token] for t, token in enumerate(own)]
            scores[i, j] = sum(losses) / (len(losses) if mean else 1)
    return scores


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("bos", [False, True])
def test_replug_scores_equal_plain_concatenation(backbone, lm, bos, mean, monkeypatch):
    folder = lm if bos else backbone
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer("")["input_ids"]) == bos
    chosen = ReplugScoreSpec(
        lm_max_length=14, length_normalised=mean, precision="fp32"
    )  # some texts are cut, some are not
    lengths = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    assert min(lengths) < 14 < max(lengths)
    monkeypatch.setattr(replug_scores, "LOGITS", 7 * model.config.vocab_size)  # several pieces
    scores = score_batch(model, tokenizer, TEXTS, chosen, rows=3)
    assert scores.dtype == torch.float32 and not scores.requires_grad and model.training
    with torch.no_grad():
        torch.testing.assert_close(scores, naive_scores(model.eval(), tokenizer, 14, mean), rtol=1e-4, atol=1e-4)


# --- Contriever


def test_compiling_changes_neither_loss_nor_gradients(make):
    objective = make(lora={"rank": 4, "alpha": 8, "dropout": 0.0})
    batches = [objective.collate(ROW), objective.collate(ROW | {"text": TEXTS[::-1][:3]})]  # of different lengths
    expected = [gradients(objective, batch) for batch in batches]
    for model in (objective.retriever.backbone, objective.lm):
        compile_layers(model)
    torch._dynamo.utils.counters.clear()
    for batch, (loss, wanted) in zip(batches, expected):
        again, found = gradients(objective, batch)
        torch.testing.assert_close(again, loss)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2


def test_contrievers_queries_are_whole(make):
    row = {"query": TEXTS[0], "passages": TEXTS, "src": "wiki"}
    whole, asked = (make("contriever", first_half=half).collate(row) for half in (False, True))
    assert torch.equal(whole["query_input_ids"], asked["query_input_ids"])


def test_contriever_worked_by_hand(make):
    objective = make("contriever", temperature=0.2)
    batch = objective.collate({"query": TEXTS[2], "passages": TEXTS})
    retriever = objective.retriever
    query = retriever(**retriever.tokenize([TEXTS[2]], "query"))[0]
    passages = retriever(**retriever.tokenize(TEXTS, "passage"))
    weights = [math.exp((query @ passage).item() / 0.2) for passage in passages]
    loss, scalars = objective(batch)
    assert loss.item() == pytest.approx(-math.log(weights[0] / sum(weights)), rel=1e-4)
    assert scalars["accuracy"] == float(weights[0] == max(weights)) and objective.count(batch) == 1
    other = objective.collate({"query": TEXTS[2], "passages": TEXTS[:1] + TEXTS[:0:-1]})
    torch.testing.assert_close(objective(other)[0], loss)  # the order of the negatives does not matter


# --- setup


def test_a_language_model_without_a_token_to_mask_labels_by_is_refused(make):
    objective = make()
    objective.lm_tokenizer.eos_token = None
    with pytest.raises(ObjectiveError, match="neither a pad nor an EOS token.*set eos_token in its tokenizer_config"):
        Revela(settings(), objective.retriever, objective.lm, objective.lm_tokenizer)


def test_revela_alone_needs_a_language_model(make):
    retriever = make().retriever
    with pytest.raises(ObjectiveError, match="needs a language model"):
        Revela(settings(), retriever)
    for other in (Contriever, Replug):
        assert len([*other(settings(), retriever).parameters()]) == len([*retriever.parameters()])
