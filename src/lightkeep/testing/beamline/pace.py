"""As fast as a detector, and no faster."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Frame = TypeVar("Frame")


def paced(frames: Iterable[Frame], rate_hz: float | None) -> Iterator[Frame]:
    """Yield the frames at a rate, without drift; None: as fast as they are taken."""
    started = time.monotonic()
    for number, frame in enumerate(frames):
        if rate_hz is not None:
            time.sleep(max(0.0, started + number / rate_hz - time.monotonic()))
        yield frame
