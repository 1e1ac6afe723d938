"""What weighs the same in a step's loss: each token, or each batch, whoever holds its parts."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from revela.study.settings import Training
from revela.training import loop

# Two batches: summed losses and tokens. Of the first a process that shares it holds 2 of 8 tokens.
LOSSES, TOKENS, PART = [6.0, 3.0], [8, 4], [2, 1]


class Engine:
    """Takes the step of a made-up objective, and notes what is minimised."""

    device = "cpu"

    def __init__(self, parts):
        self.minimised = []
        self.module = nn.Linear(1, 1)
        self.module.collate = lambda row: {"tokens": torch.arange(TOKENS[row]), "row": torch.tensor([row])}
        self.module.prepare = lambda batches, seeds: None
        self.module.count = lambda batch: len(batch["tokens"])
        self.module.part = lambda batch: batch | {"tokens": batch["tokens"][: parts[int(batch["row"])]]}

    def __call__(self, batch):
        loss = LOSSES[int(batch["row"])] * self.module(torch.ones(1)).sum() * 0 + LOSSES[int(batch["row"])]
        return loss, {}

    def backward(self, loss, **_):
        self.minimised.append(float(loss.detach()))
        loss.backward()

    def step(self):
        pass

    def get_lr(self):
        return [1e-4]

    def get_global_grad_norm(self):
        return 1.0


@pytest.mark.parametrize(
    "mean, parts, processes, expected",
    [
        ("items", TOKENS, 1, [6 / 12, 3 / 12]),
        ("batches", TOKENS, 1, [6 / 8 / 2, 3 / 4 / 2]),
        (
            "batches",
            TOKENS,
            2,
            [2 * 6 / 8 / 4, 2 * 3 / 4 / 4],
        ),  # four batches a step, of which DeepSpeed takes the mean
        ("batches", PART, 1, [6 / 8 / 2, 3 / 4 / 2]),  # by the tokens of the whole batch, not of the part
    ],
)
def test_what_is_minimised(monkeypatch, mean, parts, processes, expected):
    ranks = SimpleNamespace(get_rank=lambda: 0, get_world_size=lambda: processes)
    monkeypatch.setattr(loop, "dist", ranks)
    monkeypatch.setattr(loop, "sum_over_processes", lambda values: [float(value) for value in values])
    settings = Training(loss_mean=mean, batches_per_step=2 * processes)
    rows = {position: number for number, position in enumerate(range(0, 2 * processes, processes))}
    engine = Engine(parts)
    [step] = loop.train(engine, settings, rows, range(1, 2))
    assert engine.minimised == pytest.approx(expected)
    assert step.means["loss"] == pytest.approx(9 / sum(parts))  # the log's is that of the tokens either way
