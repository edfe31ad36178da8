"""What the web viewer gets to see."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from lightkeep.formats.viewer import viewer_call
from lightkeep.model.errors import BadFile, InvalidInput, NotFound, UnsafeFile


def test_the_tree_and_the_attributes_are_shown(scan: Path) -> None:
    tree = json.loads(viewer_call(scan, [], "meta", "/").content)
    assert [child["name"] for child in tree["children"]] == ["exchange", "implements", "measurement"]
    assert json.loads(viewer_call(scan, [], "attr", "/exchange/theta").content) == {"units": "degrees"}
    assert "/exchange/data" in json.loads(viewer_call(scan, [], "paths", "/").content)


def test_a_frame_comes_as_little_endian_bytes(scan: Path) -> None:
    answer = viewer_call(
        scan, [], "data", "/exchange/data", selection="3,:,:", format="bin", dtype="safe", flatten=True
    )
    with h5py.File(scan) as file:
        expected = file["exchange/data"][3]
    assert answer.media_type == "application/octet-stream"
    np.testing.assert_array_equal(np.frombuffer(answer.content, "<u2").reshape(expected.shape), expected)
    stats = json.loads(viewer_call(scan, [], "stats", "/exchange/data", selection="3,:,:").content)
    assert (stats["min"], stats["max"]) == (expected.min(), expected.max())


def test_a_download_says_its_file_name(scan: Path) -> None:
    assert "data.npy" in viewer_call(scan, [], "data", "/exchange/data", format="npy").disposition


@pytest.mark.parametrize(
    ("kind", "h5path", "options", "error"),
    [
        ("meta", "/nothing", {}, NotFound),
        ("attr", "/nothing", {}, NotFound),
        ("data", "/exchange", {}, InvalidInput),
        ("data", "/exchange/data", {"selection": "9999"}, InvalidInput),
        ("data", "/exchange/data", {"selection": "__import__('os')"}, InvalidInput),
        ("data", "/exchange/data", {"format": "exe"}, InvalidInput),
        ("meta", "/", {"resolve_links": "maybe"}, InvalidInput),
        ("attr", "/exchange/theta", {"attr_keys": ["no"]}, NotFound),
        ("delete", "/", {}, InvalidInput),
    ],
)
def test_a_wrong_question_is_answered_in_one_line(
    scan: Path, kind: str, h5path: str, options: dict, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        viewer_call(scan, [], kind, h5path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_file_that_leads_outside_is_not_shown_at_all(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with h5py.File(tmp_path / "elsewhere" / "other.h5", "w") as other:
        other["secret"] = [1, 2, 3]
    viewer_call(scan, [], "meta", "/")  # found safe, and remembered
    with h5py.File(scan, "r+") as file:
        file["door"] = h5py.ExternalLink("elsewhere/other.h5", "/")
    for h5path in ("/door/secret", "/exchange/data", "/"):
        with pytest.raises(UnsafeFile, match=r"leads to elsewhere/other\.h5"):
            viewer_call(scan, [], "meta", h5path)
    answer = viewer_call(scan, [tmp_path / "elsewhere"], "data", "/door/secret")
    assert json.loads(answer.content) == [1, 2, 3]


def test_a_changed_neighbour_is_checked_again(scan: Path, tmp_path: Path) -> None:
    neighbour = tmp_path / "neighbour.h5"
    with h5py.File(neighbour, "w") as file:
        file["x"] = [1]
    with h5py.File(scan, "r+") as file:
        file["door"] = h5py.ExternalLink("neighbour.h5", "/x")
    viewer_call(scan, [neighbour], "data", "/door")
    with h5py.File(neighbour, "r+") as file:
        del file["x"]
        file["x"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(UnsafeFile, match="/etc/passwd"):
        viewer_call(scan, [neighbour], "data", "/door")


def test_hostile_text_still_makes_valid_json(scan: Path) -> None:
    with h5py.File(scan, "r+") as file:
        file["exchange"].attrs["bad"] = np.bytes_(b"\xff\xfe\x1b[2J")
        file["exchange"].attrs["many"] = np.array([b"\xff", b"ok"])
    found = json.loads(viewer_call(scan, [], "attr", "/exchange").content)
    assert found["many"] == ["ÿ", "ok"]
    assert found["bad"].isprintable()


def test_a_damaged_file_is_refused(scan: Path) -> None:
    os.truncate(scan, scan.stat().st_size - 10)
    with pytest.raises(BadFile, match="cut short"):
        viewer_call(scan, [], "meta", "/")
