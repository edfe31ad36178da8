"""How long after its last frame a followed run has its result: a 512 x 1024 detector that writes at its rate.

The detector is another process. It writes what was simulated before, block by block: Rigaku events as bytes, dense
frames as bitshuffle/LZ4 chunks of an HDF5 file. The clock runs from the return of its last write (for HDF5, of its
closing the file) until the derived dataset is complete in the catalogue, readable by everybody.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench._harness import Figure
from lightkeep.config import Config
from lightkeep.facility import Facility, create_facility
from lightkeep.lifecycle.acquisitions import live
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import process
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Person, Principal
from lightkeep.testing.beamline import Colloid, simulate_xpcs

PART = "xpcs"
REPETITIONS = 5
ADA = Principal("ada")
RIGAKU_FRAMES, RIGAKU_HZ = 5_000, 1_000.0
DENSE_FRAMES, DENSE_HZ = 400, 80.0

EVENTS = """
import sys, time
source, target, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
data = memoryview(open(source, "rb").read())
parts = max(1, int(seconds / 0.02))
step = -(-len(data) // parts // 8) * 8
began = time.monotonic()
with open(target, "wb", buffering=0) as file:
    for part in range(parts):
        time.sleep(max(0.0, began + part * 0.02 - time.monotonic()))
        file.write(data[part * step : (part + 1) * step])
print(time.time())
"""
DENSE = """
import sys, time
from pathlib import Path
from lightkeep.analysis.xpcs import FrameBlock
from lightkeep.formats import eiger, eiger_writer
source, target, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
with eiger.FORMAT.open(source) as opened:
    frames = opened.arrays["frames"][:]
def blocks():
    began = time.monotonic()
    for at in range(0, len(frames), 4):
        time.sleep(max(0.0, began + at / len(frames) * seconds - time.monotonic()))
        yield FrameBlock(at, frames[at : at + 4])
eiger_writer.write_run(target, blocks(), shape=frames.shape[1:], dtype=frames.dtype)
print(time.time())
"""


def run() -> list[Figure]:
    """Measure both kinds of detector."""
    with tempfile.TemporaryDirectory(prefix="live-") as folder:
        place = Path(folder)
        with create_facility(Config(place / "facility"), admin=Person("ada", "Ada")) as facility:
            with facility.catalog.change(SERVICE) as tx:
                tx.add_station(Station("8-ID"))
                tx.add_experiment(Experiment("bench", "8-ID"))
            return [
                _figure("Rigaku 500k, 1 kHz, 0.2 % occupied", facility, place / "sparse", _sparse),
                _figure("HDF5 512 x 1024, 80 Hz, dense", facility, place / "dense", _dense),
            ]


def _sparse(folder: Path) -> tuple[Path, str, int, float]:
    truth = simulate_xpcs(
        folder, format="rigaku", frames=RIGAKU_FRAMES, rate_hz=RIGAKU_HZ, colloid=Colloid(photons=0.002)
    )
    return truth.path, EVENTS, RIGAKU_FRAMES, RIGAKU_FRAMES / RIGAKU_HZ


def _dense(folder: Path) -> tuple[Path, str, int, float]:
    truth = simulate_xpcs(folder, format="hdf5", shape=(512, 1024), frames=DENSE_FRAMES, rate_hz=DENSE_HZ)
    return truth.path, DENSE, DENSE_FRAMES, DENSE_FRAMES / DENSE_HZ


def _figure(
    name: str, facility: Facility, folder: Path, simulate: Callable[[Path], tuple[Path, str, int, float]]
) -> Figure:
    """Follow the same run several times; the first time, which compiles, does not count."""
    measured, program, frames, seconds = simulate(folder)
    qmap = folder.with_name(f"{folder.name}_qmap.hdf")
    ingest(facility, qmap, experiment_id="bench", principal=ADA, quiet_s=0)
    times = []
    for number in range(REPETITIONS + 1):
        target = folder.with_name(f"{folder.name}-{number}") / measured.name
        target.parent.mkdir()
        times.append(_latency(facility, measured, target, program, frames, seconds, qmap.stem))
    return Figure(
        f"XPCS live, last frame to result: {name}",
        ours=statistics.median(times[1:]),
        peer=None,
        goal="ours <= 1",
        repetitions=REPETITIONS,
        note=f"worst {max(times[1:]):.2f} s; first, with compiling, {times[0]:.2f} s; the writer's load included",
    )


def _latency(
    facility: Facility, measured: Path, target: Path, program: str, frames: int, seconds: float, qmap: str
) -> float:
    """Return the seconds from the writer's last write to the complete result."""
    command = [sys.executable, "-c", program, str(measured), str(target), str(seconds)]
    asked = live.request(
        facility, target, "xpcs", {"qmap": qmap}, experiment_id="bench", principal=ADA, frames=frames
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        result = process(facility, asked.id)
        written = float(writer.communicate()[0])
    if result.completed_at is None:
        raise AssertionError("a complete dataset has a time of completion")
    return result.completed_at.timestamp() - written
