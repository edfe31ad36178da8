"""Cut a list of small jobs into batches, and share them among a few threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def share(items: Sequence[T], work: Callable[[Iterator[T]], None], *, threads: int) -> None:
    """Call `work` once in each thread, all with one iterator over the items: each takes the next when it is free.

    The first error leaves the other threads nothing more to take, and is raised when they have ended.
    """
    waiting = iter(items)

    def run() -> None:
        try:
            work(waiting)
        except BaseException:
            for _ in waiting:
                pass
            raise

    if threads == 1 or len(items) == 1:
        run()
        return
    with ThreadPoolExecutor(threads) as pool:
        for ended in [pool.submit(run) for _ in range(threads)]:
            ended.result()


def batches(items: Iterable[T], size: Callable[[T], int], *, most: int, total: int) -> Iterator[list[T]]:
    """Cut into lists of at most `most` items, whose sizes add up to at most `total` or that have one item."""
    batch: list[T] = []
    sum_ = 0
    for item in items:
        if batch and (len(batch) == most or sum_ + size(item) > total):
            yield batch
            batch, sum_ = [], 0
        batch.append(item)
        sum_ += size(item)
    if batch:
        yield batch
