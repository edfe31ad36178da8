"""A tomography beamline that does not exist, on the network: PVAccess frames with angles, and an Acquire channel.

Acquire = 1 ──> darks, flats, projections at the detector's rate, each an NTNDArray on <prefix>Image with the
                attributes rotation_angle and image_key ──> Acquire = 0
Acquire = 0 ──> the scan ends with the frame that is on its way
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis import simulate
from lightkeep.model.errors import ConfigError
from lightkeep.testing.samples import concrete

Order = Literal["golden", "interlaced", "sequential"]
_PROJECTION, _FLAT, _DARK = 0, 1, 2
_LINGER_S: Final = 0.5


@dataclass(frozen=True)
class Shot:
    """One frame and what it is."""

    data: NDArray[np.uint16]
    image_key: int
    rotation_angle: float


def angles_of(order: Order, count: int, *, passes: int = 8) -> NDArray[np.float64]:
    """(count,) degrees over half a turn: at golden angles, in interlaced passes, or one after the other."""
    if order == "golden":
        return simulate.golden_angles(count)
    if order == "sequential":
        return np.asarray(np.arange(count) * 180 / count)
    per_pass = -(-count // passes)
    turn, place = np.divmod(np.arange(count), per_pass)
    starts = np.array([int(f"{number:016b}"[::-1], 2) / 65536 for number in range(passes)])
    return np.asarray((place + starts[turn]) * 180 / per_pass)


def shots(
    *,
    size: int = 128,
    rows: int = 16,
    angles: int = 300,
    order: Order = "golden",
    flats: int = 10,
    darks: int = 5,
    i0: float = 1e4,
    center_offset: float = 3.3,
    seed: int = 0,
) -> list[Shot]:
    """Measure a core of concrete; return its frames in the order in which a detector takes them.

    Parameters
    ----------
    size, rows: width and height of the detector in pixels. angles: projections.
    i0: photons per pixel and frame where the beam is brightest.
    center_offset: how far the rotation axis is seen from the middle of the detector, in pixels.
    """
    rng = np.random.default_rng(seed)
    radius = 1 - (abs(center_offset) + 2) / (size / 2)
    scan = simulate.tomography_scan(
        concrete(rng, height=max(0.1, 1.1 * rows / size), radius=radius),
        angles_of(order, angles),
        rows=rows,
        columns=size,
        rng=rng,
        center=(size - 1) / 2 + center_offset,
        flats=flats,
        darks=darks,
        i0=i0,
    )
    return [
        *(Shot(each, _DARK, 0.0) for each in scan.darks),
        *(Shot(each, _FLAT, 0.0) for each in scan.flats),
        *(Shot(each, _PROJECTION, float(at)) for each, at in zip(scan.projections, scan.theta_deg, strict=True)),
    ]


class VirtualBeamline:
    """Serves a scan by PVAccess while it is entered; each Acquire = 1 measures it anew.

    Parameters
    ----------
    frames: of a scan, see `shots`.
    prefix: of the channels `<prefix>Image` and `<prefix>Acquire`.
    rate_hz: frames per second; None: as fast as they can be sent.
    is_isolated: on ports of its own, loopback only; `epics` says how to get there.
    lose: numbers of frames that the detector counts and never sends.
    told: called with the number of frames that were sent.

    Raises
    ------
    ConfigError: p4p is not installed.
    """

    def __init__(
        self,
        frames: list[Shot],
        *,
        prefix: str = "SIM:",
        rate_hz: float | None = 20.0,
        is_isolated: bool = True,
        lose: tuple[int, ...] = (),
        told: Callable[[int], None] = lambda _: None,
    ) -> None:
        try:
            from p4p.nt import NTNDArray, NTScalar
            from p4p.server import Server
            from p4p.server.thread import SharedPV
        except ModuleNotFoundError as error:
            raise ConfigError(
                "a virtual beamline needs p4p, which is not installed", remedy="pip install 'lightkeep[epics]'"
            ) from error
        self.frames = frames
        self.image, self.acquire = f"{prefix}Image", f"{prefix}Acquire"
        self.sent = 0
        """Frames of the newest scan that were sent."""
        self.scans = 0
        """Scans that ended, or were stopped."""
        self._ended = threading.Condition()
        self._rate_hz = rate_hz
        self._lose = frozenset(lose)
        self._told = told
        self._type = NTNDArray()
        self._wanted, self._closing = threading.Event(), threading.Event()
        first = self._type.wrap(np.zeros_like(frames[0].data), timestamp=1.0)
        self._image = SharedPV(initial=first)
        self._acquire: Any = SharedPV(nt=NTScalar("i"), initial=0)
        self._acquire.put(self._put)
        channels = {self.image: self._image, self.acquire: self._acquire}
        self._server: Any = Server(providers=[channels], isolate=is_isolated)
        self.epics: dict[str, str] = dict(self._server.conf())
        """What a client's environment, or an acquisition's option `epics`, has to be."""
        self._thread = threading.Thread(target=self._work, name="virtual-beamline", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._wanted.set()
        self._thread.join()
        self._server.stop()

    def wait(self, scans: int | None) -> None:
        """Return after so many scans, or on Ctrl-C."""
        with suppress(KeyboardInterrupt):
            with self._ended:
                self._ended.wait_for(lambda: scans is not None and self.scans >= scans)
            time.sleep(_LINGER_S)  # whoever stopped the scan gets an answer, and the last frame arrives

    @property
    def is_acquiring(self) -> bool:
        """True while a scan is measured."""
        return self._wanted.is_set()

    def _put(self, channel: Any, operation: Any) -> None:
        value = int(operation.value())
        channel.post(value)
        (self._wanted.set if value else self._wanted.clear)()
        operation.done()

    def _work(self) -> None:
        while True:
            self._wanted.wait()
            if self._closing.is_set():
                return
            for number in self._numbers():
                self._send(number)
            if not self._closing.is_set():
                self._wanted.clear()
                self._acquire.post(0)
                with self._ended:
                    self.scans += 1
                    self._ended.notify_all()

    def _numbers(self) -> Iterator[int]:
        """Yield the numbers of frames when they are due, until the scan is over or was stopped."""
        began, self.sent = time.monotonic(), 0
        for number in range(len(self.frames)):
            if self._rate_hz is not None:
                time.sleep(max(0.0, began + number / self._rate_hz - time.monotonic()))
            if not self._wanted.is_set() or self._closing.is_set():
                return
            if number not in self._lose:
                yield number

    def _send(self, number: int) -> None:
        shot = self.frames[number]
        attributes = {"rotation_angle": shot.rotation_angle, "image_key": shot.image_key}
        value = self._type.wrap(shot.data, timestamp=time.time(), attrib=attributes)
        value.uniqueId = number
        self._image.post(value)
        self.sent += 1
        self._told(self.sent)
