"""One batch while a cell of Revela is trained: its Sim, its losses, and what Sim could still gain.

The batch is the first of the training file with chunks of several documents, in the order of the file; for Wikipedia it
is at the head of the corpus, as in figure 6. The training does not depend on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.nn.functional as F

from revela.files import atomic_write
from revela.objectives.base import Objective
from revela.objectives.revela import IGNORED, Revela, same_document
from revela.objectives.tokens import Tokens
from revela.pretrained import output_head

FILE = "dynamics.jsonl"
STEPS = (0, 100, 200)  # of the optimizer, as in figure 6
GAIN = "gain.jsonl"


def first_of_several_documents(rows: pa.Table) -> dict[str, Any]:
    """The first row with chunks of two documents or more, as it stands in the file; where none has, the first."""
    documents = rows["document"] if "document" in rows.column_names else []
    index = next((index for index, ids in enumerate(documents) if len(set(ids.as_py())) > 1), 0)
    return rows.slice(index, 1).to_pylist()[0]


def watched(steps: int) -> tuple[int, ...]:
    """The steps of a run of so many that figure 6 shows: those of the paper; of a shorter run its start, middle and end.

    >>> watched(10_000), watched(80)
    ((0, 100, 200), (0, 40, 80))
    """
    return STEPS if steps >= STEPS[1] else (0, steps // 2, steps)


class Watch:
    """Writes down at some steps what Revela makes of one row. For other objectives it does nothing.

    At some steps (`watched`) all weights and losses of the row, for figure 6; and at steps 0, 10, 20, 40, 80, ... the loss under
    three kinds of Sim (`gain`).

    To be called by all processes, because all have to take part under ZeRO-3; those with path None write nothing. The
    row is tokenised at once, because later the tokenizers are busy with the batches to come.
    """

    def __init__(
        self, objective: Objective, row: dict[str, Any], path: str | Path | None, steps: tuple[int, ...] = STEPS
    ):
        """path: a file of JSON lines: step, document, similarity and loss. `GAIN` stands beside it. steps: for figure 6."""
        self.steps = steps
        self.objective = objective if isinstance(objective, Revela) else None
        self.path = None if path is None else Path(path)
        if self.objective:
            self.batch = objective.part(objective.collate(row))
            self.documents = list(row.get("document") or [""] * len(row["text"]))

    def __call__(self, step: int) -> None:
        """Writes down the state after a step, as the next one meets it, if this is a step to do so."""
        if self.objective is None:
            return
        self.objective.step = step + 1
        if step in self.steps:
            state = {"document": self.documents, **measure(self.objective, self.batch)}
            self._write(self.path, {"step": step, **state})
        if doubles(step):
            state = gain(self.objective, self.batch)
            self._write(self.path and self.path.with_name(GAIN), {"step": step, **state})

    def _write(self, path: Path | None, state: dict[str, Any]) -> None:
        """Lines of this step or later ones are from before an interruption, and are replaced."""
        if path is None:
            return
        step = state["step"]
        earlier = path.read_text(encoding="utf-8").splitlines() if step and path.exists() else []
        lines = [line for line in earlier if json.loads(line)["step"] < step]
        with atomic_write(path) as partial:
            partial.write_text("".join(f"{line}\n" for line in [*lines, json.dumps(state)]), encoding="utf-8")


def doubles(step: int) -> bool:
    """Whether a step is one of 0, 10, 20, 40, 80, ..."""
    tens, rest = divmod(step, 10)
    return rest == 0 and tens & (tens - 1) == 0


@contextmanager
def watching(objective: Revela, batch: Tokens) -> Iterator[Tokens]:
    """The batch where the objective is; within, there are no gradients and no dropout, and precision is the run's."""
    device, training = next(objective.parameters()).device, objective.training
    objective.eval()
    try:
        with torch.no_grad(), objective.autocast():
            yield {name: tensor.to(device) for name, tensor in batch.items()}
    finally:
        objective.train(training)


def measure(objective: Revela, batch: Tokens) -> dict[str, list]:
    """`similarity`: Sim [B, B]; `loss`: the mean h-stream loss of each chunk's tokens [B], in nats; without dropout."""
    with watching(objective, batch) as here:
        sim = objective.similarity(here)
        hidden, _ = objective.streams(here, sim, objective.gate())
        losses = [_mean_loss(objective, h, labels) for h, labels in zip(hidden, here["lm_labels"])]
        sim, losses = objective.whole(sim), objective.whole(torch.stack(losses))
    return {
        "similarity": [[round(weight, 6) for weight in row] for row in sim.tolist()],
        "loss": [round(loss, 6) for loss in losses.tolist()],
    }


def gain(objective: Revela, batch: Tokens) -> dict[str, float]:
    """The distance that Sim has come, and can still go: `losses_under` the `kinds_of_sim`."""
    with watching(objective, batch) as here:
        return losses_under(objective, here, kinds_of_sim(objective, here))


def kinds_of_sim(objective: Revela, here: Tokens) -> dict[str, torch.Tensor]:
    """What Sim is, and what it might be, by name: each [B, B], or this process's rows [B / P, B].

    learned: that of now. uniform: one that tells nothing. same_document: one that is uniform over the other chunks of the
    same document, or over all where there are none; left out if documents are not known.
    """
    uniform = objective.rows_of_uniform(here)
    sims = {"learned": objective.similarity(here), "uniform": uniform}
    if "document" in here:
        first = objective.first(uniform)
        same = same_document(here["document"]).float()[first : first + len(uniform)]
        number = same.sum(1, keepdim=True)
        sims["same_document"] = torch.where(number > 0, same / number.clamp(min=1), uniform)
    return sims


def losses_under(objective: Revela, here: Tokens, sims: dict[str, torch.Tensor]) -> dict[str, float]:
    """The mean h-stream loss of a token under each of `sims` [B, B], in nats, without dropout."""
    counted = torch.tensor([objective.count(here)], device=here["lm_labels"].device)
    tokens, found = max(1, int(objective.whole(counted).sum())), {}
    for name, sim in sims.items():
        hidden, _ = objective.streams(here, sim, objective.gate())
        loss = objective.whole(objective.next_token_loss(hidden, here["lm_labels"])[None]).sum()
        found[name] = round(loss.item() / tokens, 6)
    return found


def _mean_loss(objective: Revela, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean over one chunk's predicted tokens, NaN if it has none."""
    logits = output_head(objective.lm)(hidden[:-1]).float()
    return F.cross_entropy(logits, labels[1:], ignore_index=IGNORED)
