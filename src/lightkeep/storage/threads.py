"""Share a list of small jobs among a few threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
