"""The smoke test: what it measures here, with two processes and gloo, and what it says of machines that are unlike the plan."""

import copy
import math
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from revela.command import smoke
from revela.pretrained import load_tokenizer
from revela.study.sizes import Sizes, load_sizes
from revela.study.specification import smoke_spec
from revela.study.study import load

ROOT = Path(__file__).parents[2]


@pytest.fixture
def spec(monkeypatch):
    monkeypatch.chdir(ROOT)
    return smoke_spec(load("config/tiny.yaml"))


def of_gpus():
    """What a node gives on which all is well."""
    training = {
        "loss": [6.5, 6.4] * 5,
        "tokens_per_second": 9000.0,
        "mfu": 0.1,
        "peak_memory_gb": 20.0,
        "seconds": 40.0,
    }
    names = ("revela", "revela ZeRO 3", "revela compiled", "replug", "contriever")
    machine = {"host": "node1", "gpus": 4, "devices": ["NVIDIA A100-SXM4-80GB"] * 4, "peak": 312e12, "cores": 32}
    return {
        "machine": machine | {"backend": "NCCL 2.27.3, CUDA 13.0", "model": "Random weights"},
        "commit": "a1b2c3",
        "versions": {"torch": "2.13.0"},
        "trainings": {name: copy.deepcopy(training) for name in names},
        "encoding": {"queries": 32, "tokens_per_second": 90_000.0, "mfu": 0.35, "seconds": 20.0},
    }


def test_the_model_of_a_gpu_is_one_of_the_shape(tmp_path, monkeypatch):
    """With a small shape, and on a CPU."""
    small = {
        "vocabulary": 8192,
        "hidden": 64,
        "intermediate": 128,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
    }
    size = load_sizes().models[smoke.SHAPE].model_copy(update=small)
    monkeypatch.setattr(smoke, "load_sizes", lambda: Sizes(models={smoke.SHAPE: size}))
    smoke._random_model(tmp_path, "cpu")
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.config.num_hidden_layers == 2 and load_tokenizer(tmp_path)("a")["input_ids"]


def test_it_is_of_the_first_cell_of_each_method(spec):
    assert [path.split("/")[0] for path in spec.cells] == ["revela", "replug", "contriever"]


def test_all_is_well(spec):
    found = of_gpus()
    assert smoke.judge(spec, found) == []
    page = smoke.page(spec, found, [])
    assert "## What is wrong: 0\n\nNothing." in page
    assert "| revela | 6.5000 | 6.4000 | 9,000 | 7,200 | 10.0 % | 8.0 % | 20.0 | 40 |" in page  # 9,000 x 8 % / 10 %
    assert "| encoding | | " in page.replace("|  |", "| |") and "node1: NVIDIA A100-SXM4-80GB" in page


def changed(**values):
    found = of_gpus()
    for place, value in values.items():
        found["trainings"][place.replace("_", " ")] |= value
    return found


@pytest.mark.parametrize(
    "found, said",
    [
        (changed(replug={"mfu": 0.039}), "replug: MFU 3.9 %, planned 8.0 %"),
        (changed(contriever={"error": "CUDA out of memory"}), "contriever: CUDA out of memory"),
        (changed(revela={"loss": [6.5] * 9 + [math.nan]}), "revela: the losses of 10 steps are"),
        (changed(revela={"loss": [6.5] * 9}), "revela: the losses of 10 steps are"),
        (
            changed(revela_compiled={"loss": [6.7] * 10}),
            "revela compiled: its first loss is 6.7000, and 6.5000 without",
        ),
        (of_gpus() | {"encoding": {"tokens_per_second": 1.0, "mfu": 0.1, "seconds": 1.0}}, "encoding: MFU 10.0 %"),
        (
            of_gpus() | {"machine": of_gpus()["machine"] | {"peak": None}},
            "the peak of NVIDIA A100-SXM4-80GB is not known",
        ),
    ],
)
def test_what_is_wrong_is_said(spec, found, said):
    (fault,) = smoke.judge(spec, found)
    assert said in fault
    page = smoke.page(spec, found, [fault])
    assert "## What is wrong: 1" in page and f"- {fault}" in page


def test_a_rounding_of_bfloat16_is_no_fault(spec):
    assert smoke.judge(spec, changed(**{"revela_ZeRO 3": {"loss": [6.55] * 10}})) == []


def test_on_this_machine(spec):
    """Ten steps of Revela under ZeRO 1 and 3 by two processes, and a task of 32 queries."""
    (cell, settings), *_ = spec.cells.items()
    spec = spec.model_copy(update={"cells": {cell: settings}})
    found = smoke.run(spec, 0, 2)
    assert list(found["trainings"]) == ["revela", "revela ZeRO 3"]
    assert smoke.judge(spec, found) == []
    one, three = found["trainings"].values()
    assert len(one["loss"]) == 10 and one["loss"] == pytest.approx(three["loss"], rel=0.02)
    assert one["tokens_per_second"] > 0 and one["mfu"] is None and found["encoding"]["queries"] == 32
    assert "gloo" in smoke.page(spec, found, [])
