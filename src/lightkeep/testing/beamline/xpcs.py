"""An XPCS beamline that does not exist: a colloid, photon by photon, in the files that its detector writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis import simulate, xpcs
from lightkeep.analysis.xpcs.schemes import Scheme
from lightkeep.formats import eiger_writer, events, imm, metadata_8id, qmap, rigaku
from lightkeep.model.clock import Clock, SystemClock
from lightkeep.model.datasets import Metadata
from lightkeep.model.quantity import Quantity
from lightkeep.model.techniques import Report
from lightkeep.testing.beamline.pace import ahead

Float64 = NDArray[np.float64]
Writer = Callable[[Path, "_Run"], Path]

_ENERGY_KEV, _PIXEL_M, _DISTANCE_M = 10.9, 76e-6, 4.0
"""8-ID; the distance is for a detector of 1024 columns, and shrinks with it: every detector sees the same q."""
_Q_LOWEST, _Q_HIGHEST = 0.008, 0.08
"""Range of the bins, 1/angstrom."""
_FASTEST = 0.2
"""Gamma per frame at the highest q, unless a diffusion coefficient is given."""
_RADIUS_A, _POLYDISPERSITY, _BACKGROUND = 70.0, 0.12, 0.05
"""The colloid: spheres of this radius in angstrom, its relative spread, and what scatters besides."""
_BLOCKS_PER_S = 25.0
"""Of a run that is written at the detector's rate."""
_AHEAD_FRAMES = 500
"""Frames of events that are made at once: few frames at a time take longer."""
_LIVE_TIME = 0.95
"""Share of a frame's time that photons are counted."""


@dataclass(frozen=True)
class XpcsTruth:
    """What a simulated run measured."""

    path: Path
    """The run's main file; its metadata file is beside it."""
    qmap_path: Path
    """The bins, as pySimpleMask saves them."""
    qmap: xpcs.QMap
    """The same bins; bad pixels are masked."""
    speckle: simulate.Speckle
    """The run itself: its frames and its expected correlations, in frames."""
    frame_time_s: float
    """Seconds from one frame to the next."""
    diffusion: float
    """D in angstrom^2 / s: Gamma = D q^2."""

    @property
    def gamma(self) -> Float64:
        """(bins,) decay rate of the field in 1/s: g2 = 1 + contrast * exp(-2 gamma tau), without static light."""
        return self.speckle.rates / self.frame_time_s

    def expected_g2(self, tau: Sequence[float] | Float64, *, dpl: int = 4, scheme: Scheme = "aps") -> Float64:
        """(tau, bin) g2 that a multi-tau correlation with these delays in seconds should find.

        Raises
        ------
        ValueError: a delay that the scheme does not have.
        """
        delays = {
            lag << level: (level, lag) for level, lag in xpcs.levels(self.speckle.n_frames, dpl=dpl, scheme=scheme)
        }
        frames = [round(each / self.frame_time_s) for each in tau]
        missing = [each for each in frames if each not in delays]
        if missing:
            raise ValueError(f"multi-tau has no delay of {missing[0]} frames")
        return self.speckle.expected_g2([delays[each] for each in frames], static=self.qmap.static)


@dataclass(frozen=True)
class _Run:
    """What a writer needs to know."""

    blocks: Iterator[xpcs.Block]
    shape: tuple[int, int]
    frames: int
    frame_time_s: float


@dataclass(frozen=True)
class _Detector:
    """A detector by the format of its files."""

    suffix: str
    write: Writer
    shape: tuple[int, int] = (256, 512)
    """Rows and columns, unless others are asked for."""
    is_fixed: bool = False
    """True when there are no others."""
    has_events: bool = False
    photons: float = 0.1
    """Mean photons per pixel and frame, unless another is asked for."""
    most: int = 65535
    """Greatest count; what a saturated pixel shows."""


def _eiger(path: Path, run: _Run) -> Path:
    return eiger_writer.write_master(path, run.blocks, shape=run.shape, frames=run.frames, header=_header(run))


def _hdf5(path: Path, run: _Run) -> Path:
    return eiger_writer.write_run(path, run.blocks, shape=run.shape, header=_header(run))


def _header(run: _Run) -> dict[str, tuple[float | str, str]]:
    return {
        "entry/instrument/detector/frame_time": (run.frame_time_s, "s"),
        "entry/instrument/detector/count_time": (_LIVE_TIME * run.frame_time_s, "s"),
    }


def _imm(path: Path, run: _Run, *, is_sparse: bool) -> Path:
    times = {"frame_time_s": run.frame_time_s, "exposure_time_s": _LIVE_TIME * run.frame_time_s}
    return imm.write_run(path, run.blocks, shape=run.shape, is_sparse=is_sparse, **times)


def _events(path: Path, run: _Run) -> Path:
    return events.write_run(path, run.blocks, shape=run.shape, frame_time_s=run.frame_time_s)


XPCS_FORMATS = {
    "rigaku": _Detector(
        ".bin", lambda path, run: rigaku.write_run(path, run.blocks), rigaku.MODULE, True, True, 0.01, 4095
    ),
    "rigaku-3m": _Detector(
        ".bin.000",
        lambda path, run: rigaku.write_run_3m(path, run.blocks),
        rigaku.SHAPE_3M,
        True,
        True,
        0.005,
        4095,
    ),
    "imm": _Detector(".imm", lambda path, run: _imm(path, run, is_sparse=False)),
    "imm-sparse": _Detector(
        ".imm", lambda path, run: _imm(path, run, is_sparse=True), has_events=True, photons=0.02, most=4095
    ),
    "hdf5": _Detector(".h5", _hdf5),
    "eiger": _Detector("_master.h5", _eiger, most=2**32 - 1),
    "events": _Detector(".h5", _events, has_events=True, photons=0.02),
}
"""What the simulated beamline can write, by name."""


@dataclass(frozen=True)
class Colloid:
    """What is in the beam, and how well everything works."""

    photons: float | None = None
    """Mean per pixel and frame over the bins; None: as usual with the detector."""
    modes: int = 2
    """Speckle patterns that add up; the contrast is 1 / modes."""
    static: float = 0.0
    """Share of the intensity that never moves."""
    diffusion: float | None = None
    """D in angstrom^2 / s; None: what makes Gamma 0.2 per frame at the highest q."""
    ageing: float = 1.0
    """How much faster (above 1) or slower (below 1) the sample is at the end than at the beginning."""
    drift: float = 0.0
    """Share of the beam's intensity that is lost until the end."""
    lost: Sequence[int] = ()
    """Frames that the detector loses."""
    bad_pixels: int = 12
    """Dead, hot and saturated pixels, a third each; the qmap masks them."""
    name: str = "Silica spheres, 7 nm, in glycerol"


def simulate_xpcs(
    folder: Path,
    *,
    format: str = "rigaku",  # noqa: A002 -- the word of the command line
    shape: tuple[int, int] | None = None,
    frames: int = 2000,
    rate_hz: float = 1000.0,
    is_live: bool = False,
    colloid: Colloid | None = None,
    rings: tuple[int, int] = (9, 90),
    seed: int = 0,
    clock: Clock | None = None,
    report: Report | None = None,
) -> XpcsTruth:
    """Measure a colloid on a simulated beamline; return the truth.

    Writes `<folder>/<name>` with the suffix of the format and `<folder>/<name>_metadata.hdf`, named as the folder,
    and `<folder>_qmap.hdf` beside the folder. The metadata and the qmap are there before the first frame, and the
    run grows block by block, so that a live reader can follow it.

    Parameters
    ----------
    folder: made where it is not there.
    format: one of `XPCS_FORMATS`. shape: rows and columns; Rigaku detectors have their own.
    rate_hz: frames per second that the detector takes. is_live: write them at this rate, otherwise at once.
    rings: dynamic and static rings of the qmap; the second is a multiple of the first.
    seed: decides speckle and noise.
    report: told after each block.

    Raises
    ------
    ValueError: a format, a shape or a number that cannot be. FileExistsError: there is such a run already.
    """
    detector = _detector(format, shape)
    truth = _planned(folder, detector, frames, rate_hz, colloid or Colloid(), rings, seed)
    metadata_path = folder / f"{folder.name}{metadata_8id.SUFFIX}"
    for each in (truth.path, truth.qmap_path, metadata_path):
        if each.exists():
            raise FileExistsError(f"{each} exists already")
    folder.mkdir(parents=True, exist_ok=True)
    qmap.write_qmap(truth.qmap_path, truth.qmap)
    started = (clock or SystemClock()).now().isoformat(timespec="seconds")
    metadata_8id.write_metadata(metadata_path, _metadata(truth, (colloid or Colloid()).name, started))
    blocks = _measured(truth.speckle, rate_hz if is_live else None, report)
    detector.write(truth.path, _Run(blocks, detector.shape, frames, truth.frame_time_s))
    return truth


def _detector(name: str, shape: tuple[int, int] | None) -> _Detector:
    if name not in XPCS_FORMATS:
        raise ValueError(f"{name!r} is none of {', '.join(XPCS_FORMATS)}")
    detector = XPCS_FORMATS[name]
    if shape is None or shape == detector.shape:
        return detector
    if detector.is_fixed:
        raise ValueError(f"a {name} detector has {detector.shape[0]} x {detector.shape[1]} pixels")
    if min(shape) < 32:
        raise ValueError(f"{shape[0]} x {shape[1]} pixels are too few for rings: 32 each way at least")
    return replace(detector, shape=shape)


def _planned(
    folder: Path,
    detector: _Detector,
    frames: int,
    rate_hz: float,
    colloid: Colloid,
    rings: tuple[int, int],
    seed: int,
) -> XpcsTruth:
    """Return the run before it is measured."""
    if rate_hz <= 0 or colloid.ageing <= 0 or not 0 <= colloid.drift < 1:
        raise ValueError("rate and ageing must be above 0, drift at least 0 and below 1")
    geometry = _geometry(detector.shape)
    q, _ = xpcs.coordinates(detector.shape, geometry)
    seen = _is_open(detector) & (q > 0.6 * _Q_LOWEST)  # the beam stop is a disc
    rng = np.random.default_rng(detector.shape)  # bad pixels are the detector's, in every run the same
    bad = rng.choice(np.flatnonzero(seen & (q > _Q_LOWEST)), colloid.bad_pixels, replace=False)
    works = seen.copy()
    works.flat[bad] = False
    bins = xpcs.QMap.from_geometry(
        detector.shape,
        geometry,
        dynamic=(rings[0], 1),
        static=(rings[1], 1),
        mask=works,
        first_range=(_Q_LOWEST, _Q_HIGHEST),
    )
    diffusion = _FASTEST * rate_hz / _Q_HIGHEST**2 if colloid.diffusion is None else colloid.diffusion
    light = np.where(seen, spheres(q), 0.0)
    light *= (detector.photons if colloid.photons is None else colloid.photons) / light[bins.dynamic > 0].mean()
    part = np.linspace(0, 1, frames)
    speckle = simulate.Speckle(
        bins.dynamic,
        diffusion * bins.dynamic_q**2 / rate_hz,
        light,
        frames,
        modes=colloid.modes,
        static=colloid.static,
        ageing=None if colloid.ageing == 1 else colloid.ageing**part,
        beam=None if colloid.drift == 0 else 1 - colloid.drift * part,
        dropped=tuple(colloid.lost),
        dead=tuple(bad[0::3].tolist()),
        hot=tuple(bad[1::3].tolist()),
        saturated=tuple(bad[2::3].tolist()),
        most=detector.most,
        events=detector.has_events,
        seed=seed,
    )
    path, qmap_path = folder / f"{folder.name}{detector.suffix}", folder.with_name(f"{folder.name}_qmap.hdf")
    return XpcsTruth(path, qmap_path, bins, speckle, 1 / rate_hz, diffusion)


def _geometry(shape: tuple[int, int]) -> xpcs.Geometry:
    """Return the detector's place: the beam passes near its left edge, so that the rings are arcs."""
    return xpcs.Geometry(
        beam_center_x=round(0.06 * shape[1], 1),
        beam_center_y=round(0.52 * shape[0], 1),
        pixel_size_m=_PIXEL_M,
        detector_distance_m=_DISTANCE_M * shape[1] / 1024,
        energy_keV=_ENERGY_KEV,
    )


def _is_open(detector: _Detector) -> NDArray[np.bool_]:
    """(H, W) True where there is a sensor: everywhere but in the gaps between modules."""
    rows, columns = (np.ones(size, bool) for size in detector.shape)
    if detector.shape == rigaku.SHAPE_3M:
        for axis, is_sensor in enumerate((rows, columns)):
            pitch = rigaku.MODULE[axis] + rigaku.GAPS[axis]
            is_sensor[:] = np.arange(is_sensor.size) % pitch < rigaku.MODULE[axis]
    return rows[:, None] & columns[None, :]


def spheres(q: Float64) -> Float64:
    """Intensity of a dilute suspension of polydisperse spheres, relative to q = 0, with a background.

    Mean over 21 radii, two standard deviations to both sides, of r^6 (3 (sin x - x cos x) / x^3)^2 with x = q r
    (Rayleigh, 1911). q in 1/angstrom, any shape.
    """
    radii = _RADIUS_A * (1 + _POLYDISPERSITY * np.linspace(-2, 2, 21))
    weights = np.exp(-0.5 * np.linspace(-2, 2, 21) ** 2) * radii**6
    grid = np.linspace(0, float(q.max()), 4096)  # a detector has many pixels of one q
    x = np.maximum(grid * radii[:, None], 1e-2)
    form = weights / weights.sum() @ (3 * (np.sin(x) - x * np.cos(x)) / x**3) ** 2
    return np.asarray(np.interp(q, grid, form * (1 - _BACKGROUND) + _BACKGROUND))


def _metadata(truth: XpcsTruth, sample: str, started: str) -> Metadata:
    place = truth.qmap.geometry or _geometry(truth.qmap.shape)
    quantities = {
        "frame_time": Quantity.of(truth.frame_time_s, "s"),
        "exposure_time": Quantity.of(_LIVE_TIME * truth.frame_time_s, "s"),
        "energy": Quantity.of(place.energy_keV, "keV"),
        "distance": Quantity.of(place.detector_distance_m, "m"),
        "pixel_size": Quantity.of(place.pixel_size_m, "m"),
        "beam_center_x": Quantity.of(place.beam_center_x, "pixel"),
        "beam_center_y": Quantity.of(place.beam_center_y, "pixel"),
        "frames": Quantity.of(truth.speckle.n_frames),
        "temperature": Quantity.of(295.0, "K"),
    }
    texts = {
        "title": truth.path.parent.name,
        "sample": sample,
        "user": "Ada Lee",
        "proposal": "81234",
        "qmap_file": truth.qmap_path.name,
        "start_time": started,
    }
    return Metadata(quantities, texts)


def _measured(speckle: simulate.Speckle, rate_hz: float | None, report: Report | None) -> Iterator[xpcs.Block]:
    """Yield blocks, at a rate when their last frame would have been taken."""
    blocks: Iterator[xpcs.Block] = speckle.blocks()
    if rate_hz is not None:
        size = max(1, round(rate_hz / _BLOCKS_PER_S))
        ready = speckle.blocks(size=max(size, _AHEAD_FRAMES) if speckle.has_events else size)
        blocks = (part for block in ahead(ready) for part in _parts(block, size))
    started = time.monotonic()
    for block in blocks:
        done = block.begin + block.count
        if rate_hz is not None:
            time.sleep(max(0.0, started + done / rate_hz - time.monotonic()))
        yield block
        if report is not None:
            report(done / speckle.n_frames, f"frame {done} of {speckle.n_frames}")


def _parts(block: xpcs.Block, size: int) -> Iterator[xpcs.Block]:
    """Cut a block of events into blocks of `size` frames; frames stay together."""
    if isinstance(block, xpcs.FrameBlock):
        yield block
        return
    for begin in range(block.begin, block.begin + block.count, size):
        count = min(size, block.begin + block.count - begin)
        part = slice(*np.searchsorted(block.frame, (begin, begin + count)))
        yield xpcs.EventBlock(begin, count, block.shape, block.frame[part], block.pixel[part], block.value[part])
