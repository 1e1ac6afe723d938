"""How fast a run is: tokens and floating-point operations a second, MFU, and the memory it takes."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from revela.objectives.base import Objective
from revela.objectives.tokens import Tokens
from revela.plan import flops
from revela.training.loop import Step, sum_over_processes


class Speedometer:
    """Takes the speed of each step, from the end of the step before.

    operations: counts those of a batch of the objective, see `revela.study.methods.Method.operations`.
    """

    def __init__(self, operations: Callable[..., float], objective: Objective):
        self.operations, self.settings = operations, objective.settings
        self.retriever = flops.Shape.from_config(objective.retriever.backbone.config.to_dict())
        self.lm = flops.Shape.from_config(objective.lm.config.to_dict()) if objective.lm is not None else None
        bf16_gpu = torch.cuda.is_available() and self.settings.precision == "bf16"
        self.peak = flops.peak(torch.cuda.get_device_name()) if bf16_gpu else None
        self.start()

    def start(self) -> None:
        """The next step begins now, with the wait for its batches."""
        self.started = time.monotonic()

    def read(self, step: Step) -> dict[str, float]:
        """What is logged of a step that was just taken. To be called by all processes.

        seconds: those of the step. tokens_per_second: of all texts, by all processes together. tflops: of one process.
        mfu: the share of the chip's peak, where that is known.
        """
        lengths = [text_lengths(batch) for batch in step.batches]
        attended = step.means.get("attended", 0)
        computed = sum(self.operations(self.settings, self.retriever, self.lm, of, attended=attended) for of in lengths)
        tokens, computed = sum_over_processes([sum(sum(map(sum, of.values())) for of in lengths), computed])
        seconds = time.monotonic() - self.started
        rate = computed / dist.get_world_size() / seconds
        mfu = {"mfu": rate / self.peak} if self.peak else {}
        speed = {"seconds": seconds, "tokens_per_second": tokens / seconds, "tflops": rate / 1e12}
        return {**speed, **mfu, "peak_memory_gb": peak_memory()}


def text_lengths(batch: Tokens) -> dict[str, list[int]]:
    """Tokens of each text that goes through a model, by the part that it plays: all that an attention mask shows."""
    end = "_attention_mask"
    return {name.removesuffix(end): mask.sum(1).tolist() for name, mask in batch.items() if name.endswith(end)}


def peak_memory() -> float:
    """GiB that this process held at most: of the GPU, if it has one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
