"""A new method is one module and one entry: a toy is added to a copy of the project, trained and evaluated there."""

import json

import pytest
from checkout import Checkout
from conftest import make_backbone

TOY = '''"""Toy: each chunk as a query has to find itself as a passage among the chunks of its batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from revela.method.cosine import scores
from revela.objectives.base import Objective


class Toy(Objective):
    """Cross-entropy of a chunk's own passage."""

    def collate(self, row):
        return self.tokenize_chunks(row)

    def count(self, batch):
        return len(batch["query_input_ids"])

    def forward(self, batch):
        logits = scores(*self.embed(batch), **self.cosines)
        own = torch.arange(len(logits), device=logits.device)
        return F.cross_entropy(logits, own, reduction="sum"), {"found": (logits.argmax(1) == own).float().mean()}
'''
ENTRY = """_METHODS = (
    Method("toy", label="Toy", objective="revela.objectives.toy:Toy", operations="revela.plan.flops:retriever_alone"),
"""
SMALL = ("--configfile", "tests/small/config.yaml", "--profile", "workflow/profiles/local", "--cores", "2")
CELL = "toy/code/random/none/bs4"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("toy"))
    make_backbone(checkout.folder / "backbone", bos=True)
    (checkout.folder / "revela/objectives/toy.py").write_text(TOY)
    checkout.edit("revela/study/methods.py", "_METHODS = (\n", ENTRY)
    return checkout


def test_it_is_trained_and_evaluated(checkout):
    scores = checkout.folder / f"results/small/scores/{CELL}/coir-small.json"
    printed, status = checkout.snakemake(scores.relative_to(checkout.folder), *SMALL)
    assert status == 0, printed
    log = (checkout.folder / f"results/small/models/{CELL}/log.jsonl").read_text().splitlines()
    assert len(log) == 6 and 0 <= json.loads(log[-1])["found"] <= 1
    task = json.loads(scores.read_text())["tasks"]["docstring-code"]
    assert 0 < task["metrics"]["nDCG@10"] < 1


def test_its_code_is_behind_its_cells_alone(checkout):
    """Planned with Revela's cell: an edit of the toy trains the toy."""
    revela = "results/small/models/revela/code/random/random/bs4"
    targets = (revela, f"results/small/models/{CELL}", *SMALL)
    assert checkout.plan(*targets)["train"] == 1  # Revela's; the toy is there
    checkout.edit("revela/objectives/toy.py", 'reduction="sum")', 'reduction="sum") * 1.0')
    assert checkout.plan(*targets)["train"] == 2


def test_a_plan_knows_what_it_costs(checkout):
    done = checkout.run_python("-m", "revela.plan.jobs", f"results/small/models/{CELL}", "--whole", *SMALL[:2])
    assert "train" in done
