"""The formulas of cost against torch's own count, and against sums by hand."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoTokenizer

from revela.objectives.replug_scores import score_batch
from revela.plan import flops
from revela.retriever import Retriever, add_lora
from revela.study.methods import METHODS
from revela.study.settings import Lora, Training

TEXTS = ["A retriever finds the passage."] * 3  # of one length: torch counts pads, too
LLAMA_1B = {
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
}


def counted(call):
    """Operations of matrix products that torch sees, attention written out."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_weights_of_llama_1b():
    shape = flops.Shape.from_config(LLAMA_1B)
    assert shape.weights == 16 * (2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192) == 973_078_528
    assert shape.adapter_weights(Lora()) == 180_355_072
    shape = flops.Shape.from_config({**LLAMA_1B, "num_key_value_heads": None, "head_dim": None})
    assert shape.matrices["k_proj"] == (2048, 2048)


@pytest.mark.parametrize("lora", [None, Lora(rank=8, dropout=0.0)])
@pytest.mark.parametrize("freeze_lm", [False, True])
@pytest.mark.parametrize("method", ["revela", "contriever"])
def test_training(method, lora, freeze_lm, backbone, lm):
    settings = Training(lora=lora, freeze_lm=freeze_lm, temperature=1.0, dual_loss=True)
    retriever = Retriever.from_backbone(backbone, max_length=60, lora=lora)
    model = AutoModelForCausalLM.from_pretrained(lm, dtype=torch.float32)
    model = add_lora(model, lora, "CAUSAL_LM") if lora and not freeze_lm else model
    objective = METHODS[method].load_objective()(settings, retriever, model, AutoTokenizer.from_pretrained(lm))
    batch = objective.collate({"text": TEXTS, "query": TEXTS[0], "passages": TEXTS})
    lengths = {n.split("_")[0]: mask.sum(1).tolist() for n, mask in batch.items() if n.endswith("attention_mask")}
    shapes = [flops.Shape.from_config(m.config.to_dict()) for m in (retriever.backbone, model)]
    # torch counts both halves of causal attention; frozen embeddings spare it part of the first layer.
    expected = counted(lambda: objective(batch)[0].backward())
    assert METHODS[method].load_operations()(settings, *shapes, lengths, attended=2) == pytest.approx(
        expected, rel=0.05
    )


def test_uniform_similarity_costs_no_retriever():
    shape, lengths = flops.Shape.from_config(LLAMA_1B), {"lm": [100, 50]}
    settings = Training(lora=None, similarity="uniform")
    tokens = 150
    layers = 3 * 2 * 973_078_528 * 2 * tokens
    attention = 3 * 16 * 32 * 64 * (2 * 2 * (100**2 + 50**2) + 4 * tokens * tokens / 2)
    expected = layers + attention + 3 * 2 * 2048 * 128256 * (tokens - 2)
    assert flops.revela(settings, shape, shape, lengths) == pytest.approx(expected, rel=1e-12)


def test_replug_scores(lm):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(lm, dtype=torch.float32), AutoTokenizer.from_pretrained(lm)
    lengths = [len(ids) for ids in tokenizer(TEXTS)["input_ids"]]
    expected = counted(lambda: score_batch(model, tokenizer, TEXTS, Training()))
    shape = flops.Shape.from_config(model.config.to_dict())
    assert flops.replug_scores(shape, lengths) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
        ("Tesla T4", None),
    ],
)
def test_peak(name, peak):
    assert flops.peak(name) == peak
