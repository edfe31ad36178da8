"""A folder that receives 1,000 files a second for a minute, taken in by a process as the worker starts it.

Latency is counted from a file's last write to the moment when another process, which looks every 20 ms, sees it in
the catalogue. Cores are those of the process that takes in; the writer and the looker have theirs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from sqlalchemy import text

from bench._harness import Figure
from lightkeep.config import Config
from lightkeep.facility import Facility, create_facility
from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.lifecycle.acquisitions.acquire_keep import Keeper
from lightkeep.model.acquisition import SourceKind
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Person

PART = "acquisition"
RATE = 1000
SECONDS = 60
SIZE = 16 << 10
QUIET_S = 1.0
_LOOK_S = 0.02
_WAIT_S = 120.0

WRITER = """
import os, sys, time
folder, rate, count, size = sys.argv[1], *map(int, sys.argv[2:])
content, began, late = os.urandom(size), time.monotonic(), 0.0
for number in range(count):
    left = began + number / rate - time.monotonic()
    if left > 0: time.sleep(left)
    late = max(late, -left)
    with open(f"{folder}/{number:06d}.raw", "wb") as file: file.write(content)
print(late)
"""


def run() -> list[Figure]:
    """Measure latency, cores and completeness."""
    with tempfile.TemporaryDirectory(prefix="acquisition-") as folder:
        place = Path(folder)
        (place / "detector").mkdir()
        with create_facility(Config(place / "facility"), admin=Person("ada", "Ada")) as facility:
            with facility.catalog.change(SERVICE) as tx:
                tx.add_station(Station("2-BM"))
                tx.add_experiment(Experiment("bench", "2-BM"))
            return _measure(facility, place / "detector")


def _measure(facility: Facility, folder: Path) -> list[Figure]:
    options = {"path": str(folder), "datasets": "folder", "quiet_s": QUIET_S}
    made = acquire.define(
        facility, "detector", experiment_id="bench", kind=SourceKind.FOLDER, options=options, principal=SERVICE
    )
    acquire.start(facility, made.id, principal=SERVICE)
    keeper = Keeper(facility)
    keeper.tick()
    view = facility.catalog.view(SERVICE)
    while view.acquisition(made.id).lease_until is None:
        time.sleep(_LOOK_S)
    process = int(view.acquisition(made.id).holder.rpartition(":")[2])
    count = RATE * SECONDS
    seen: list[tuple[float, int]] = []
    ending = threading.Event()
    looking = threading.Thread(target=_look, args=(facility, seen, ending))
    looking.start()
    cpu, began = _cpu_s(process), time.monotonic()
    command = [sys.executable, "-c", WRITER, str(folder), str(RATE), str(count), str(SIZE)]
    late = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    wrote_s = time.monotonic() - began
    cores = (_cpu_s(process) - cpu) / wrote_s
    until = time.monotonic() + _WAIT_S
    while _files(facility) < count and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(2 * _LOOK_S)
    ending.set()
    looking.join()
    lags = _lags(facility, folder, seen)
    keeper.close()
    note = f"{count} files of 16 KiB at {count / wrote_s:.0f}/s, writer at most {1000 * late:.0f} ms late"
    return [
        Figure("files missing", count - len(lags), None, "ours <= 0", 1, unit="", note=note),
        Figure("latency p50 above the quiet time", _above(lags, 50), None, "", 1),
        Figure("latency p99 above the quiet time", _above(lags, 99), None, "ours <= 0.5", 1),
        Figure("latency, longest, above the quiet time", _above(lags, 100), None, "", 1),
        Figure("cores while files come", cores, None, "ours <= 0.5", 1, unit=""),
    ]


def _above(lags: list[float], percentile: int) -> float:
    return float(np.percentile(lags, percentile)) - QUIET_S if lags else float("inf")


def _look(facility: Facility, seen: list[tuple[float, int]], ending: threading.Event) -> None:
    """Note when which event was the newest that others see."""
    while not ending.wait(_LOOK_S):
        seen.append((time.time(), facility.catalog.head()[0]))


def _lags(facility: Facility, folder: Path, seen: list[tuple[float, int]]) -> list[float]:
    """Return for each file in the catalogue the seconds from its last write to being seen there."""
    times, heads = (np.array(each) for each in zip(*seen, strict=True))
    with facility.catalog.engine.connect() as connection:
        rows = connection.execute(text("SELECT path, event_seq FROM file")).all()
    lags = []
    for path, event in rows:
        at = int(np.searchsorted(heads, event))
        wrote = os.stat(folder / os.fsdecode(path)).st_mtime
        lags.append(float(times[min(at, len(times) - 1)]) - wrote)
    return lags


def _files(facility: Facility) -> int:
    with facility.catalog.engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM file")).scalar_one())


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
