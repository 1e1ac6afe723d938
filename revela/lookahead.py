"""Work that is done ahead of the one who needs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def lookahead(
    make: Callable[[Item], Result], items: Iterable[Item], *, depth: int = 1, executor: Executor | None = None
) -> Iterator[Result]:
    """`make(item)` for each item, in order, as `map` does, while up to `depth` later ones are being made.

    executor: where they are made; by default one thread, which lives as long as the iterator. Items are taken no
    earlier than they are needed, and an error of `make` is raised in the place of its result.

    >>> list(lookahead(str.upper, "abc"))
    ['A', 'B', 'C']
    """
    with ThreadPoolExecutor(1) if executor is None else nullcontext(executor) as pool:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(make, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
