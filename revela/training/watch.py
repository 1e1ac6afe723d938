"""One batch while a cell of Revela is trained: the weights that its chunks have for each other, and their losses.

The batch is the first of the training file with chunks of several documents, in the order of the file; for Wikipedia it
is at the head of the corpus, as in figure 6. The training does not depend on it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.nn.functional as F

from revela.files import atomic_write
from revela.method.inbatch import hidden_states
from revela.objectives.base import Objective
from revela.objectives.revela import IGNORED, Revela
from revela.objectives.tokens import Tokens
from revela.pretrained import output_head

FILE = "dynamics.jsonl"
STEPS = (0, 100, 200)  # of the optimizer, as in figure 6


def first_of_several_documents(rows: pa.Table) -> dict[str, Any]:
    """The first row with chunks of two documents or more, as it stands in the file; where none has, the first."""
    documents = rows["document"] if "document" in rows.column_names else []
    index = next((index for index, ids in enumerate(documents) if len(set(ids.as_py())) > 1), 0)
    return rows.slice(index, 1).to_pylist()[0]


class Watch:
    """Writes down at some steps what Revela makes of one row. For other objectives it does nothing.

    To be called by all processes, because all have to take part under ZeRO-3; those with path None write nothing. The
    row is tokenised at once, because later the tokenizers are busy with the batches to come.
    """

    def __init__(self, objective: Objective, row: dict[str, Any], path: str | Path | None):
        """path: a file of JSON lines: step, document, similarity and loss."""
        self.objective = objective if isinstance(objective, Revela) else None
        self.path = None if path is None else Path(path)
        if self.objective:
            self.batch = objective.collate(row)
            self.documents = list(row.get("document") or [""] * len(row["text"]))

    def __call__(self, step: int) -> None:
        """Writes down the state after a step, if it is one of `STEPS`.

        Lines of this step or later ones are from before an interruption, and are replaced.
        """
        if self.objective is None or step not in STEPS:
            return
        state = {"step": step, "document": self.documents, **measure(self.objective, self.batch)}
        if self.path is None:
            return
        earlier = self.path.read_text(encoding="utf-8").splitlines() if step and self.path.exists() else []
        lines = [line for line in earlier if json.loads(line)["step"] < step]
        with atomic_write(self.path) as partial:
            partial.write_text("".join(f"{line}\n" for line in [*lines, json.dumps(state)]), encoding="utf-8")


@torch.no_grad()
def measure(objective: Revela, batch: Tokens) -> dict[str, list]:
    """`similarity`: Sim [B, B]; `loss`: the mean h-stream loss of each chunk's tokens [B], in nats; without dropout."""
    settings, device = objective.settings, next(objective.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    training = objective.training
    objective.eval()
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        sim = objective.similarity(batch)
        hidden = hidden_states(
            objective.lm,
            batch["lm_input_ids"],
            batch["lm_attention_mask"],
            sim,
            value_norm=settings.value_norm,
            attention=settings.attention,
        )
        losses = [_mean_loss(objective, h, labels) for h, labels in zip(hidden, batch["lm_labels"])]
    objective.train(training)
    return {
        "similarity": [[round(weight, 6) for weight in row] for row in sim.tolist()],
        "loss": [round(loss, 6) for loss in losses],
    }


def _mean_loss(objective: Revela, hidden: torch.Tensor, labels: torch.Tensor) -> float:
    """The mean over one chunk's predicted tokens, NaN if it has none."""
    logits = output_head(objective.lm)(hidden[:-1]).float()
    return F.cross_entropy(logits, labels[1:], ignore_index=IGNORED).item()
