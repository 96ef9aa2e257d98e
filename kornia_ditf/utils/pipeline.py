"""Reading ahead in background threads, and running what was read in groups."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from kornia_ditf.errors import DiTFError

Item = TypeVar("Item")
Value = TypeVar("Value")
Result = TypeVar("Result")


def ahead_of(
    items: Iterable[Item], work: Callable[[Item], Value], *, ahead: int = 2, workers: int = 1
) -> Iterator[tuple[Item, Future[Value]]]:
    """Work on the next items in background threads while the caller is busy with one.

    Args:
        items: taken from the caller's own thread, one after another.
        work: called in a background thread.
        ahead: how many items may be worked on or wait to be taken, which bounds the memory.
        workers: threads.

    Yields:
        each item with the future of its result, in order. When the iteration ends early, what
        has not begun is dropped.

    Example:
        >>> [future.result() for _, future in ahead_of("abc", str.upper)]
        ['A', 'B', 'C']
    """
    pending: deque[tuple[Item, Future[Value]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append((item, pool.submit(work, item)))
                if len(pending) > ahead:
                    yield pending.popleft()
            while pending:
                yield pending.popleft()
        finally:
            for _, future in pending:
                future.cancel()


def run_in_groups(
    items: Iterable[Item],
    read: Callable[[Item], Value],
    run: Callable[[Sequence[Value]], Sequence[Result]],
    group: Callable[[Value], tuple[Hashable, int]],
    *,
    ahead: int = 2,
    workers: int = 1,
) -> Iterator[tuple[Item, Result | DiTFError]]:
    """Read items in the background, and run those of one kind together.

    Args:
        items: what is read.
        read: reads one, in a background thread.
        run: runs values of one kind, and returns one result for each. Of a group that fails, the
            halves are run, down to the value that fails or to what the memory can hold.
        group: a value's kind, and how many of that kind are run together.
        ahead: how many values may wait to be run besides those of full groups.
        workers: threads that read.

    Yields:
        each item with its result, or with the error that reading or running it raised, in order.

    Example:
        >>> squares = run_in_groups([3, 4], int, lambda xs: [x * x for x in xs], lambda x: (0, 2))
        >>> list(squares)
        [(3, 9), (4, 16)]
    """
    held: deque[tuple[int, Item]] = deque()
    waiting: dict[Hashable, dict[int, Value]] = {}  # the kind that has waited longest first
    done: dict[int, Result | DiTFError] = {}
    for number, (item, future) in enumerate(ahead_of(items, read, ahead=ahead, workers=workers)):
        held.append((number, item))
        try:
            value = future.result()
        except DiTFError as error:
            done[number] = error
        else:
            kind, size = group(value)
            waiting.setdefault(kind, {})[number] = value
            if len(waiting[kind]) >= size:
                done |= _run(run, waiting.pop(kind))
        if waiting and len(held) > ahead:
            done |= _run(run, waiting.pop(next(iter(waiting))))
        yield from _finished(held, done)
    while waiting:
        done |= _run(run, waiting.pop(next(iter(waiting))))
        yield from _finished(held, done)


def readers(device: torch.device) -> int:
    """Return how many threads read for a device: the CPU has work of its own to do."""
    return 1 if device.type == "cpu" else min(4, os.cpu_count() or 1)


def _finished(
    held: deque[tuple[int, Item]], done: dict[int, Result | DiTFError]
) -> Iterator[tuple[Item, Result | DiTFError]]:
    while held and held[0][0] in done:
        number, item = held.popleft()
        yield item, done.pop(number)


def _run(
    run: Callable[[Sequence[Value]], Sequence[Result]], values: dict[int, Value]
) -> dict[int, Result | DiTFError]:
    try:
        return dict(zip(values, run(list(values.values())), strict=True))
    except DiTFError as error:
        if len(values) == 1:
            return dict.fromkeys(values, error)
    except torch.OutOfMemoryError:
        if len(values) == 1:
            raise
    pairs = list(values.items())
    half = len(pairs) // 2
    return _run(run, dict(pairs[:half])) | _run(run, dict(pairs[half:]))
