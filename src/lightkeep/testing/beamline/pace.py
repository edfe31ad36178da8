"""As fast as a detector, and no faster."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Frame = TypeVar("Frame")


def paced(frames: Iterable[Frame], rate_hz: float | None) -> Iterator[Frame]:
    """Yield the frames at a rate, without drift; None: as fast as they are taken."""
    started = time.monotonic()
    for number, frame in enumerate(frames):
        if rate_hz is not None:
            time.sleep(max(0.0, started + number / rate_hz - time.monotonic()))
        yield frame


def ahead(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the same while another thread makes the next one, so that making does not hold up the pace."""
    iterator, end = iter(frames), object()
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, iterator, end)
        while (frame := coming.result()) is not end:
            coming = maker.submit(next, iterator, end)
            yield frame  # type: ignore[misc]
