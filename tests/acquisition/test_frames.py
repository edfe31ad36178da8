"""Frames from real servers arrive whole, and every one that is missing is counted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zmq
from p4p.nt import NTNDArray, NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV

from lightkeep.acquisition.frames import PvAccessSource, ZeroMqSource, open_source, parse
from lightkeep.acquisition.options import PvAccess, Replay, ZeroMq
from lightkeep.acquisition.spool import Recorder, mark_of
from lightkeep.formats.nxtomo import FORMAT as NXTOMO
from lightkeep.model.acquisition import Begin, End, Frame
from lightkeep.model.errors import SourceError

WAIT_S = 60.0


def image(number: int) -> np.ndarray[Any, Any]:
    return np.arange(6 * 8, dtype=np.uint16).reshape(6, 8) + number


def wrapped(number: int, *, at: float | None = None) -> Any:
    value = NTNDArray().wrap(image(number), timestamp=time.time() if at is None else at)
    value.uniqueId = number
    return value


class Camera:
    """A PVAccess server with an image and an Acquire channel."""

    def __init__(self) -> None:
        self.image = SharedPV(initial=wrapped(99, at=1.0))
        self.acquired: list[int] = []
        self.acquire = SharedPV(nt=NTScalar("i"), initial=0)

        @self.acquire.put
        def put(pv: Any, operation: Any) -> None:
            self.acquired.append(int(operation.value()))
            pv.post(operation.value())
            operation.done()

        self.server = Server(providers=[{"SIM:Image": self.image, "SIM:Acquire": self.acquire}], isolate=True)


@pytest.fixture
def camera() -> Iterator[Camera]:
    made = Camera()
    with made.server:
        yield made


def _until(recorder: Recorder, messages: Iterator[Any], frames: int) -> None:
    deadline = time.monotonic() + WAIT_S
    for message in messages:
        recorder.take(message)
        if recorder.counted.frames >= frames:
            return
        assert time.monotonic() < deadline, f"{recorder.counted.frames} frames came"


def test_a_gap_in_a_pvaccess_stream_is_counted_and_the_rest_is_on_disk(camera: Camera, tmp_path: Path) -> None:
    options = PvAccess(channel="SIM:Image", acquire="SIM:Acquire", epics=camera.server.conf())
    source, recorder = PvAccessSource(options), Recorder(tmp_path, prefix="camera")
    messages = source.messages()
    assert camera.acquired == [1]
    assert next(messages) is None, "what the channel held before is no new frame"
    numbers = [*range(10), *range(13, 20)]  # three never arrive
    for number in numbers:
        camera.image.post(wrapped(number))
        _until(recorder, messages, numbers.index(number) + 1)
    recorder.end()
    source.close()
    assert camera.acquired == [1, 0]
    assert (recorder.counted.frames, recorder.counted.gaps) == (17, 3)
    (path,) = tmp_path.glob("*.h5")
    assert mark_of(path).exists()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["entry/data/data"][:], [image(number) for number in numbers])
        assert file["entry/data/frame_number"][:].tolist() == numbers


def test_a_scan_whose_first_number_the_channel_held_already_loses_no_frame(camera: Camera) -> None:
    source = PvAccessSource(PvAccess(channel="SIM:Image", acquire="SIM:Acquire", epics=camera.server.conf()))
    messages = source.messages()
    assert next(messages) is None
    camera.image.post(wrapped(99))
    deadline = time.monotonic() + WAIT_S
    while not isinstance(found := next(messages), Frame):
        assert time.monotonic() < deadline
    assert found.number == 99
    source.close()


def test_a_channel_without_images_is_an_error_that_says_so(camera: Camera) -> None:
    source = PvAccessSource(PvAccess(channel="SIM:Acquire", epics=camera.server.conf()))
    with pytest.raises(SourceError, match="SIM:Acquire has no images"):
        for _ in source.messages():
            pass
    source.close()


def test_a_zeromq_stream_of_two_series_becomes_two_files(tmp_path: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        port = push.bind_to_random_port("tcp://127.0.0.1")
        source = ZeroMqSource(ZeroMq(address=f"tcp://127.0.0.1:{port}"))
        recorder = Recorder(tmp_path, prefix="eiger")
        for series in (7, 8):
            push.send_json({"htype": "dheader-1.0", "series": series, "frame_time": 0.001})
            for number in range(5):
                if (series, number) == (8, 2):
                    continue
                head = {"htype": "dimage-1.0", "series": series, "frame": number}
                about = {"htype": "dimage_d-1.0", "shape": [8, 6], "type": "uint16", "encoding": "<"}
                values = image(number + series).astype("<u2").tobytes()
                push.send_multipart([json.dumps(head).encode(), json.dumps(about).encode(), values, b"{}"])
            push.send_json({"htype": "dseries_end-1.0", "series": series})
        deadline = time.monotonic() + WAIT_S
        for message in source.messages():
            recorder.take(message)
            if len(list(tmp_path.glob("*.done"))) == 2:
                break
            assert time.monotonic() < deadline
        source.close()
    assert (recorder.counted.frames, recorder.counted.gaps) == (9, 1)
    with h5py.File(tmp_path / "series_7.h5") as file:
        np.testing.assert_array_equal(file["entry/data/data"][:], [image(number + 7) for number in range(5)])
        assert file["entry/instrument/detector/frame_time"][()] == 0.001


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ([b"no json"], "no JSON header"),
        ([b"[]"], "no JSON header"),
        ([b'{"htype": "chunk-1.0", "frame": 0, "shape": [2, 2], "type": "uint16"}', b"short"], "has 5 bytes"),
        ([b'{"htype": "chunk-1.0", "frame": 0, "shape": [1, 1], "type": "O"}', b"12345678"], "no image"),
        ([b'{"htype": "chunk-1.0", "shape": [2, 2], "type": "uint16"}', b"12345678"], "frame"),
        ([b'{"htype": "other"}'], "not known"),
    ],
)  # fmt: skip
def test_a_message_that_is_not_understood_is_an_error_that_says_why(parts: list[bytes], named: str) -> None:
    with pytest.raises(SourceError, match=named):
        parse(parts)


def test_a_replay_keeps_its_rate(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["entry/data/data"] = np.stack([image(number) for number in range(6)])
    source = open_source(Replay(file=str(tmp_path / "old.h5"), rate=20))
    began = time.monotonic()
    found = [message for message in source.messages() if message is not None]
    assert time.monotonic() - began >= 5 / 20
    assert [type(message) for message in found] == [Begin, *[Frame] * 6, End]
    source.close()


def test_what_a_killed_recorder_left_is_salvaged_whole(tmp_path: Path) -> None:
    dying = Recorder(tmp_path, prefix="camera")
    dying.take(Begin("scan"))
    for number in range(5):
        dying.take(Frame(number, image(number), 1.0))
    dying._flush(time.monotonic())
    kept = (tmp_path / "scan.h5").read_bytes()
    dying.end()
    mark_of(tmp_path / "scan.h5").unlink()
    (tmp_path / "scan.h5").write_bytes(kept)  # as the kill left it: never closed
    after = Recorder(tmp_path, prefix="camera")
    assert after.salvage() == 1
    assert after.salvage() == 0, "once is enough"
    with h5py.File(tmp_path / "scan-salvaged.h5") as file:
        np.testing.assert_array_equal(file["entry/data/data"][:], [image(number) for number in range(5)])
    assert mark_of(tmp_path / "scan-salvaged.h5").exists()
    assert not mark_of(tmp_path / "scan.h5").exists()
    assert (tmp_path / "scan.h5").read_bytes() == kept, "nothing is thrown away"


def test_a_long_series_goes_on_in_the_next_file_and_a_silent_one_ends(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, prefix="camera", frames_per_file=4, idle_s=0.1)
    recorder.take(Begin("scan"))
    for number in range(10):
        recorder.take(Frame(number, image(number)))
    time.sleep(0.15)
    recorder.take(None)
    sizes = {}
    for path in tmp_path.glob("*.h5"):
        with h5py.File(path) as file:
            sizes[path.name] = len(file["entry/data/data"])
    assert sizes == {"scan.h5": 4, "scan-2.h5": 4, "scan-3.h5": 2}
    assert len(list(tmp_path.glob("*.done"))) == 3


def test_a_series_with_angles_and_image_keys_is_a_tomography_scan_also_after_a_kill(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, prefix="camera")
    recorder.take(Begin("scan"))
    keys = [2, 1, *[0] * 8, 3]
    for number, key in enumerate(keys):
        given = {"rotation_angle": 22.5 * number, "image_key": key, "Temperature": 20.0 + number}
        recorder.take(Frame(number, image(number), 1.0, given))
    recorder._flush(time.monotonic())
    kept = (tmp_path / "scan.h5").read_bytes()
    recorder.end()
    (tmp_path / "killed.h5").write_bytes(kept)
    assert Recorder(tmp_path, prefix="camera").salvage() == 1
    for name in ("scan.h5", "killed-salvaged.h5"):
        with NXTOMO.open(tmp_path / name) as source:
            assert source.arrays["projections"].shape == (8, 6, 8)
            np.testing.assert_array_equal(source.arrays["flats"][:], [image(1)])
            np.testing.assert_array_equal(source.arrays["darks"][:], [image(0)])
            np.testing.assert_array_equal(source.arrays["theta_deg"][:], 22.5 * np.arange(2, 10))
        with h5py.File(tmp_path / name) as file:
            assert file["entry/instrument/NDAttributes/Temperature"][:].tolist() == [20.0 + n for n in range(11)]


def test_a_replay_of_a_scan_keeps_its_angles_and_can_be_stopped(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, prefix="camera")
    for number in range(6):
        recorder.take(Frame(number, image(number), 1.0, {"rotation_angle": 30.0 * number, "image_key": 0}))
    recorder.end()
    (path,) = tmp_path.glob("*.h5")
    source = open_source(Replay(file=str(path), rate=1000))
    found = []
    for message in source.messages():
        found.append(message)
        if isinstance(message, Frame) and message.number == 3:
            source.stop({})
    frames = [each for each in found if isinstance(each, Frame)]
    assert [each.values["rotation_angle"] for each in frames] == [0, 30, 60, 90]
    assert isinstance(found[-1], End)
    source.close()


def test_a_data_exchange_scan_is_replayed_as_it_was_measured(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "old.h5", "w") as file:
        for name, count in (("data", 4), ("data_white", 2), ("data_dark", 1)):
            file[f"exchange/{name}"] = np.stack([image(number).astype(np.float32) for number in range(count)])
        file["exchange/theta"] = np.radians([0.0, 45, 90, 135])
        file["exchange/theta"].attrs["units"] = "radians"
    source = open_source(Replay(file=str(tmp_path / "old.h5"), rate=1e6))
    (tmp_path / "spool").mkdir()
    recorder = Recorder(tmp_path / "spool", prefix="x")
    for message in source.messages():
        recorder.take(message)
    source.close()
    with NXTOMO.open(tmp_path / "spool" / "old.h5") as scan:
        assert [scan.arrays[name].shape[0] for name in ("projections", "flats", "darks", "frames")] == [4, 2, 1, 7]
        np.testing.assert_allclose(scan.arrays["theta_deg"][:], [0, 45, 90, 135])
        np.testing.assert_array_equal(scan.arrays["frames"][2:3], [image(0)])


def test_frames_of_another_size_begin_a_new_series_and_nothing_is_lost(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, prefix="camera")
    for number in range(6):
        recorder.take(Frame(number, image(number) if number < 3 else image(number)[:3]))
    recorder.end()
    shapes = []
    for path in tmp_path.glob("*.h5"):
        assert mark_of(path).exists()
        with h5py.File(path) as file:
            shapes.append(file["entry/data/data"].shape)
    assert sorted(shapes) == [(3, 3, 8), (3, 6, 8)]
    assert (recorder.counted.frames, recorder.counted.gaps) == (6, 0)
    assert "is (3, 8) uint16, not (6, 8) uint16" in recorder.counted.problem
