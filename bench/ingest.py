"""Ingest with every guarantee and its catalogue rows, against scripts that copy and check.

REF is the nearest that a careful person does by hand: `cp -a`, `sha256sum` of the source, `sync -f`, drop the copy
from the cache, `sha256sum -c`. Nothing is deleted between runs: ext4 avoids recently deleted inodes, and creating
files after a large delete is several times slower for minutes, for everybody.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench._harness import Figure, Timing
from lightkeep.config import Config
from lightkeep.facility import Facility, create_facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Person

PART = "ingest"
FILES = 3000
BIG_BYTES = 2_000_000_000
REPETITIONS = 5

DROP = """
import os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
"""
REF = """set -e
cp -a "$1" "$2"
(cd "$1" && find . -type f -print0 | xargs -0 sha256sum) > "$2.sums"
sync -f "$2"
"$3" -c "$4" "$2"
(cd "$2" && sha256sum -c --quiet "$2.sums")
"""


def run() -> list[Figure]:
    """Measure small files cold and warm, and one big file."""
    with tempfile.TemporaryDirectory(prefix="ingest-") as folder:
        place = Path(folder)
        config = Config(place / "facility")
        with create_facility(config, admin=Person("ada", "Ada")) as facility:
            with facility.catalog.change(SERVICE) as tx:
                tx.add_station(Station("2-BM"))
                tx.add_experiment(Experiment("bench", "2-BM"))
            return [*small_files(facility, place), *big_file(facility, place)]


def small_files(facility: Facility, place: Path) -> list[Figure]:
    """Files of 1 to 64 KiB, in folders of 500."""
    source = place / "small"
    rng = random.Random(1)
    for number in range(FILES):
        path = source / f"scan{number // 500}" / f"frame{number:05}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.randrange(1 << 10, 1 << 16)))
    os.sync()
    figures = []
    for state, prepare in (("cold", lambda: drop(source)), ("warm", lambda: warm(source))):
        ours, ref, rclone = rounds(
            lambda: take_in(facility, source),
            lambda: by_hand(source, place),
            lambda: by_rclone(source, place),
            prepare=prepare,
        )
        name = f"small files, {state}"
        figures += [
            figure(name, ours, ref, FILES, "files/s", "ratio >= 1.5", "cp -a, sha256sum, sync, drop, check"),
            figure(
                name, ours, rclone, FILES, "files/s", "ratio >= 0.9", "rclone copy --checksum: no sync, no check"
            ),
        ]
    return figures


def big_file(facility: Facility, place: Path) -> list[Figure]:
    """One file of 2 GB that does not compress, from a cold source."""
    source = place / "big"
    source.mkdir()
    block = random.Random(2).randbytes(10_000_000)
    with (source / "scan.raw").open("wb") as file:
        for number in range(BIG_BYTES // len(block)):
            file.write(number.to_bytes(8) + block[8:])
    os.sync()
    ours, ref, plain = rounds(
        lambda: take_in(facility, source),
        lambda: by_hand(source, place),
        lambda: subprocess.run(["cp", "-a", source, new_name(place)], check=True),
        prepare=lambda: drop(source),
        warm_up=0,
    )
    size = BIG_BYTES / 1e6
    return [
        figure("one 2 GB file", ours, ref, size, "MB/s", "ratio >= 3", "cp -a, sha256sum, sync, drop, check"),
        figure("one 2 GB file", ours, plain, size, "MB/s", "ratio >= 0.4", "plain cp: no hash, no sync, no check"),
    ]


_numbers = itertools.count()


def new_name(place: Path) -> Path:
    """A name that was not used before."""
    return place / f"copy{next(_numbers)}"


def take_in(facility: Facility, source: Path) -> None:
    """Ingest as a new dataset."""
    done = ingest(
        facility, source, experiment_id="bench", principal=SERVICE, name=f"run{next(_numbers)}", quiet_s=0.0
    )
    assert done.added == sum(len(names) for _, _, names in os.walk(source))


def by_hand(source: Path, place: Path) -> None:
    """REF."""
    subprocess.run(["sh", "-c", REF, "ref", source, new_name(place), sys.executable, DROP], check=True)


def by_rclone(source: Path, place: Path) -> None:
    """Copy with rclone, which compares checksums but syncs nothing and reads nothing back."""
    rclone = Path(sys.executable).with_name("rclone")
    command = [rclone, "copy", "--checksum", "--config", "/dev/null", source, new_name(place)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def drop(folder: Path) -> None:
    """Put a folder's content out of the page cache."""
    os.sync()
    subprocess.run([sys.executable, "-c", DROP, folder], check=True)


def warm(folder: Path) -> None:
    """Put a folder's content into the page cache; let the last run's writes end."""
    os.sync()
    for path in folder.rglob("*.tif"):
        path.read_bytes()


def rounds(*functions: Callable[[], object], prepare: Callable[[], object], warm_up: int = 1) -> list[Timing]:
    """As `interleaved`, with an untimed preparation before each."""
    seconds: list[list[float]] = [[] for _ in functions]
    for turn in range(-warm_up, REPETITIONS):
        for place, function in enumerate(functions):
            prepare()
            begin = time.perf_counter()
            function()
            if turn >= 0:
                seconds[place].append(time.perf_counter() - begin)
    return [Timing(each, None) for each in seconds]


def figure(name: str, ours: Timing, peer: Timing, amount: float, unit: str, goal: str, note: str) -> Figure:
    """Return a rate against a peer's."""
    return Figure(
        name, amount / ours.median, amount / peer.median, goal, REPETITIONS, 2, unit, is_rate=True, note=note
    )
