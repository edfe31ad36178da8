"""Frames that come compressed are on disk with the values that the detector measured, and still compressed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from p4p.nt import NTNDArray
from p4p.server import Server
from p4p.server.thread import SharedPV

from lightkeep.acquisition.codecs import FILTERS, from_area_detector
from lightkeep.acquisition.frames import PvAccessSource, parse
from lightkeep.acquisition.options import PvAccess
from lightkeep.acquisition.spool import Recorder, mark_of
from lightkeep.formats.eiger import FORMAT as EIGER
from lightkeep.model.acquisition import Begin, Frame, Packed
from lightkeep.model.errors import SourceError

WAIT_S = 60.0
HEADERS = {"bslz4": 12, "lz4": 16, "blosc": 0, "zlib": 0}
"""What HDF5 puts before the bytes of each codec, and areaDetector does not."""
SCALARS = {"uint8": 5, "uint16": 6, "uint32": 7, "int32": 3, "float32": 9}


def image(kind: str, number: int = 0) -> np.ndarray[Any, Any]:
    """An image whose size is no multiple of anything."""
    return (np.arange(61 * 83).reshape(61, 83) % 251 // 10 + number).astype(kind)


def chunk(codec: str, values: np.ndarray[Any, Any]) -> bytes:
    """Compress as HDF5 does, with the library of the filter itself."""
    with h5py.File.in_memory() as file:
        data = file.create_dataset("data", data=values, chunks=values.shape, **FILTERS[codec][1])
        mask, found = data.id.read_direct_chunk((0, 0))
    assert mask == 0, "the filter was used"
    return bytes(found)


def sent(codec: str, values: np.ndarray[Any, Any]) -> bytes:
    return chunk(codec, values)[HEADERS[codec] :]


def eiger(encoding: str, values: np.ndarray[Any, Any], payload: bytes) -> Any:
    about = {"shape": [*values.shape[::-1]], "type": values.dtype.name, "encoding": encoding}
    return parse([b'{"htype": "dimage-1.0", "frame": 3}', json.dumps(about).encode(), payload, b"{}"])


@pytest.mark.parametrize("codec", FILTERS)
@pytest.mark.parametrize("kind", SCALARS)
def test_an_area_detectors_codec_is_kept_and_read_back(codec: str, kind: str, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, prefix="camera")
    recorder.take(Begin("scan"))
    for number in range(3):
        values = image(kind, number)
        packed = from_area_detector(codec, SCALARS[kind], values.shape, sent(codec, values))
        recorder.take(Frame(number, packed, 1.0))
    recorder.end()
    with h5py.File(tmp_path / "scan.h5") as file:
        data = file["entry/data/data"]
        np.testing.assert_array_equal(data[:], np.stack([image(kind, number) for number in range(3)]))
        assert data.dtype == kind
        assert data.id.get_storage_size() < data.nbytes / 2, "compressed on disk"


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("codec", ["bslz4", "lz4"])
def test_an_eigers_compressed_frame_is_kept_and_read_back(codec: str, kind: str, tmp_path: Path) -> None:
    values = image(kind)
    encoding = f"bs{values.itemsize * 8}-lz4<" if codec == "bslz4" else "lz4<"
    payload = chunk(codec, values)[0 if codec == "bslz4" else HEADERS[codec] :]
    recorder = Recorder(tmp_path, prefix="eiger")
    recorder.take(eiger(encoding, values, payload))
    recorder.end()
    (path,) = tmp_path.glob("*.h5")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["entry/data/data"][0], values)


def test_an_eigers_settings_and_masks_are_in_the_file_where_its_own_files_have_them(tmp_path: Path) -> None:
    settings = {
        "count_time": 0.0099, "frame_time": 0.01, "photon_energy": 10900.0, "detector_distance": 2.0,
        "x_pixel_size": 75e-6, "y_pixel_size": 75e-6, "beam_center_x": 30.5, "beam_center_y": 20.25,
        "description": "Eiger 500K", "detector_orientation": [1, 0, 0], "flatfield_correction_applied": True,
    }  # fmt: skip
    mask = (image("uint32") > 20).astype("<u4")
    mask[0, 0] = ord("{")  # values that look like JSON are values
    flat = np.ones((61, 83), "<f4")
    parts: list[Any] = [{"htype": "dheader-1.0", "series": 7, "header_detail": "all"}, settings]
    for name, values in (("dflatfield", flat), ("dpixelmask", mask)):
        parts += [{"htype": f"{name}-1.0", "shape": [83, 61], "type": values.dtype.name}, values.tobytes()]
    recorder = Recorder(tmp_path, prefix="eiger")
    recorder.take(parse([each if isinstance(each, bytes) else json.dumps(each).encode() for each in parts]))
    for number in range(3):
        values = image("uint16", number)
        recorder.take(eiger("bs16-lz4<", values, chunk("bslz4", values)))
    recorder.end()
    with h5py.File(tmp_path / "series_7.h5") as file:
        own = file["entry/instrument/detector/detectorSpecific"]
        np.testing.assert_array_equal(own["pixel_mask"][:], mask)
        np.testing.assert_array_equal(own["flatfield"][:], flat)
    with EIGER.open(tmp_path / "series_7.h5") as run:
        np.testing.assert_array_equal(run.arrays["frames"][:], np.stack([image("uint16", at) for at in range(3)]))
        known = {name: (each.value_si, each.unit_si) for name, each in run.metadata.quantities.items()}
    assert known["frame_time"] == (0.01, "s")
    assert known["exposure_time"] == (0.0099, "s")
    assert known["energy"][0] == pytest.approx(10900 * 1.602176634e-19)
    assert known["distance"] == (2.0, "m")
    assert known["pixel_size"] == (75e-6, "m")
    assert known["beam_center_x"][0] == 30.5


def test_compressed_frames_of_a_real_channel_arrive_whole(tmp_path: Path) -> None:
    def wrapped(number: int) -> Any:
        values = image("uint16", number)
        found = NTNDArray().wrap(np.frombuffer(sent("bslz4", values), np.uint8), timestamp=time.time())
        found.codec.name, found.codec.parameters = "bslz4", SCALARS["uint16"]
        found.uncompressedSize = values.nbytes
        found.dimension = [{"size": each} for each in values.shape[::-1]]
        found.uniqueId = number
        return found

    channel = SharedPV(initial=NTNDArray().wrap(np.zeros((2, 2), np.uint8), timestamp=1.0))
    recorder = Recorder(tmp_path, prefix="camera")
    with Server(providers=[{"SIM:Image": channel}], isolate=True) as server:
        source = PvAccessSource(PvAccess(channel="SIM:Image", epics=server.conf()))
        messages, deadline = source.messages(), time.monotonic() + WAIT_S
        assert next(messages) is None, "what the channel held before is no new frame"
        for number in range(5):
            channel.post(wrapped(number))
            while recorder.counted.frames <= number:
                recorder.take(next(messages))
                assert time.monotonic() < deadline
        source.close()
    recorder.end()
    (path,) = tmp_path.glob("*.h5")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["entry/data/data"][:], [image("uint16", each) for each in range(5)])


def test_what_a_killed_recorder_left_is_salvaged_still_compressed(tmp_path: Path) -> None:
    dying = Recorder(tmp_path, prefix="eiger")
    dying.take(Begin("scan"))
    for number in range(4):
        values = image("uint16", number)
        dying.take(Frame(number, Packed(values.shape, values.dtype, "bslz4", chunk("bslz4", values)), 1.0))
    dying._flush(time.monotonic())
    kept = (tmp_path / "scan.h5").read_bytes()
    dying.end()
    mark_of(tmp_path / "scan.h5").unlink()
    (tmp_path / "scan.h5").write_bytes(kept)  # as the kill left it: never closed
    assert Recorder(tmp_path, prefix="eiger").salvage() == 1
    with h5py.File(tmp_path / "scan-salvaged.h5") as file:
        data = file["entry/data/data"]
        np.testing.assert_array_equal(data[:], [image("uint16", number) for number in range(4)])
        assert data.id.read_direct_chunk((2, 0, 0))[1] == chunk("bslz4", image("uint16", 2))


def test_frames_whose_type_or_codec_changes_begin_a_new_file_and_lose_no_value(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, prefix="camera")
    wide = image("uint16", 0) + np.uint16(60000)
    packed = Packed(wide.shape, wide.dtype, "lz4", chunk("lz4", wide))
    for number, data in enumerate((image("uint8"), wide, packed)):
        recorder.take(Frame(number, data, 1.0))
    recorder.end()
    assert "begins a new series" in recorder.counted.problem
    found = []
    for path in sorted(tmp_path.glob("*.h5"), key=lambda path: path.stat().st_mtime_ns):
        with h5py.File(path) as file:
            found.append(file["entry/data/data"][0])
    np.testing.assert_array_equal(found[0], image("uint8"))
    np.testing.assert_array_equal(found[1], wide)
    np.testing.assert_array_equal(found[2], wide)


@pytest.mark.parametrize(
    ("encoding", "payload", "named"),
    [
        ("bs32-lz4<", b"", "'bs32-lz4<', which is not read"),
        ("bs16-lz4>", b"", "which is not read"),
        ("zstd<", b"", "which is not read"),
        ("bs16-lz4<", b"\0" * 8, "says that it has 0"),
        ("bs16-lz4<", chunk("bslz4", image("uint32")), "a compressed frame of 10126 bytes says that it has 20252"),
        ("lz4<", b"", "has 0"),
        ("lz4<", b"\0" * 10126, "has 10126"),
    ],
)  # fmt: skip
def test_an_eigers_frame_that_cannot_be_kept_is_an_error_that_says_why(
    encoding: str, payload: bytes, named: str
) -> None:
    with pytest.raises(SourceError, match=named):
        eiger(encoding, image("uint16"), payload)


@pytest.mark.parametrize(
    ("codec", "scalar", "payload", "named"),
    [
        ("jpeg", 5, b"", "'jpeg' of type 5, which is not read"),
        ("bslz4", None, b"", "of type None"),
        ("bslz4", 12, b"", "of type 12"),
        ("blosc", 6, chunk("blosc", image("uint32")), "another size"),
        ("blosc", 6, b"", "another size"),
    ],
)
def test_an_area_detectors_frame_that_cannot_be_kept_is_an_error_that_says_why(
    codec: str, scalar: Any, payload: bytes, named: str
) -> None:
    with pytest.raises(SourceError, match=named):
        from_area_detector(codec, scalar, (61, 83), payload)
