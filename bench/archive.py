"""Archive units against files: packing 10,000 small files, reading them back, and taking one out again.

REF is that of `bench.ingest`: `cp -a`, `sha256sum` of the source, `sync -f`, drop the copy, `sha256sum -c`.
Ours reads the replicas on the first store, hashes them against the catalogue, writes one tar, reads it back and
registers every member. Nothing is deleted between runs; each run packs another dataset onto a store of its own.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench._harness import Figure, Timing, interleaved
from bench.ingest import by_hand, drop, new_name, rounds, warm
from lightkeep.config import Config, ScrubConfig
from lightkeep.facility import Facility, create_facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people.set_up import add_store
from lightkeep.lifecycle.replicas import restore
from lightkeep.lifecycle.replicas.archive import archive
from lightkeep.lifecycle.replicas.scrub import scrub
from lightkeep.model.datasets import Dataset
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Person, Principal

FILES = 10_000
REPETITIONS = 5
ADA = Principal("ada")


def run() -> list[Figure]:
    """Measure packing, scrub, one member, and what compression saves."""
    with tempfile.TemporaryDirectory(prefix="archive-") as folder:
        place = Path(folder)
        source = small_files(place)
        with house(place / "packing") as facility:
            figures = packing(facility, source, place)
        with house(place / "reading") as facility:
            dataset = keep(facility, source)
            store_id = pack(facility, dataset, place)
            figures += [reading_back(facility, store_id), one_member(facility, dataset, place)]
        with house(place / "compressing") as facility:
            return [*figures, *compression(facility, place)]


@contextmanager
def house(root: Path) -> Iterator[Facility]:
    """A facility in which every replica is always due, and read back as fast as it goes."""
    config = Config(root, scrub=ScrubConfig(days=0, rate=0))
    with create_facility(config, admin=Person("ada", "Ada")) as facility:
        with facility.catalog.change(SERVICE) as tx:
            tx.add_station(Station("2-BM"))
            tx.add_experiment(Experiment("bench", "2-BM"))
        yield facility


def small_files(place: Path) -> Path:
    """Files of 1 to 64 KiB that do not compress, in folders of 500."""
    source = place / "small"
    rng = random.Random(1)
    for number in range(FILES):
        path = source / f"scan{number // 500}" / f"frame{number:05}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.randrange(1 << 10, 1 << 16)))
    return source


def keep(facility: Facility, source: Path, name: str = "") -> Dataset:
    """Ingest a folder."""
    return ingest(facility, source, experiment_id="bench", principal=ADA, name=name, quiet_s=0.0).dataset


def pack(facility: Facility, dataset: Dataset, place: Path) -> str:
    """Archive onto a store that is made for it; return the store's id."""
    folder = new_name(place)
    add_store(facility, folder.name, folder, principal=ADA)
    done = archive(facility, principal=ADA, store_id=folder.name, dataset_id=dataset.id)
    assert done.files == dataset.files
    assert not done.failed
    return folder.name


def packing(facility: Facility, source: Path, place: Path) -> list[Figure]:
    """Small files into one unit, against the script that copies and checks them; each time another dataset."""
    ready: list[Dataset] = []
    figures = []

    def prepare(state: Callable[[Path], None]) -> None:
        if not ready:
            ready.append(keep(facility, source, name=new_name(place).name))
        state(source)
        state(Path(facility.stores["central"].record.location, "2-BM", "bench", ready[0].name))

    for name, state in (("cold", drop), ("warm", warm)):
        ours, ref = rounds(
            lambda: pack(facility, ready.pop(), place),
            lambda: by_hand(source, place),
            prepare=lambda state=state: prepare(state),
        )
        note = "cp -a, sha256sum, sync, drop, check"
        figures.append(rate(f"packing {FILES:,} files, {name}", ours, ref, FILES, "ratio >= 2", note))
    return figures


def reading_back(facility: Facility, units: str) -> Figure:
    """Every member of a unit proved, against every file proved."""

    def read(store_id: str) -> None:
        assert scrub(facility, store_ids=[store_id], principal=ADA).checked == FILES

    ours, files = interleaved(lambda: read(units), lambda: read("central"), repetitions=REPETITIONS)
    return rate("scrub of a unit", ours, files, FILES, "ratio >= 3", "scrub of the same files, one by one")


def one_member(facility: Facility, dataset: Dataset, place: Path) -> Figure:
    """One small file back near from a unit, request, catalogue and read-back included; tar has to find it."""
    view = facility.catalog.view(SERVICE)
    unit = view.units().items[0]
    tar = Path(facility.stores[unit.store_id].record.location, unit.key)
    rng = random.Random(3)

    targets = []
    for _ in range(REPETITIONS + 1):
        targets.append(new_name(place))
        add_store(facility, targets[-1].name, targets[-1], principal=ADA)

    def ours() -> None:
        folder = targets.pop()
        path = f"scan{(number := rng.randrange(FILES)) // 500}/frame{number:05}.tif"
        (asked,) = restore.request(
            facility, principal=ADA, dataset_id=dataset.id, paths=(path,), store_id=folder.name
        )
        (done,) = restore.run_queue(facility, restore_ids=[asked.id])
        assert done.files_done == 1

    def by_tar() -> None:
        folder = new_name(place)
        folder.mkdir()
        name = f"{unit.id}/data/{dataset.id}/scan{(number := rng.randrange(FILES)) // 500}/frame{number:05}.tif"
        subprocess.run(["tar", "-xf", tar, "-C", folder, name], check=True)

    mine, theirs = interleaved(ours, by_tar, repetitions=REPETITIONS)
    return Figure(
        "one member back",
        mine.median,
        theirs.median,
        "",
        REPETITIONS,
        note="tar -x of one name: no check, no sync",
    )


def compression(facility: Facility, place: Path) -> list[Figure]:
    """What a unit of detector counts weighs less than its members: sparse photons, as integers of 16 bits."""
    source = place / "counts"
    source.mkdir()
    rng = np.random.default_rng(4)
    for number in range(100):
        rng.poisson(0.1, (1024, 1024)).astype(np.uint16).tofile(source / f"frame{number:03}.raw")
    dataset = keep(facility, source)
    (timing,) = interleaved(lambda: pack(facility, dataset, place), repetitions=REPETITIONS)
    view = facility.catalog.view(SERVICE)
    (unit,) = view.units(store_id=timing.result).items
    saved = 1.0 - unit.size / unit.content_size
    note = f"{unit.content_size / 1e6:.0f} MB of photon counts as {unit.size / 1e6:.0f} MB, seekable zstd"
    return [
        Figure("part of the bytes saved", saved, None, "ours >= 0.5", 1, unit="", is_rate=True, note=note),
        Figure(
            "packing with compression",
            unit.content_size / 1e6 / timing.median,
            None,
            "",
            REPETITIONS,
            unit="MB/s",
            is_rate=True,
            note="read, hashed, compressed, synced, read back, registered",
        ),
    ]


def rate(name: str, ours: Timing, peer: Timing, files: int, goal: str, note: str) -> Figure:
    """Return files per second against a peer's."""
    return Figure(
        name, files / ours.median, files / peer.median, goal, REPETITIONS, 2, "files/s", is_rate=True, note=note
    )
