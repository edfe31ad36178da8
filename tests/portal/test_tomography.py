"""Planes of scans and volumes: the right numbers in the right place, centres picked by eye, two compared."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect
from starlette.testclient import TestClient

from lightkeep.analysis.tomography import reconstruct
from lightkeep.lifecycle.people.sign_in import COOKIE
from lightkeep.lifecycle.pictures import slice_pictures
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.people import SERVICE
from lightkeep.testing.populated import Populated
from lightkeep.testing.served import Server

AXIS = 48 / 2 - 0.5 + 7.3
"""Where `simulate_tomography` puts it on 48 columns."""


def _as(web: TestClient, house: Populated, role: str) -> TestClient:
    headers = {"Origin": "http://testserver"}
    return TestClient(web.app, cookies={COOKIE: house.tokens[role]}, headers=headers, follow_redirects=False)


def _picture(web: TestClient, house: Populated, path: str) -> NDArray[Any]:
    answer = _as(web, house, "member").get(f"/api/v1/datasets/{path}")
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(float)


def test_every_plane_of_a_volume_is_cut_where_it_says(web: TestClient, house: Populated) -> None:
    base = f"{house.result.id}/tomography"
    levels = "low=0&high=0.01"
    xy, xz, zy = (
        _picture(web, house, f"{base}/{plane}.png?{levels}")[..., 0] for plane in ("xy/2", "xz/24", "zy/24")
    )
    assert (xy.shape, xz.shape, zy.shape) == ((48, 48), (4, 48), (48, 4))
    np.testing.assert_array_equal(xy[24], xz[2])
    np.testing.assert_array_equal(xy[:, 24], zy[:, 2])
    widths = (xz > 128).sum(axis=1)  # discs of growing radius
    assert (np.diff(widths) > 5).all()


def test_a_sinogram_is_the_same_row_of_every_projection(web: TestClient, house: Populated) -> None:
    base = f"{house.raw.id}/tomography"
    known = _as(web, house, "member").get(f"/api/v1/datasets/{base}").json()
    assert (known["kind"], known["shape"]) == ("scan", [24, 4, 48])
    assert sum(known["histogram"]) > 900
    levels = f"low={known['low']}&high={known['high']}"
    sinogram = _picture(web, house, f"{base}/sinogram/2.png?{levels}")[..., 0]
    for angle in (0, 17):
        projection = _picture(web, house, f"{base}/projection/{angle}.png?{levels}")[..., 0]
        np.testing.assert_array_equal(sinogram[angle], projection[2])


def test_a_candidate_is_the_slice_that_a_reconstruction_with_that_centre_gives(
    web: TestClient, house: Populated
) -> None:
    (shape, content), theta = slice_pictures.sinogram(
        local_path(house.facility, house.raw.id, house.raw.main_file), house.raw.format, row=1
    )
    sinogram = np.frombuffer(content, "<f4").reshape(shape)
    address = f"/api/v1/datasets/{house.raw.id}/tomography/centers?row=1&center={AXIS}&center={AXIS - 6}"
    for found in _as(web, house, "member").get(address).json():
        wanted = reconstruct(sinogram[None], theta, found["center"])[0]
        content = b64decode(found["png"].partition(",")[2])
        seen = np.asarray(Image.open(io.BytesIO(content)), float)
        inside = wanted != 0
        assert np.corrcoef(wanted[inside], seen[inside])[0, 1] > 0.97


def test_a_scan_that_nobody_reconstructed_says_where_to_begin_to_look(web: TestClient, house: Populated) -> None:
    found = _as(web, house, "member").get(f"/api/v1/datasets/{house.raw.id}/tomography/center?row=1").json()
    assert abs(found["center"] - AXIS) < 3 * found["sigma"] < 3
    assert (
        _as(web, house, "member").get(f"/api/v1/datasets/{house.raw.id}/tomography/center?row=9").status_code
        == 404
    )


@pytest.mark.parametrize("asked", ["row=0&center=99", "row=0&center=nan", "row=0", "row=0" + "&center=9" * 33])
def test_a_centre_that_cannot_be_is_refused(web: TestClient, house: Populated, asked: str) -> None:
    answer = _as(web, house, "member").get(f"/api/v1/datasets/{house.raw.id}/tomography/centers?{asked}")
    assert answer.status_code == 422


def test_the_difference_to_itself_is_white_and_sizes_that_differ_are_refused(
    web: TestClient, house: Populated
) -> None:
    same = _picture(web, house, f"{house.result.id}/tomography/minus/{house.result.id}/xy/1.png?span=1")
    assert np.ptp(same) < 3
    assert same.mean() > 240
    member = _as(web, house, "member")
    answer = member.get(f"/api/v1/datasets/{house.result.id}/tomography/minus/{house.raw.id}/xy/1.png?span=1")
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("end", "status"),
    [("sinogram/4", 404), ("xy/0", 404), ("up/0", 422)],
)
def test_a_plane_that_is_not_there_says_so(web: TestClient, house: Populated, end: str, status: int) -> None:
    member = _as(web, house, "member")
    answer = member.get(f"/api/v1/datasets/{house.raw.id}/tomography/{end}.png?row=0")
    assert answer.status_code == status
    assert str(house.facility.config.root) not in answer.text


def test_a_picked_centre_begins_a_run_like_the_last(web: TestClient, house: Populated) -> None:
    path = f"/datasets/{house.raw.id}/tomography/center"
    assert _as(web, house, "stranger").post(path, data={"center": "24.5"}).status_code == 404
    assert _as(web, house, "collaborator").post(path, data={"center": "24.5"}).status_code == 403
    assert (
        "Reconstruct with" not in _as(web, house, "collaborator").get(f"/datasets/{house.raw.id}/tomography").text
    )
    member = _as(web, house, "member")
    assert member.post(path, data={"center": "left"}).status_code == 422
    answer = member.post(path, data={"center": "24.5"})
    assert answer.status_code == 303
    run = house.facility.catalog.view(SERVICE).run(answer.headers["location"].rpartition("/")[2])
    assert (run.dataset_id, run.technique, run.params["center"]) == (house.raw.id, "tomography", 24.5)


@pytest.mark.browser
def test_the_cross_moves_the_other_planes(page: Page, server: Server) -> None:
    page.goto(f"/datasets/{server.result_id}/tomography")
    expect(page.locator("[data-planes]")).to_have_attribute("data-ready", "yes")
    frame = page.locator("[data-plane=xy] .frame-of")
    box = frame.bounding_box()
    assert box is not None
    frame.click(position={"x": (10 + 0.5) / 48 * box["width"], "y": (30 + 0.5) / 48 * box["height"]})
    expect(page.locator("[data-plane=zy] output")).to_have_text("10 / 47")
    expect(page.locator("[data-plane=xz] output")).to_have_text("30 / 47")
    expect(page.locator("[data-plane=xz] img")).to_have_attribute("src", re.compile(r"/xz/30\.png"))
    frame.press("PageDown")
    expect(page.locator("[data-plane=xy] output")).to_have_text("3 / 3")
    frame.press("ArrowLeft")
    expect(page.locator("[data-plane=zy] output")).to_have_text("9 / 47")
    before = page.locator("[data-levels]").text_content() or ""
    page.locator("input[name=high]").fill("300")
    expect(page.locator("[data-levels]")).not_to_have_text(before)


@pytest.mark.browser
def test_candidate_centres_are_picked_with_the_keys(page: Page, server: Server) -> None:
    page.goto(f"/datasets/{server.raw_id}/tomography")
    page.locator("input[name=around]").fill("30")
    page.click("text=Show slices")
    expect(page.locator("[role=radio]")).to_have_count(9, timeout=60_000)
    expect(page.locator("[role=radio][aria-checked=true]")).to_have_text("30")
    page.locator("[role=radio][aria-checked=true]").press("ArrowRight")
    expect(page.locator("[data-picked]")).to_have_text("31")
    expect(page.locator("form input[name=center]")).to_have_value("31")
    expect(page.locator("[role=radio] img").last).to_have_js_property("naturalWidth", 48, timeout=60_000)
