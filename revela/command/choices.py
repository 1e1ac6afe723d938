"""What `revela train` has chosen for the user: a line for each choice, with the option or setting that changes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from revela.command import cutting

if TYPE_CHECKING:
    from revela.study.cell import Cell
    from revela.study.study import Study


def choices(study: Study, cell: Cell, cores: int) -> Iterator[str]:
    """The lines, in the order of the chain."""
    settings, compute = study.training_settings(cell), study.config.compute
    yield cutting.said(study)
    lengths = f"{settings.retriever_max_length} tokens in the retriever, {settings.lm_max_length} in the language model"
    yield f"chunks are cut after {lengths} (training.retriever_max_length, lm_max_length)"
    beside = f" x {settings.batches_per_step} a step" if settings.batches_per_step > 1 else ""
    yield f"batch size: {cell.batch_size} chunks{beside} (--batch-size)"
    yield f"steps: {settings.max_steps or 'one epoch'} (--steps, --minutes)"
    prefixes = f"{settings.query_prefix!r} and {settings.passage_prefix!r}"
    yield f"prefixes: {prefixes} (training.query_prefix, passage_prefix)"
    gate = settings.cross_attention.gate
    if settings.freeze_lm:
        yield f"language model: {cell.lm}, frozen, behind a gate of {gate:g} (training.freeze_lm, cross_attention.gate)"
    else:
        yield f"language model: {cell.lm}, trained as well, gate {gate:g} (training.freeze_lm, cross_attention.gate)"
    if settings.lora:
        yield f"retriever: {cell.retriever}, LoRA adapters of rank {settings.lora.rank} (training.lora)"
    else:
        yield f"retriever: {cell.retriever}, all weights are trained (training.lora)"
    where = f"{compute.training_gpus} GPUs" if compute.training_gpus else f"the CPU, {cores} threads (--cores)"
    precision = "bfloat16" if settings.precision == "bf16" else "float32"
    yield f"precision: {precision} (training.precision), on {where}"
