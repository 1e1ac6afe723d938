"""The training loop: rows become batches, an objective makes a loss of each, DeepSpeed takes the step.

What happens at a step follows from the seed and the step alone: which rows are seen, in which order their chunks
stand, and what dropout does. So, except for round-off, the result does not depend on the number of processes. It does
not depend on interruptions either: a run that was killed goes on from its newest checkpoint when it is started again,
and ends in the same weights, on a CPU to the last bit.

Processes may share batches, in groups of `processes_per_batch` (`revela.method.exchange`). Without dropout the result
does not depend on that number either. With dropout each process of a group draws masks of its own, so that runs which
share batches differently differ as runs of two seeds of dropout do.

`train` yields every step that it has taken. Its caller, `revela.training.entry`, writes the log, saves checkpoints and
stops the run.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor, nn

from revela.lookahead import lookahead
from revela.method.exchange import Group
from revela.training import TrainingError
from revela.training.engine import build_engine, load_models
from revela.training.rows import Rows, positions_of, seed_of

if TYPE_CHECKING:
    from revela.objectives.base import Objective
    from revela.objectives.tokens import Tokens
    from revela.study.settings import Training


@dataclass(frozen=True)
class Step:
    """A step that was taken.

    means: the loss and what the objective logs beside it, means over the items of all processes.
    batches: those of this process, or its parts of them.
    """

    number: int
    means: dict[str, float]
    learning_rate: float
    gradient_norm: float
    batches: list[Tokens]


def prepare(
    objective: type[Objective], settings: Training, retriever: Path, lm: Path | None, steps: int
) -> deepspeed.DeepSpeedEngine:
    """An objective on the models of two folders, under DeepSpeed, ready for the first of all `steps` of its run.

    To be called by all processes.
    """
    built = objective(settings, *load_models(settings, retriever, lm))
    built.group = Group.of_neighbours(settings.processes_per_batch)
    return build_engine(built, settings, steps)


def train(engine: deepspeed.DeepSpeedEngine, settings: Training, rows: Rows, steps: range) -> Iterator[Step]:
    """Takes steps, which count from 1, and yields each one once it is taken. To be called by all processes.

    The batches of the next step are made in a thread while this one is computed.

    Raises TrainingError for a run that has diverged, or in which a trainable parameter has no part in the loss.
    """
    objective, processes, shared = engine.module, dist.get_world_size(), settings.processes_per_batch
    group, place = divmod(dist.get_rank(), shared)
    unreached = parameters_without_gradient(objective) if 1 in steps else set()

    def batches_of(step: int) -> tuple[list[Tokens], list[int]]:
        positions = positions_of(step, settings.batches_per_step, group, processes // shared)
        collated = [objective.collate(rows[position]) for position in positions]
        return [to_pinned(objective.part(batch)) for batch in collated], [*map(objective.count, collated)]

    for step, (batches, wholes) in zip(steps, lookahead(batches_of, steps)):
        objective.step, learning_rate = step, engine.get_lr()[0]
        counts = [objective.count(batch) for batch in batches]
        (items,) = sum_over_processes([sum(counts)])
        if not items:
            raise TrainingError(f"step {step}: nothing to predict, for each chunk of its batches is one token")

        sums: dict[str, float | Tensor] = defaultdict(float)
        positions = positions_of(step, settings.batches_per_step, group, processes // shared)
        here = [{name: of.to(engine.device, non_blocking=True) for name, of in batch.items()} for batch in batches]
        seeds = [seed_of(settings.seed, position, place) for position in positions]
        objective.prepare(here, seeds)
        for batch, seed, count, whole in zip(here, seeds, counts, wholes):
            torch.manual_seed(seed)
            loss, scalars = engine(batch)
            # Each item of the step weighs the same, whichever process has it, or each batch does. DeepSpeed averages
            # over processes, and what a process's weights did for the losses of others that share its batch comes back
            # to it as a sum.
            over = items if settings.loss_mean == "items" else max(1, whole) * settings.batches_per_step
            engine.backward(loss * (processes / over), scale_wrt_gas=False)
            for name, value in scalars.items():
                sums[name] += value.double() * count
            sums["loss"] += loss.detach().double()
            engine.step()

        norm = float(engine.get_global_grad_norm())
        means = {name: total / items for name, total in zip(sums, sum_over_processes([*sums.values()]))}
        check_finite(step, means["loss"], norm)
        if step == 1 and settings.similarity != "uniform":
            check_gradients(unreached, objective)
        yield Step(step, means, learning_rate, norm, batches)


def count_steps(settings: Training, rows: Rows, processes: int) -> int:
    """Steps of the whole run: as set, or one epoch; rows left over for less than a step are not used.

    Raises TrainingError where there is less than one step, or the processes cannot share one evenly.
    """
    groups, rest = divmod(processes, settings.processes_per_batch)
    if rest:
        raise TrainingError(
            f"processes_per_batch: {settings.processes_per_batch} processes share a batch, and {processes} are no "
            "multiple of that"
        )
    steps = settings.max_steps or len(rows) // settings.batches_per_step
    if len(rows) == 0 or steps == 0:
        raise TrainingError(f"{rows.path}: {len(rows)} batches are less than a step of {settings.batches_per_step}")
    if settings.batches_per_step % groups:
        sharers = f"{groups} groups of processes" if groups < processes else f"{processes} processes"
        raise TrainingError(f"batches_per_step: {settings.batches_per_step} is not a multiple of {sharers}")
    return steps


def to_pinned(batch: Tokens) -> Tokens:
    """The batch in memory from which a GPU copies without waiting, if there is one."""
    return {name: tensor.pin_memory() for name, tensor in batch.items()} if torch.cuda.is_available() else batch


def sum_over_processes(values: list[float | Tensor]) -> list[float]:
    """The sums over all processes of these values, a scalar each."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    total = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=device) for value in values])
    dist.all_reduce(total)
    return total.tolist()


def check_finite(step: int, loss: float, norm: float) -> None:
    """Stops a run that has diverged, by TrainingError; its checkpoints are from before."""
    if not math.isfinite(loss):
        raise TrainingError(f"step {step}: the loss is {loss}; lower learning_rate, or raise temperature")
    if not math.isfinite(norm) or norm < 0:
        raise TrainingError(f"step {step}: the gradient is not finite; lower learning_rate")


def parameters_without_gradient(objective: nn.Module) -> set[str]:
    """Names of trainable parameters; each leaves the set when a gradient reaches it."""
    unreached = {name for name, parameter in objective.named_parameters() if parameter.requires_grad}
    for name in unreached:
        objective.get_parameter(name).register_hook(lambda gradient, name=name: unreached.discard(name))
    return unreached


def check_gradients(unreached: set[str], objective: nn.Module) -> None:
    """Stops a run in which something trainable has no part in the loss, by TrainingError."""
    if unreached:
        first = min(unreached)
        total = sum(parameter.requires_grad for parameter in objective.parameters())
        raise TrainingError(
            f"step 1: {len(unreached)} of {total} trainable parameters got no gradient, {first} among them; "
            "the loss does not depend on them"
        )
