"""What processes that share a batch send each other, by hand."""

import pytest

from revela.plan import memory, traffic
from revela.plan.flops import Shape
from revela.study.settings import Lora, Training

RETRIEVER = Shape(layers=3, hidden=8, intermediate=9, heads=2, kv_heads=2, head_dim=4, vocabulary=10)
LM = Shape(layers=5, hidden=12, intermediate=9, heads=4, kv_heads=2, head_dim=3, vocabulary=10)
LENGTHS = {"query": [5] * 8, "passage": [6] * 8, "lm": [10] * 8}


def received(attended=1, checkpointing=False, **changes):
    settings = Training(precision="bf16", **changes)
    return traffic.received(settings, RETRIEVER, LM, LENGTHS, attended=attended, checkpointing=checkpointing)


def test_by_hand():
    """Of 8 chunks a process of 4 holds 2: it lacks 6 embeddings of 8 numbers, and 60 of 80 tokens."""
    embeddings, of_a_token = 2 * 6 * 8, 5 * 2 * 2 * 3  # there and back; layers, key and value, heads, dimensions
    assert received(processes_per_batch=1) == 0
    assert received(7, processes_per_batch=4) == 2 * (embeddings + 2 * 60 * of_a_token)
    assert received(1, processes_per_batch=4) == 2 * (embeddings + 2 * 15 * of_a_token)  # 2 documents, 3 in 4 elsewhere
    assert received(1, processes_per_batch=4, attention="dense") == received(7, processes_per_batch=4)
    assert received(7, processes_per_batch=4, freeze_lm=True) == 2 * (embeddings + 60 * of_a_token)
    assert received(7, True, processes_per_batch=4) == 2 * (embeddings + 3 * 60 * of_a_token)
    alone = traffic.received(Training(processes_per_batch=4), RETRIEVER, None, {"passage": [6] * 8, "lm": []})
    assert alone == 2 * embeddings


def test_memory_of_a_shared_batch():
    """That of its part, and the keys and values of the rest."""
    settings = Training(lora=Lora(), lm_max_length=10, retriever_max_length=12, temperature=1e-15)  # one pair a chunk
    for changes, checkpointing, layers in [({}, False, 5), ({}, True, 1), ({"freeze_lm": True}, False, 5)]:
        chosen, how = settings.model_copy(update=changes), {"checkpointing": checkpointing}
        shared = memory.peak(chosen.model_copy(update={"processes_per_batch": 4}), [RETRIEVER, LM], 64, 4, **how)
        coming = 48 * 10 * layers * 2 * 2 * 2 * 3
        assert shared == pytest.approx(memory.peak(chosen, [RETRIEVER, LM], 16, 4, **how) + coming, rel=1e-12)
