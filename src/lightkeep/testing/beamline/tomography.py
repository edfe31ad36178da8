"""A micro-tomography beamline that does not exist: a scan of concrete, written as Data Exchange."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis import simulate
from lightkeep.formats.data_exchange import ScanHeader, write_scan
from lightkeep.model.clock import Clock, SystemClock
from lightkeep.model.techniques import Report
from lightkeep.testing.beamline.pace import paced
from lightkeep.testing.samples import concrete

Order = Literal["sequential", "interlaced", "golden"]


@dataclass(frozen=True)
class Truth:
    """What a simulated scan measured."""

    path: Path
    """The Data Exchange file."""
    center: float
    """Column (0-based pixel index) where the rotation axis is seen."""
    theta_deg: NDArray[np.float64]
    """(angles,) degrees."""
    phantom: simulate.Phantom
    """The sample; its densities are attenuation per pixel."""
    rows: int
    columns: int
    width: int
    """Of the slices: wider than the detector where opposite projections are to be stitched."""

    def slices(self) -> NDArray[np.float32]:
        """Return the true attenuation per pixel, (row, y, x)."""
        return self.phantom.slices(self.width, rows=self.rows, columns=self.columns)


def simulate_tomography(
    path: Path,
    *,
    size: int = 256,
    rows: int = 64,
    angles: int = 360,
    turn_deg: float = 180.0,
    order: Order = "sequential",
    flats: int = 20,
    flats_after: int = 0,
    darks: int = 10,
    i0: float = 1e4,
    center_offset: float = 7.3,
    flaws: simulate.Flaws | None = None,
    rate_hz: float | None = None,
    seed: int = 0,
    title: str = "Concrete core",
    sample: str = "Concrete, drilled core 7",
    clock: Clock | None = None,
    report: Report | None = None,
) -> Truth:
    """Measure a core of concrete on a simulated beamline and write it as Data Exchange; return the truth.

    Parameters
    ----------
    path: gets its name when the last frame is in; until then the file is called `<name>.part`.
    size, rows: width and height of the detector in pixels.
    angles: projections over turn_deg, 180 or 360. flats, darks: frames of each, taken before.
    order: of the angles; interlaced in 8 passes.
    flats_after: more flats, taken after.
    i0: photons per pixel and frame where the beam is brightest; at most 60,000.
    center_offset: how far the rotation axis is seen from the middle of the detector, in pixels. More than a
      quarter of the detector with turn_deg 360: half acquisition of a sample wider than the detector.
    flaws: what goes wrong; None: nothing.
    rate_hz: frames per second, as a detector would write them; None: at once.
    seed: decides the sample and the noise.
    report: told after each projection.

    Raises
    ------
    ValueError: i0 is out of range, or the axis is outside the field of view.
    """
    is_half = turn_deg == 360 and abs(center_offset) > size / 4
    if abs(center_offset) > (size / 2 - 8 if is_half else size / 4):
        raise ValueError(f"an axis {center_offset:g} pixels off the middle leaves no room on {size} columns")
    rng = np.random.default_rng(seed)
    # Seen whole from all sides, or by one half of the turn and the other together.
    reach = abs(center_offset) - 2 if is_half else -abs(center_offset) - 2
    theta = _angles(angles, turn_deg, order)
    scan = simulate.tomography_scan(
        concrete(rng, height=max(0.1, 1.1 * rows / size), radius=1 + reach / (size / 2)),
        theta,
        rows=rows,
        columns=size,
        rng=rng,
        center=(size - 1) / 2 + center_offset,
        flats=flats,
        flats_after=flats_after,
        darks=darks,
        i0=i0,
        flaws=flaws,
    )
    header = ScanHeader(
        theta_deg=scan.theta_deg,
        rows=rows,
        columns=size,
        title=title,
        numbers=_NUMBERS,
        texts=_TEXTS
        | {
            "measurement/sample/name": sample,
            "process/acquisition/start_date": (clock or SystemClock()).now().isoformat(timespec="seconds"),
        },
    )
    part = path.with_name(f"{path.name}.part")
    write_scan(
        part,
        header,
        darks=scan.darks,
        flats=scan.flats,
        projections=_told(paced(scan.projections, rate_hz), angles, report),
    )
    os.replace(part, path)
    width = int(size + 2 * abs(center_offset)) if is_half else size
    return Truth(path, scan.center, scan.theta_deg, scan.phantom, rows, size, width)


def _angles(count: int, turn_deg: float, order: Order) -> NDArray[np.float64]:
    if turn_deg not in (180, 360):
        raise ValueError(f"a turn of {turn_deg:g} degrees is neither 180 nor 360")
    if order == "golden":
        return simulate.golden_angles(count, span_deg=turn_deg)
    if order == "interlaced":
        return simulate.interlaced_angles(count, min(8, count), span_deg=turn_deg)
    return np.arange(count, dtype=np.float64) * (turn_deg / count)


_NUMBERS = {
    "measurement/instrument/monochromator/energy": (27.4, "keV"),
    "measurement/instrument/source/current": (130.2, "mA"),
    "measurement/instrument/detector/exposure_time": (0.1, "s"),
    "measurement/instrument/detection_system/objective/resolution": (1.17, "um"),
    "measurement/instrument/detection_system/objective/magnification": (5.0, ""),
    "measurement/instrument/camera_motor_stack/setup/camera_distance": (40.0, "mm"),
    "measurement/sample/temperature": (295.0, "K"),
}
_TEXTS = {
    "measurement/instrument/name": "Simulated micro-tomography",
    "measurement/instrument/source/name": "Simulated light source",
    "measurement/instrument/source/beamline": "2-BM",
    "measurement/instrument/detector/model": "Simulated 16-bit camera",
    "measurement/sample/description": "Aggregate, iron ore, voids and a crack, in a glass tube",
    "measurement/sample/experimenter/name": "Ada Lee",
    "measurement/sample/experiment/proposal": "81234",
}


def _told(frames: Iterator[NDArray[Any]], count: int, report: Report | None) -> Iterator[NDArray[Any]]:
    for number, frame in enumerate(frames, 1):
        yield frame
        if report is not None:
            report(number / count, f"projection {number} of {count}")
