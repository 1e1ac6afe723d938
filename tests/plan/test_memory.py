"""The estimate of GPU memory against what autograd keeps."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from revela.method.packing import Packing, run
from revela.plan import memory
from revela.plan.costs import Costs
from revela.plan.flops import Shape
from revela.retriever import add_lora
from revela.study.settings import Lora, Training
from revela.study.sizes import load_sizes
from revela.study.study import PAPER, load

LLAMA_1B = Shape(16, 2048, 8192, 32, 8, 64, 128256)


def kept(lora, layers):
    """(shape, tokens, bytes that wait for the backward pass) of a decoder with so many layers."""
    config = LlamaConfig(
        vocab_size=50, hidden_size=64, intermediate_size=192, num_hidden_layers=layers, num_attention_heads=4
    )
    model = LlamaModel(config)
    model = (add_lora(model, lora, "FEATURE_EXTRACTION") if lora else model).train()
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    packing = Packing(torch.ones(4, 100))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = run(model.get_decoder(), torch.randint(50, (1, 400)), packing)
    assert hidden.requires_grad
    return Shape.from_config(config.to_dict()), 400, sum(sizes.values())


@pytest.mark.parametrize("lora", [None, Lora(rank=8, dropout=0.0)])  # its mask is a byte on a GPU, a float here
def test_activations(lora):
    (_, _, two), (shape, tokens, four) = kept(lora, 2), kept(lora, 4)
    measured = (four - two) / 2 / tokens
    estimate = memory.activations(Training(precision="fp32", lora=lora), shape)
    assert 0.95 * measured < estimate < 1.4 * measured  # in-batch attention keeps more than the retriever's alone


def test_static_memory_by_hand():
    """LoRA on two models of 1.24B: bfloat16 weights, float32 adapters; logits and no activations to speak of."""
    settings = Training(lora=Lora(), retriever_max_length=4, lm_max_length=4)
    base, adapters = 973_078_528 + 2048 * 128256, 180_355_072
    for stage, processes, expected in [
        (0, 1, 2 * base + (4 + 4 + 8) * adapters),
        (1, 4, 2 * base + (4 + 4 + 3) * adapters),
        (2, 4, 2 * base + (4 + 1 + 3) * adapters),
        (3, 4, (2 * base + 4 * adapters) / 4 + (1 + 3) * adapters),
    ]:
        chosen = settings.model_copy(update={"zero_stage": stage})
        total = memory.peak(chosen, [LLAMA_1B, LLAMA_1B], 2, processes)
        assert total == pytest.approx(2 * expected + memory.LOGITS, rel=0.03)


def test_no_batch_is_advised_in_which_the_retriever_has_no_part():
    def sizes(batch_size):
        needs = memory.alternatives(Training(), [LLAMA_1B, LLAMA_1B], batch_size, 1, least_batch=3)
        return [int(change.split()[-1]) for change in needs if "batch size" in change]

    assert [sizes(size) for size in (16, 8, 4, 3)] == [[8, 4], [4, 3], [3], []]


def test_alternatives_spare_memory():
    settings = Training(lora=Lora())
    now = memory.peak(settings, [LLAMA_1B, LLAMA_1B], 16, 4)
    needs = memory.alternatives(settings, [LLAMA_1B, LLAMA_1B], 16, 4)
    assert list(needs) == [
        "gradient_checkpointing: true", "zero_stage: 3", "both", "all that and batch size 8", "all that and batch size 4"
    ]  # fmt: skip
    assert all(need < now for need in needs.values()) and needs["both"] < needs["zero_stage: 3"]
    assert 15e9 < now < 80e9  # what the paper trained on A100s of 80 GB
    assert list(memory.alternatives(settings, [LLAMA_1B], 16, 1, checkpointing=True)) == [
        "all that and batch size 8", "all that and batch size 4"
    ]  # fmt: skip


def test_a_gpu_that_is_too_small_is_noted():
    cell, costs = "revela/wiki/llama-3.1-8b/llama-3.2-1b/bs8", Costs(load(PAPER), load_sizes())
    as_set, _ = costs.need(cell)
    assert not costs.notes
    costs.compute = costs.compute.model_copy(update={"device": "L40S"})
    need, recomputed = costs.need(cell)
    assert need < 48e9 < as_set and recomputed
    assert [note for note in costs.notes if cell in note and "gradient checkpointing will be on" in note]


def test_cross_attention_over_all_pairs_keeps_its_probabilities():
    """tau = 0.05 on a CPU in bfloat16: products over all pairs; of a token 32 heads x 16 x 156 places, twice."""
    settings = Training(lora=Lora(dropout=0.0), temperature=0.05)
    assert memory.attention(settings, 16) == 15 and memory.takes_all(settings, 15, 16, gpu=False)
    assert not memory.takes_all(settings, 15, 16, gpu=True)
    kept = memory.retained(settings, LLAMA_1B, frozen=True, attended=15, gpu=False, keys=16 * 156)
    assert kept["probabilities of cross attention"] == 2 * 2 * 32 * 16 * 156
