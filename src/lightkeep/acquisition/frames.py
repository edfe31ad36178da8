"""Where frames come from: EPICS PVAccess, ZeroMQ, or a file played again.

The ZeroMQ stream is one multipart message each; numbers are little-endian, values in C order:

    {"htype": "dheader-1.0", "series": 7, ...}                                            a series begins
    {"htype": "chunk-1.0", "frame": 0, "shape": [rows, columns], "type": "uint16"} + values       a frame
    {"htype": "dimage-1.0", "frame": 0} + {"shape": [columns, rows], "type": ..., "encoding": "<"} + values
    {"htype": "dseries_end-1.0", "series": 7}                                             it is over

The second form of a frame is the one that Eigers send: its shape counts columns first, and its values may come
compressed (`"encoding": "bs16-lz4<"`), and then stay so.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from lightkeep.acquisition.codecs import from_area_detector, from_eiger
from lightkeep.acquisition.options import Frames, PvAccess, Replay, ZeroMq
from lightkeep.model.acquisition import SCAN, Begin, End, Frame, FrameSource
from lightkeep.model.errors import ConfigError, InvalidInput, SourceError

_BEAT_S: Final = 0.25
_CONNECT_S: Final = 5.0
"""How long a channel may take to show what it holds, before the detector is started all the same."""
_QUEUE: Final = 256
"""Frames between the network's thread and the disk's; beyond that the network waits, and gaps are counted."""
_KINDS: Final = "biuf"
_IMAGE: Final = "epics:nt/NTNDArray:1.0"
_MAPS: Final = {"dflatfield-1.0": "flatfield", "dpixelmask-1.0": "pixel_mask"}


def open_source(options: Frames) -> FrameSource:
    """Open what yields frames.

    Raises
    ------
    ConfigError: what it needs is not installed. SourceError: it cannot be reached.
    """
    if isinstance(options, PvAccess):
        return PvAccessSource(options)
    if isinstance(options, ZeroMq):
        return ZeroMqSource(options)
    if isinstance(options, Replay):
        return ReplaySource(options)
    raise InvalidInput(f"{type(options).__name__} has no frames")


class PvAccessSource:
    """Follows an NTNDArray channel; `uniqueId` numbers the frames."""

    def __init__(self, options: PvAccess) -> None:
        try:
            from p4p.client.thread import Context
            from p4p.nt import NTNDArray
        except ModuleNotFoundError as error:
            raise ConfigError(
                "EPICS needs p4p, which is not installed", remedy="pip install 'lightkeep[epics]'"
            ) from error
        self._options = options
        self._came: queue.Queue[Any] = queue.Queue(_QUEUE)
        self._last: tuple[int, float] | None = None
        self._is_closing = False
        self._is_followed = threading.Event()
        self._opened = time.time()
        whole = type("Whole", (NTNDArray,), {"unwrap": staticmethod(lambda value: value)})  # p4p reads no codec
        self._context = Context("pva", conf=options.epics or None, useenv=not options.epics, nt={_IMAGE: whole})
        self._monitor = self._context.monitor(
            options.channel,
            self._take,
            request=f"record[queueSize={options.queue}]field()",
            notify_disconnect=True,
        )
        if options.acquire:
            self._is_followed.wait(_CONNECT_S)  # a frame that comes before would be lost without a gap
        self._acquire(1)

    def _take(self, value: Any) -> None:
        """Called by EPICS's thread; it waits while the queue is full."""
        if not isinstance(value, Exception):
            self._is_followed.set()
        while not self._is_closing:
            try:
                self._came.put(value, timeout=_BEAT_S)
            except queue.Full:
                continue
            return

    def _acquire(self, wanted: int) -> None:
        if self._options.acquire:
            self._put(self._options.acquire, wanted)

    def _put(self, channel: str, value: int | dict[str, str]) -> None:
        from p4p.client.thread import RemoteError

        try:
            self._context.put(channel, value, timeout=5.0)
        except (TimeoutError, RemoteError) as error:
            raise SourceError(
                f"cannot set {channel} to {value}: {error}", remedy="check the name and the IOC"
            ) from error

    def messages(self) -> Iterator[Begin | Frame | End | None]:
        """Yield frames for ever. What the channel held before this was opened is not new, and left out."""
        while True:
            try:
                value = self._came.get(timeout=_BEAT_S)
            except queue.Empty:
                yield None
                continue
            if isinstance(value, Exception):  # disconnected: EPICS connects again by itself
                yield None
                continue
            if not hasattr(value, "getID") or value.getID() != _IMAGE:
                raise SourceError(
                    f"{self._options.channel} has no images", remedy="name a channel of type NTNDArray"
                )
            number = int(value.uniqueId)
            at = float(value.timeStamp.secondsPastEpoch) + 1e-9 * value.timeStamp.nanoseconds
            is_old = self._last is None and 0 < at < self._opened
            is_same = (number, at) == self._last  # a new scan may begin with the number that the channel held
            self._last = (number, at)
            if is_same or is_old or value.value is None or len(value.value) == 0:
                continue
            yield Frame(number, _image(value), at, self._values(value))

    def _values(self, value: Any) -> dict[str, float]:
        """Return the numbers among the frame's attributes; the angle and the image key by their own names."""
        names = {self._options.angle: "rotation_angle", self._options.image_key: "image_key"}
        found = {
            names.get(each.name, each.name): each.value for each in value.attribute if each.name != "ColorMode"
        }
        return {name: float(each) for name, each in found.items() if isinstance(each, int | float)}

    def stop(self, why: Mapping[str, Any]) -> None:
        """Ask the RunEngine to end its scan; set the Acquire channel to 0. SourceError: neither can be done."""
        if not self._options.acquire and not self._options.request:
            raise SourceError(
                f"{self._options.channel} cannot be stopped: no Acquire channel is known",
                remedy="set `acquire`, or `request` where a RunEngine scans",
            )
        if self._options.request:
            self._put(self._options.request, {"value": json.dumps(why)})  # bare, it would be read as fields
        self._acquire(0)

    def close(self) -> None:
        """Stop the detector, where that was asked for, and listen no more."""
        try:
            self._acquire(0)
        finally:
            self._is_closing = True
            self._monitor.close()
            self._context.close()


def _image(value: Any) -> Any:
    """Return the values of an NTNDArray (row, column), compressed as they came. SourceError: no image."""
    shape = [int(each.size) for each in value.dimension][::-1]
    if value.codec.name:
        return from_area_detector(value.codec.name, value.codec.parameters, shape, value.value.tobytes())
    try:
        return value.value.reshape(shape)
    except ValueError as error:
        raise SourceError(
            f"a frame of {shape} has {value.value.size} values", remedy="check the plugins"
        ) from error


class ZeroMqSource:
    """Follows a ZeroMQ stream; see the module's docstring for its messages."""

    def __init__(self, options: ZeroMq) -> None:
        try:
            import zmq
        except ModuleNotFoundError as error:
            raise ConfigError(
                "ZeroMQ needs pyzmq, which is not installed", remedy="pip install 'lightkeep[zmq]'"
            ) from error
        self._zmq = zmq
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL if options.socket == "pull" else zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, _QUEUE)
        self._socket.setsockopt(zmq.LINGER, 0)
        if options.socket == "sub":
            self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            (self._socket.bind if options.bind else self._socket.connect)(options.address)
        except zmq.ZMQError as error:
            self.close()
            raise SourceError(f"{options.address}: {error}", remedy="write e.g. tcp://detector:9999") from error

    def messages(self) -> Iterator[Begin | Frame | End | None]:
        """Yield what comes. SourceError for a message that is not of this stream."""
        while True:
            if not self._socket.poll(int(_BEAT_S * 1000)):
                yield None
                continue
            yield parse(self._socket.recv_multipart())

    def stop(self, why: Mapping[str, Any]) -> None:  # noqa: ARG002
        """SourceError: frames only come this way, nothing goes back."""
        raise SourceError(
            "a ZeroMQ stream cannot be stopped from here", remedy="stop the detector, or use its EPICS channels"
        )

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()
        self._context.term()


def parse(parts: Sequence[bytes]) -> Begin | Frame | End | None:
    """Return what a multipart message says; None for one that carries no data.

    >>> parse([b'{"htype": "dseries_end-1.0", "series": 7}'])
    End()

    Raises
    ------
    SourceError: it is not one of this stream.
    """
    head = _json(parts[0])
    kind = str(head.get("htype", ""))
    if kind.startswith("dheader"):
        series = head.get("series", head.get("name", ""))
        return Begin(f"series_{series}" if isinstance(series, int) else str(series), _header(head, parts[1:]))
    if kind.startswith("dseries_end"):
        return End()
    if kind.startswith("chunk") and len(parts) >= 2:
        return _frame(head, head, parts[1], reverse=False)
    if kind.startswith("dimage") and len(parts) >= 3:
        return _frame(head, _json(parts[1]), parts[2], reverse=True)
    raise SourceError(
        f"a ZeroMQ message of type {kind[:40]!r} with {len(parts)} parts is not known",
        remedy="see the how-to on acquisition for the messages",
    )


def _header(head: dict[str, Any], parts: Sequence[bytes]) -> dict[str, Any]:
    """Return what is told of a series: an Eiger's settings come in the second part, its maps in pairs after it."""
    about = head | (_told(parts[0]) if parts else {})
    found = {key: each for key, each in about.items() if isinstance(each, str | int | float)}
    for described, values in pairwise(parts):
        told = _told(described)
        if name := _MAPS.get(str(told.get("htype", ""))):
            found[name] = _frame({"frame": 0}, told, values, reverse=True).data
    return found


def _told(part: bytes) -> dict[str, Any]:
    """Return the JSON object that a part is; nothing for values."""
    try:
        found = json.loads(part) if part[:1] == b"{" else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _frame(head: dict[str, Any], about: dict[str, Any], values: bytes, *, reverse: bool) -> Frame:
    try:
        number, at = int(head["frame"]), float(head.get("timestamp", 0.0))
        kind = np.dtype(str(about["type"])).newbyteorder("<")
        shape = [int(each) for each in about["shape"]]
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"a frame's header is broken: {error!r}", remedy="send frame, shape and type") from error
    encoding = str(about.get("encoding", "<"))
    is_packed = encoding not in ("<", "raw")
    if kind.kind not in _KINDS or len(shape) != 2 or min(shape) < 1:
        raise SourceError(f"a frame is {shape} {kind}, no image", remedy="correct its header")
    if not is_packed and kind.itemsize * shape[0] * shape[1] != len(values):
        raise SourceError(f"a frame of {shape} {kind} has {len(values)} bytes", remedy="correct its header")
    shape = shape[::-1] if reverse else shape
    given = {name: float(head[name]) for name in SCAN if isinstance(head.get(name), int | float)}
    data = from_eiger(encoding, kind, shape, values) if is_packed else np.frombuffer(values, kind).reshape(shape)
    return Frame(number, data, at, given)


def _json(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SourceError("a ZeroMQ message has no JSON header", remedy="connect to the detector's data stream")
    return found


_EXCHANGE: Final = {"exchange/data_white": 1, "exchange/data_dark": 2, "exchange/data": 0}
"""Where a Data Exchange scan has its frames, in the order of a measurement, with the image key of each."""


class ReplaySource:
    """Plays a file's frames at a rate, once; frame n comes at n / rate seconds.

    A Data Exchange scan is played as a beamline measures it: flats, darks, then projections with their angles.
    """

    def __init__(self, options: Replay) -> None:
        self._options = options
        self._is_stopped = False
        try:
            self._file = h5py.File(options.file, "r", locking=False)
        except OSError as error:
            raise SourceError(f"{options.file} cannot be read: {error}", remedy="name an HDF5 file") from error
        self._stacks = self._found()
        if not self._stacks:
            self._file.close()
            raise SourceError(
                f"{options.file} has no frames at {options.place}", remedy="name a dataset of three axes: place"
            )

    def messages(self) -> Iterator[Begin | Frame | End | None]:
        """Yield the series."""
        yield Begin(Path(self._options.file).stem, self._header())
        began = time.monotonic()
        every = ((stack, at, given) for stack, given in self._stacks for at in range(stack.shape[0]))
        for number, (stack, at, given) in enumerate(every):
            if self._is_stopped:
                break
            while (left := began + number / self._options.rate - time.monotonic()) > 0:
                time.sleep(min(left, _BEAT_S))
                if left > _BEAT_S:
                    yield None
            values = {name: float(each[at]) for name, each in given.items()}
            yield Frame(number, stack[at], time.time(), values)
        yield End()

    def _found(self) -> list[tuple[h5py.Dataset, dict[str, Any]]]:
        """Return the stacks in the order in which they are played, with the values of each of their frames."""
        frames = self._file.get(self._options.place)
        if isinstance(frames, h5py.Dataset) and frames.ndim == 3:
            known = {name: self._file.get(place) for name, place in SCAN.items()}
            return [(frames, {name: each[()] for name, each in known.items() if _is_one_of_each(each, frames)})]
        found = []
        for place, key in _EXCHANGE.items():
            stack, theta = self._file.get(place), self._file.get("exchange/theta")
            if not isinstance(stack, h5py.Dataset) or stack.ndim != 3:
                return []
            given: dict[str, Any] = {"image_key": np.full(stack.shape[0], key)}
            if _is_one_of_each(theta, stack):
                is_radian = str(theta.attrs.get("units", "")).startswith("rad")
                given["rotation_angle"] = np.degrees(theta[()]) if is_radian else theta[()]
            else:
                given["rotation_angle"] = np.zeros(stack.shape[0])
            found.append((stack, given))
        return found

    def stop(self, why: Mapping[str, Any]) -> None:  # noqa: ARG002
        """End the series before the next frame."""
        self._is_stopped = True

    def _header(self) -> dict[str, Any]:
        """Return the single values that the file has of its detector."""
        group = self._file.get("entry/instrument/detector")
        if not isinstance(group, h5py.Group):
            return {}
        found = {key: each for key, each in group.items() if isinstance(each, h5py.Dataset) and each.ndim == 0}
        return {key: each.asstr()[()] if each.dtype.kind == "O" else each[()] for key, each in found.items()}

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _is_one_of_each(values: Any, frames: h5py.Dataset) -> bool:
    return isinstance(values, h5py.Dataset) and values.shape == frames.shape[:1]
