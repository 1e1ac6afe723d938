"""Whether a training run fits into memory, and what is done about it: decided by estimate, before the run begins.

It goes on as it is, or with gradient checkpointing, which changes no result; or it is refused, with what would fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from revela.errors import RevelaError
from revela.plan import memory
from revela.plan.available import Room
from revela.plan.flops import Shape

if TYPE_CHECKING:
    from revela.study.settings import Training

RANK = 32  # of adapters, which is enough for most uses
SURE = 1.1  # an estimate may be wrong by so much: when in doubt, checkpointing is on
GB = 2**30


class DoesNotFit(RevelaError):
    """A training run that needs more memory than there is. The message is one line."""


@dataclass(frozen=True)
class Load:
    """What the memory of a training process follows from; see `revela.plan.memory.parts`."""

    settings: Training
    shapes: Sequence[Shape]
    batch_size: int
    processes: int
    gpu: bool
    least_batch: int
    tokens: memory.Tokens | None = None

    def need(self, *, checkpointing: bool) -> float:
        """Bytes of a process."""
        how = {"checkpointing": checkpointing, "gpu": self.gpu, "tokens": self.tokens}
        return memory.peak(self.settings, self.shapes, self.batch_size, self.processes, **how)

    def changes(self, *, checkpointing: bool) -> dict[str, float]:
        """Bytes of a process under each change that would save some, by the change."""
        how = {"least_batch": self.least_batch, "gpu": self.gpu, "tokens": self.tokens}
        return memory.alternatives(
            self.settings, self.shapes, self.batch_size, self.processes, checkpointing=checkpointing, **how
        )

    def smaller(self) -> dict[str, float]:
        """Likewise, with gradient checkpointing on, of changes that make it another experiment."""
        settings, found = self.settings, {}
        for shared in range(self.processes, settings.processes_per_batch, -1):
            if self.processes % shared == self.batch_size % shared == 0:
                among = settings.model_copy(update={"processes_per_batch": shared})
                found[f"training.processes_per_batch {shared}"] = replace(self, settings=among)
                break
        half = [length // 2 for length in (settings.retriever_max_length, settings.lm_max_length)]
        shorter = replace(
            self,
            settings=settings.model_copy(update=dict(zip(("retriever_max_length", "lm_max_length"), half))),
            tokens=self.tokens and (self.tokens[0] / 2, self.tokens[1] / 2),
        )
        found[f"training.retriever_max_length {half[0]} and lm_max_length {half[1]}"] = shorter
        if len(self.shapes) == 2 and not settings.freeze_lm:
            frozen = settings.model_copy(update={"freeze_lm": True})
            found["training.freeze_lm true"] = replace(self, settings=frozen)
        if settings.lora and settings.lora.rank > RANK:
            low = settings.lora.model_copy(update={"rank": RANK})
            found[f"training.lora.rank {RANK}"] = replace(self, settings=settings.model_copy(update={"lora": low}))
        return {change: load.need(checkpointing=True) for change, load in found.items()}

    def fitting(self, room: float, needs: dict[str, float]) -> str:
        """The changes that fit into so many bytes, with their need; or those that were tried."""
        fitting = [f"{change} ({need / GB:.1f} GiB)" for change, need in needs.items() if need <= room]
        return ", ".join(fitting) or f"none of {', '.join(needs)}"


@dataclass(frozen=True)
class Fit:
    """What was decided: whether a run uses gradient checkpointing, and why in one line."""

    checkpointing: bool
    line: str


def fit(load: Load, room: Room, wanted: bool | None, name: str) -> Fit:
    """Decides on gradient checkpointing: as it is wanted, or by the room that a process has if that is None.

    Raises DoesNotFit where neither way fits, unless one of them is wanted.
    """
    plain, spared = (load.need(checkpointing=way) for way in (False, True))
    if wanted is not None:
        need = spared if wanted else plain
        odd = "" if need <= room.bytes else "; that will hardly do"
        said = f"gradient checkpointing is {'on' if wanted else 'off'}, as compute.gradient_checkpointing says"
        return Fit(wanted, f"memory: {need / GB:.1f} GiB by estimate, and there are {room}; {said}{odd}")
    if SURE * plain <= room.bytes:
        return Fit(
            False, f"memory: {plain / GB:.1f} GiB by estimate, and there are {room}; gradient checkpointing is off"
        )
    if spared <= room.bytes:
        return Fit(
            True,
            f"memory: {plain / GB:.1f} GiB by estimate, and there are {room}; gradient checkpointing is on, with which it "
            f"is {spared / GB:.1f} GiB and the result the same",
        )
    raise DoesNotFit(
        f"{name}: training needs {plain / GB:.1f} GiB of memory by estimate, {spared / GB:.1f} GiB with gradient "
        f"checkpointing, and there are {room}; these would fit: "
        f"{load.fitting(room.bytes, load.changes(checkpointing=False) | load.smaller())}, or a smaller model; to try all "
        "the same, set compute.gradient_checkpointing: true"
    )
