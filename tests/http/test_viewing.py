"""Pictures, and the content that the h5web viewer asks for."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from lightkeep.testing.populated import Populated


def _picture(answer_content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(answer_content)).convert("RGB"))


def test_a_result_is_a_stack_with_its_unit_and_contrast(member: TestClient, house: Populated) -> None:
    stack = member.get(f"/api/v1/datasets/{house.result.id}/preview").json()
    assert (stack["count"], stack["height"], stack["width"]) == (4, 48, 48)
    assert (stack["unit"], stack["label"]) == ("1/pixel", "attenuation")
    assert (stack["steps"], stack["step_unit"]) == ([1.0, 1.0], "pixel")
    assert stack["low"] < stack["high"] <= 0.0101


def test_each_slice_is_drawn_as_its_values_are(member: TestClient, house: Populated) -> None:
    """The discs of the four slices have radii of 0.2, 0.4, 0.6, 0.8 half-widths."""
    for index, radius in enumerate((0.2, 0.4, 0.6, 0.8)):
        answer = member.get(f"/api/v1/datasets/{house.result.id}/preview/{index}.png")
        assert answer.headers["content-type"] == "image/png"
        bright = (_picture(answer.content)[..., 0] > 127).mean()
        assert bright == pytest.approx(np.pi * radius**2 / 4, abs=0.02)  # pixels of the disc's edge


def test_a_projection_is_shown_as_absorption(member: TestClient, house: Populated) -> None:
    stack = member.get(f"/api/v1/datasets/{house.raw.id}/preview").json()
    assert stack["label"] == "\u2212ln(I / I\u2080)"
    assert 0 < stack["high"] < 10


def test_contrast_and_colours_can_be_chosen(member: TestClient, house: Populated) -> None:
    address = f"/api/v1/datasets/{house.result.id}/preview/3.png"
    picture = _picture(member.get(address, params={"palette": "viridis", "low": 0, "high": 0.01}).content)
    assert picture[24, 24].tolist() == [0xFD, 0xE7, 0x25]
    assert picture[0, 0].tolist() == [0x44, 0x01, 0x54]


def test_a_large_picture_is_reduced(member: TestClient, house: Populated) -> None:
    answer = member.get(f"/api/v1/datasets/{house.result.id}/preview/3.png", params={"longest": 16})
    assert _picture(answer.content).shape[:2] == (16, 16)


def test_there_is_no_picture_beyond_the_last(member: TestClient, house: Populated) -> None:
    assert member.get(f"/api/v1/datasets/{house.result.id}/preview/4.png").status_code == 404


def test_the_viewer_reads_the_tree_and_the_values(member: TestClient, house: Populated) -> None:
    address = f"/api/v1/datasets/{house.result.id}/h5"
    root = member.get(f"{address}/meta", params={"path": "/"}).json()
    assert [child["name"] for child in root["children"]] == ["entry"]
    paths = member.get(f"{address}/paths", params={"path": "/"}).json()
    shapes = {path: member.get(f"{address}/meta", params={"path": path}).json().get("shape") for path in paths}
    signal = next(path for path, shape in shapes.items() if shape == [4, 48, 48])
    asked = {"path": signal, "selection": "2,24,24", "format": "bin", "dtype": "safe"}
    data = member.get(f"{address}/data", params=asked).content
    assert np.frombuffer(data, np.float32)[0] == pytest.approx(0.01)


@pytest.mark.parametrize("path", ["/nothing", "../x", "/entry/../../x", "\N{GRINNING FACE}"])
def test_the_viewer_has_no_object_of_another_name(member: TestClient, house: Populated, path: str) -> None:
    answer = member.get(f"/api/v1/datasets/{house.result.id}/h5/meta", params={"path": path})
    assert answer.status_code in (404, 422)


def test_the_viewer_takes_no_file_from_the_client(member: TestClient, house: Populated) -> None:
    plain = member.get(f"/api/v1/datasets/{house.result.id}/h5/meta").json()
    asked = {"file": "../../../etc/passwd"}
    assert member.get(f"/api/v1/datasets/{house.result.id}/h5/meta", params=asked).json() == plain


def test_errors_do_not_tell_where_the_store_is(member: TestClient, house: Populated) -> None:
    address = f"/api/v1/datasets/{house.result.id}/h5/data"
    text = member.get(address, params={"path": "/entry"}).text
    assert str(house.facility.config.root) not in text
