"""A batch that several processes share: what travels between them, and its gradient on the way back.

Processes in groups of P share a batch of B documents. Each holds B / P of them, in the order of the batch. To all of a
group go

    the passages' embeddings, for the rows of Sim: `Group.gather`
    who attends to whom, and how long documents are; without gradients

and in each layer keys and values of the e-stream, `Exchange`: all of them, or those of the documents that the receiver's
documents attend to. Arithmetic is that of one process, and so are loss and gradients, but for round-off.

The processes of a group call all of this in the same order, also where gradient checkpointing computes a layer again:
what decides what they call is the same on all of them.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class Group:
    """The `count` processes that share a batch; this one has place 0 <= `place` < count among them."""

    def __init__(self, processes: dist.ProcessGroup, place: int, count: int):
        self.processes, self.place, self.count = processes, place, count

    @classmethod
    def of_neighbours(cls, count: int) -> Group | None:
        """The group of this process, its neighbours by rank; None for a process that has a batch to itself.

        To be called by all processes, whose number is a multiple of count.
        """
        if count == 1:
            return None
        processes, _ = dist.new_subgroups(count)
        return cls(processes, dist.get_rank() % count, count)

    def part(self, whole: Tensor) -> Tensor:
        """Of a batch's tensor `whole` [B, ...] the rows [B / P, ...] that this process holds.

        Of fewer rows than processes, the first processes have one each.
        """
        return whole.tensor_split(self.count)[self.place]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows [n, ...] of each process -> [count * n, ...] of all, in the order of the batch.

        Their gradients come back, summed over the processes.
        """
        return _Gather.apply(rows, self)


class Exchange:
    """Which documents' keys and values this process gets from its group, in one batch.

    Of two ways the one is taken that moves fewer tokens to or from the process that has most to do: all tokens to all
    (an all-gather, for which each process sends as many as the one with most), or those alone that are attended to (an
    all-to-all). The backward pass goes the same way, as a reduce-scatter or an all-to-all.

    attends: [B / P, B] of booleans: whether a document of this process attends to document j of the batch. For each
        process, some document is attended to.
    lengths: tokens of each of this process's documents.

    After that, `lengths` are the tokens of each of the B documents that this process gets, 0 for one that it does not.
    """

    def __init__(self, group: Group, attends: Tensor, lengths: list[int]):
        self.group = group
        (own, size), device = attends.shape, attends.device
        table = torch.cat([attends, torch.tensor(lengths, device=device)[:, None]], 1)
        table = group.gather(table.int()).cpu()  # [B, B + 1]
        wanted = table[:, :size].view(group.count, own, size).any(1)  # [P, B]: by each process
        tokens = table[:, size]
        moved = (wanted * tokens).view(group.count, group.count, own).sum(2)  # [P, P]: to each process, from each
        others = moved - moved.diag().diag()
        totals = tokens.view(group.count, own).sum(1)
        self.longest = int(totals.max())
        self.all = int(torch.maximum(others.sum(0), others.sum(1)).max()) >= (group.count - 1) * self.longest
        if self.all:
            self.lengths = tokens.tolist()
            places = [torch.arange(total) + process * self.longest for process, total in enumerate(totals.tolist())]
        else:
            self.lengths = (wanted[group.place] * tokens).tolist()
            self.received, self.sent = moved[group.place].tolist(), moved[:, group.place].tolist()
            bounds = list(pairwise(accumulate(lengths, initial=0)))
            mine = wanted[:, group.place * own : (group.place + 1) * own].tolist()
            places = [torch.arange(*bounds[i]) for for_one in mine for i in range(own) if for_one[i]]
        self.places = torch.cat([torch.arange(0), *places]).to(device)

    def __call__(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Key and value [1, H_kv, T, d] of this process's documents -> [1, H_kv, sum of `lengths`, d]."""
        parts = [x[0].transpose(0, 1).flatten(1) for x in (key, value)]
        rows = torch.cat(parts, 1)  # [T, 2 H_kv d]
        if self.all:
            rows = self.group.gather(F.pad(rows, (0, 0, 0, self.longest - len(rows)))).index_select(0, self.places)
        else:
            rows = _Move.apply(rows.index_select(0, self.places), self.group, self.sent, self.received)
        key, value = (
            part.unflatten(1, (key.shape[1], -1)).transpose(0, 1)[None]
            for part in rows.split([part.shape[1] for part in parts], 1)
        )
        return key, value


class _Gather(torch.autograd.Function):
    """All rows to all; the gradients of a process's rows, of which each process has some, to that process."""

    @staticmethod
    def forward(ctx, rows: Tensor, group: Group) -> Tensor:
        ctx.group = group
        gathered = rows.new_empty(group.count * len(rows), *rows.shape[1:])
        dist.all_gather_single(gathered, rows.contiguous(), group=group.processes)
        return gathered

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        own = gradient.new_empty(len(gradient) // ctx.group.count, *gradient.shape[1:])
        dist.reduce_scatter_single(own, gradient.contiguous(), group=ctx.group.processes)
        return own, None


class _Move(torch.autograd.Function):
    """Rows to the processes that want them, `sent` and `received` to and from each; gradients back."""

    @staticmethod
    def forward(ctx, rows: Tensor, group: Group, sent: list[int], received: list[int]) -> Tensor:
        ctx.way = group, sent, received
        return _move(rows, group, sent, received)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        group, sent, received = ctx.way
        return _move(gradient, group, received, sent), None, None, None


def _move(rows: Tensor, group: Group, sent: list[int], received: list[int]) -> Tensor:
    moved = rows.new_empty(sum(received), *rows.shape[1:])
    dist.all_to_all_single(moved, rows.contiguous(), received, sent, group=group.processes)
    return moved
