"""Frames of 1024 x 1024 pixels by EPICS PVAccess, from a server in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from bench._harness import Figure
from lightkeep.acquisition.frames import PvAccessSource
from lightkeep.acquisition.options import PvAccess
from lightkeep.model.acquisition import Frame

PART = "pvaccess"
FRAMES, RATE_HZ, LOST = 1500, 160.0, (400, 401, 900)
_WAIT_S = 60.0

SERVER = """
import json, sys, time
import numpy as np
from lightkeep.testing.beamline.live import Shot, VirtualBeamline
count, rate, lose = int(sys.argv[1]), float(sys.argv[2]) or None, tuple(json.loads(sys.argv[3]))
rng = np.random.default_rng(0)
images = [rng.integers(0, 60000, (1024, 1024), np.uint16) for _ in range(8)]
frames = [Shot(images[number % 8], 0, number * 0.1) for number in range(count)]
with VirtualBeamline(frames, rate_hz=rate, lose=lose) as beamline:
    print(json.dumps([beamline.image, beamline.acquire, beamline.epics]), flush=True)
    beamline.wait(1)
    time.sleep(5)
"""


def run() -> list[Figure]:
    """Count what arrives at 160 frames a second, and gaps that were made on purpose."""
    came, gaps, rate = _received(RATE_HZ, ())
    lossy, found, _ = _received(RATE_HZ, LOST)
    note = f"{FRAMES} frames of 1024 x 1024 uint16 at {RATE_HZ:g}/s over loopback"
    return [
        Figure("PVAccess frames per second", rate, None, "ours >= 150", 1, unit="1/s", is_rate=True, note=note),
        Figure("PVAccess frames lost", FRAMES - came, None, "ours <= 0", 1, unit="", note=note),
        Figure("PVAccess gaps counted", gaps, None, "ours <= 0", 1, unit="", note=note),
        Figure(
            "PVAccess gaps not noticed",
            abs(len(LOST) - found) + abs(FRAMES - len(LOST) - lossy),
            None,
            "ours <= 0",
            1,
            unit="",
            note=f"{len(LOST)} frames are counted by the detector and never sent",
        ),
    ]


def _received(rate_hz: float, lose: tuple[int, ...]) -> tuple[int, int, float]:
    """Return how many frames came, how many were missing between them, and how many came a second."""
    command = [sys.executable, "-c", SERVER, str(FRAMES), str(rate_hz), json.dumps(lose)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        image, acquire, epics = json.loads(server.stdout.readline())
        source = PvAccessSource(PvAccess(channel=image, acquire=acquire, epics=epics, queue=200))
        numbers, times, total = [], [], 0
        for message in source.messages():
            if isinstance(message, Frame):
                numbers.append(message.number)
                times.append(time.monotonic())
                total += int(message.data[0, 0])
            if numbers and (numbers[-1] == FRAMES - 1 or time.monotonic() - times[-1] > _WAIT_S / 10):
                break
        source.close()
        server.wait(_WAIT_S)
    gaps = numbers[-1] - numbers[0] + 1 - len(numbers)
    return len(numbers), gaps, (len(times) - 1) / (times[-1] - times[0])
