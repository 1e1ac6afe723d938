"""Processes that share a batch have the loss and the gradients of one process, in float64."""

import multiprocessing
import os
import random
import socket

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import TEXTS

from revela.method import exchange, inbatch
from revela.method.exchange import Exchange, Group
from revela.objectives.base import Objective
from revela.study.methods import METHODS
from revela.study.settings import Training
from revela.training.engine import load_models
from revela.training.fitting import recompute

B = 8
PROCESSES = 4
SHARED = (1, 2, 4)  # processes of a batch
LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj", "v_proj", "down_proj"]}
SETTINGS = {"retriever_max_length": 24, "lm_max_length": 24, "temperature": 0.2, "precision": "fp32"}

spawned = multiprocessing.get_context("forkserver")
spawned.set_forkserver_preload(["revela.training.engine", "revela.objectives.revela", "revela.objectives.replug"])


def rows():
    """A row of each kind of training file: chunks of very different lengths, in the order of B documents' halves."""
    rng, words = random.Random(0), " ".join(TEXTS).split()
    text = [" ".join(rng.choices(words, k=k)) for k in (1, 12, 3, 9, 2, 2, 14, 5)]
    row = {"src": "code", "text": text, "document": list("abcdabcd")}
    row["scores"] = np.random.default_rng(0).random((B, B), np.float32)
    return {"revela": row, "replug": row, "contriever": {"query": text[1], "passages": text, "src": "code"}}


# What is computed, and how. A small tau has few pairs, which go by all-to-all; a large one all, by all-gather.
CASES = {
    "all pairs": {"temperature": 0.5},
    "few pairs": {"temperature": 0.003},
    "few pairs, checkpointed": {"temperature": 0.003},
    "adapters, checkpointed": {"lora": LORA},
    "all pairs, fast products": {"temperature": 0.5, "value_norm": True},
    "few pairs, fast products": {"temperature": 0.003},
    "V-normalised": {"value_norm": True, "dual_loss": True},
    "dense": {"attention": "dense", "value_norm": True},
    "frozen": {"freeze_lm": True, "temperature": 0.003},
    "frozen, checkpointed": {"freeze_lm": True},
    "frozen, dense": {"freeze_lm": True, "attention": "dense"},
    "learned gate": {"cross_attention": {"gate": 0.3, "learned": "head"}},
    "learned gate, frozen": {"cross_attention": {"gate": 0.3, "learned": "layer"}, "freeze_lm": True, "lora": LORA},
    "uniform": {"similarity": "uniform"},
    "shuffled": {"similarity": "shuffled", "first_half": True},
    "replug": {},
    "replug, without self": {"include_self": False},
    "contriever": {},
}


SHARED_NEGATIVES = "shared negatives"


def method_of(case):
    return next((name for name in ("replug", "contriever") if case.startswith(name)), "revela")


def measure(objective, batch, group):
    """Items, loss, means that are logged, and gradients, summed over the processes of a group."""
    objective.group = group
    part = objective.part(batch)
    objective.zero_grad()
    loss, scalars = objective(part)
    loss.backward()
    items = objective.count(part)
    found = {"items": torch.tensor(float(items)), "loss": loss.detach()}
    found |= {f"mean {name}": scalar.double() * items for name, scalar in scalars.items()}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
    for tensor in found.values() if group else ():
        dist.all_reduce(tensor, group=group.processes)
    return found


def error(found, expected):
    """The largest difference, as a share of the largest number."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def compute(rank, port, retriever, lm, answers):
    """All cases in one of the processes, which tells how far each is from what one process computes."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    groups = {count: Group.of_neighbours(count) for count in SHARED}
    Objective.cosines = property(lambda self: {"temperature": self.settings.temperature, "dtype": None})  # float64
    ways, original = [], Exchange.__init__

    def noted(self, *arguments):
        original(self, *arguments)
        ways.append(self.all)

    exchange.Exchange.__init__ = noted
    for case, changes in CASES.items():
        inbatch.fast_products = lambda query, fast="fast" in case: fast
        method = METHODS[method_of(case)]
        settings = Training(**SETTINGS | changes)
        models = load_models(settings, retriever, lm if method.lm == "beside" else None)
        objective = method.load_objective()(settings, *models).double()
        if "checkpointed" in case:
            recompute(objective)
        with torch.no_grad():
            for name, parameter in objective.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(generator=torch.Generator().manual_seed(len(name)), std=0.1)
        batch = objective.collate(rows()[method.name])
        expected = measure(objective, batch, None)
        for count, group in groups.items():
            ways.clear()
            found = measure(objective, batch, group)
            errors = {name: error(found[name], expected[name]) for name in expected}
            moved = sum(float(expected[name].abs().sum()) > 0 for name in expected)
            answers.put((case, count, rank, max(errors.items(), key=lambda item: item[1]), [*ways], moved))
    for count, group in groups.items():
        answers.put((SHARED_NEGATIVES, count, rank, *shared_negatives(retriever, rank, count, group)))
    dist.destroy_process_group()


def shared_negatives(retriever, rank, count, group, size=2):
    """Contriever's step of `size` rows for each group of processes, against one loss over all rows of the step."""
    rng = random.Random(1)
    made = [[" ".join(rng.choices(" ".join(TEXTS).split(), k=rng.randint(2, 12))) for _ in range(9)] for _ in range(8)]
    settings = Training(**SETTINGS | {"shared_negatives": "step"})
    objective = METHODS["contriever"].load_objective()(settings, *load_models(settings, retriever, None)).double()
    every = [objective.collate({"query": row[0], "passages": row[1:]}) for row in made[: size * PROCESSES // count]]

    queries, passages = zip(*(objective.embed(batch) for batch in every))
    positives = torch.arange(len(every)) * B
    logits = torch.cat(queries) @ torch.cat(passages).T / settings.temperature
    loss = torch.nn.functional.cross_entropy(logits, positives, reduction="sum")
    loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in objective.named_parameters()}
    expected |= {"loss": loss.detach(), "right": (logits.argmax(1) == positives).sum().double()}

    objective.group = group
    objective.zero_grad()
    first = rank // count * size
    own = [objective.part(batch) for batch in every[first : first + size]]
    objective.prepare(own, [0] * size)
    found = {"loss": torch.zeros((), dtype=torch.float64), "right": torch.zeros((), dtype=torch.float64)}
    for batch in own:
        loss, scalars = objective(batch)
        loss.backward()
        found["loss"] += loss.detach()
        found["right"] += scalars["accuracy"] * objective.count(batch)
    found |= {name: parameter.grad.clone() for name, parameter in objective.named_parameters()}
    for tensor in found.values():
        dist.all_reduce(tensor)
    errors = {name: error(found[name], expected[name]) for name in expected}
    moved = sum(float(gradient.abs().sum()) > 0 for gradient in expected.values())
    return max(errors.items(), key=lambda item: item[1]), [], moved


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def answers(backbone, lm):
    """(case, P) -> what each process has found."""
    queue, port = spawned.SimpleQueue(), free_port()
    ranks = [spawned.Process(target=compute, args=(r, port, backbone, lm, queue)) for r in range(PROCESSES)]
    for process in ranks:
        process.start()
    found = {}
    for _ in range((len(CASES) + 1) * len(SHARED) * PROCESSES):
        while queue.empty():
            assert all(process.exitcode in (None, 0) for process in ranks), "a process has failed"
            ranks[0].join(0.05)
        case, count, *answer = queue.get()
        found.setdefault((case, count), []).append(answer)
    for process in ranks:
        process.join()
    return found


@pytest.mark.parametrize("count", SHARED)
@pytest.mark.parametrize("case", CASES)
def test_shared_batches_have_the_loss_and_the_gradients_of_one_process(answers, case, count):
    for rank, (name, largest), ways, moved in answers[case, count]:
        # One process takes all pairs there, shared ones those with Sim > 1e-8: NEGLIGIBLE is what they differ by.
        assert largest < (1e-6 if case == "few pairs, fast products" else 1e-10), (rank, name)
        assert moved > 3
        if count > 1 and method_of(case) == "revela":
            assert ways == [not case.startswith("few") and case != "frozen"], "the cheaper way"


@pytest.mark.parametrize("count", SHARED)
def test_shared_negatives_have_the_gradients_of_one_loss_over_the_step(answers, count):
    for rank, (name, largest), _, moved in answers[SHARED_NEGATIVES, count]:
        assert largest < 1e-10, (rank, name)
        assert moved > 10
