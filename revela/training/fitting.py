"""Whether a run fits into the memory of its machine, and gradient checkpointing where that makes it fit."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.distributed as dist

from revela.objectives.base import Objective
from revela.plan import available, flops
from revela.plan.available import Room
from revela.plan.fit import SURE, Fit, Load, fit
from revela.plan.memory import Tokens
from revela.pretrained import load_tokenizer
from revela.study.cell import Cell
from revela.training.job import Job

LONGEST = 8  # rows of the most characters, among which that of the most tokens is taken to be


def decide(job: Job, rows: pa.Table) -> Fit:
    """What the run does about its memory; DoesNotFit where it needs too much. To be called by all processes.

    rows: of the training file. Their tokens are counted only where texts as long as the settings allow would not fit.
    """
    load, room = load_of(job), least(room_here())
    if SURE * load.need(checkpointing=False) > room.bytes:
        load = load_of(job, largest(job, rows))
    return fit(load, room, job.gradient_checkpointing, job.cell)


def recompute(objective: Objective) -> None:
    """Switches gradient checkpointing on in both models. Dropout draws the same masks again."""
    for model in filter(None, (objective.retriever.backbone, objective.lm)):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def load_of(job: Job, tokens: Tokens | None = None) -> Load:
    """What the memory of this run follows from; the tokens are those of its largest batch."""
    cell, paths = Cell.parse(job.cell), [job.retriever] if job.lm is None else [job.retriever, job.lm]
    shapes = [flops.read_shape(path / "config.json") for path in paths]
    return Load(
        job.training,
        shapes,
        cell.batch_size,
        dist.get_world_size(),
        gpu=torch.cuda.is_available(),
        least_batch=cell.needs.least_batch,
        tokens=tokens,
    )


def room_here() -> Room:
    """What this process may hold: on its GPU, or on the machine that it shares with the others of the run."""
    if torch.cuda.is_available():
        return available.gpu_room()
    return available.room(int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size())), running=True)


def least(room: Room) -> Room:
    """The least room that any process of the run has."""
    of_all = torch.tensor(room.bytes, dtype=torch.float64, device="cuda" if torch.cuda.is_available() else "cpu")
    dist.all_reduce(of_all, op=dist.ReduceOp.MIN)
    return Room(of_all.item(), room.where)


def largest(job: Job, rows: pa.Table) -> Tokens:
    """The most tokens that the retriever's texts and the language model's have in a batch of the training file."""
    settings = job.training
    texts = rows["text"] if "text" in rows.column_names else rows["passages"]
    lengths = pc.utf8_length(pc.list_flatten(texts))
    characters = pa.table({"row": pc.list_parent_indices(texts), "length": lengths}).group_by("row").aggregate(
        [("length", "sum")]
    )  # fmt: skip
    longest = characters.sort_by([("length_sum", "descending")])["row"][:LONGEST].to_pylist()
    sides = {"query": settings.query_prefix, "passage": settings.passage_prefix}
    retriever, lm, most = load_tokenizer(job.retriever), load_tokenizer(job.lm) if job.lm else None, (0.0, 0.0)
    for row in rows.take(longest).to_pylist():
        pair = "passages" in row
        read = {"query": [row["query"]] if pair else row["text"], "passage": row["passages"] if pair else row["text"]}
        of_retriever = sum(
            _tokens(retriever, [sides[side] + text for text in of_side], settings.retriever_max_length, eos=1)
            for side, of_side in read.items()
        )
        of_lm = _tokens(lm, row["text"], settings.lm_max_length) if lm else 0.0
        most = max(most[0], of_retriever), max(most[1], of_lm)
    return most


def _tokens(tokenizer, texts: list[str], longest: int, *, eos: int = 0) -> float:
    ids = tokenizer(texts, truncation=True, max_length=longest, return_attention_mask=False)["input_ids"]
    return float(sum(min(len(one) + eos, longest) for one in ids))
