"""The page of a correlation result, the average of runs and a live run, in a real Chromium."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from lightkeep.config import load
from lightkeep.facility import Facility, open_facility
from lightkeep.lifecycle.acquisitions import live
from lightkeep.lifecycle.processing import process
from lightkeep.lifecycle.processing.scratch import Scratch
from lightkeep.model.people import Principal
from lightkeep.testing.correlated import BINS, EXPERIMENT
from lightkeep.testing.served import Server
from lightkeep.testing.xpcs_results import SHAPE

pytestmark = pytest.mark.browser

FIGURES = ("g2", "image", "law", "saxs", "map", "cuts", "intensity", "spectrum")


@pytest.fixture
def result(page: Page, server: Server) -> Page:
    """Return the page of a result, drawn."""
    page.goto(f"/datasets/{server.curves[0]}")
    expect(page.locator("[data-xpcs]")).to_have_attribute("data-ready", "yes", timeout=30_000)
    return page


def _data(page: Page, figure: str) -> list[dict[str, Any]]:
    """Return what a figure has drawn."""
    script = """(each) => each.data.map(({ type, mode, name, opacity, x, y, z }) => (
        { type, mode, name, opacity, x: [...x ?? []], y: [...y ?? []], rows: z?.length ?? 0 }))"""
    found: list[dict[str, Any]] = page.locator(f"[data-plot={figure}] .canvas").evaluate(script)
    return found


def test_every_figure_is_drawn_and_the_answer_stands_on_top(result: Page) -> None:
    for name in FIGURES:
        expect(result.locator(f"[data-plot={name}]")).to_have_attribute("data-ready", "yes")
        assert result.locator(f"[data-plot={name}] .main-svg").count() > 0
    expect(result.locator("[data-answer]")).to_contain_text("5 of 6 bins fitted by a single exponential")
    expect(result.locator("[data-answer]")).to_contain_text("as diffusion has it")
    expect(result.locator(".flags")).to_have_text(["2 frames were left out."])


def test_a_fit_that_is_not_good_is_drawn_apart_and_says_why(result: Page) -> None:
    assert [len(each["x"]) for each in _data(result, "law")[:2]] == [5, 1]
    row = result.locator(".fits tbody tr").first
    expect(row).to_contain_text("the decay is outside of the measured delays")
    row.click()
    expect(result.locator("[data-plot=g2] .says")).to_contain_text("fit not used")


def test_a_click_on_the_image_chooses_the_bin_everywhere(result: Page) -> None:
    box = result.locator("[data-plot=image] .nsewdrag").bounding_box()
    assert box is not None
    row, column = 11, 30  # near the right edge, far from the beam
    result.mouse.click(
        box["x"] + (column + 0.5) / SHAPE[1] * box["width"], box["y"] + (row + 0.5) / SHAPE[0] * box["height"]
    )
    chosen = result.locator("[name=bin]").input_value()
    assert chosen != ""
    bright = {each["name"].split(",")[0] for each in _data(result, "g2") if each["opacity"] == 1}
    assert bright == {f"bin {int(chosen) + 1}"}
    expect(result.locator(".fits tr[aria-selected=true] td").first).to_have_text(str(int(chosen) + 1))


def test_the_two_time_map_follows_the_bin_where_it_has_one(result: Page) -> None:
    says = result.locator("[data-plot=map] .says")
    expect(says).to_contain_text(f"bin {BINS[0]},")
    result.select_option("[name=bin]", str(BINS[1] - 1))
    expect(says).to_contain_text(f"bin {BINS[1]},")
    result.select_option("[name=bin]", "1")
    expect(says).to_contain_text("Bin 2 has none")


def test_a_click_on_the_two_time_map_moves_a_cut_there(result: Page) -> None:
    before = [each["name"] for each in _data(result, "cuts")]
    result.locator("[data-plot=map] .nsewdrag").click(position={"x": 20, "y": 200})
    expect(result.locator("[data-plot=cuts] .legendtext").first).not_to_have_text(before[0])
    assert len(_data(result, "cuts")) == len(before)


def test_another_model_is_fitted_by_the_server(result: Page) -> None:
    result.select_option("[name=model]", "stretched")
    expect(result.locator("[data-answer]")).to_contain_text("stretched exponential", timeout=60_000)
    expect(result.locator(".fits thead")).to_contain_text("stretch")


def test_small_multiples_have_a_frame_for_each_bin(result: Page) -> None:
    result.select_option("[name=layout]", "grid")
    expect(result.locator("[data-plot=g2] .subplot")).to_have_count(6)


def test_figures_are_saved_as_png_svg_and_table(result: Page, tmp_path: Path) -> None:
    for name in ("g2", "image"):
        for kind, start in (("png", b"\x89PNG"), ("svg", b"<svg"), ("csv", b"")):
            result.click(f"[data-plot={name}] summary")
            with result.expect_download() as waiting:
                result.click(f"[data-plot={name}] [data-save={kind}]")
            file = tmp_path / waiting.value.suggested_filename
            waiting.value.save_as(file)
            assert file.suffix == f".{kind}"
            assert file.read_bytes().startswith(start)
            if kind == "csv":
                rows = list(csv.reader(io.StringIO(file.read_text())))
                drawn = [each for each in _data(result, name) if each["mode"] == "markers" and each["name"]]
                assert rows[0][-1] == ("error" if name == "g2" else "counts / pixel / frame")
                assert len(rows) > sum(len(each["x"]) for each in drawn if name == "g2")


def test_a_figure_is_enlarged_and_closed_again(result: Page) -> None:
    result.click("[data-plot=law] [data-enlarge]")
    expect(result.locator("dialog.plot-dialog .main-svg").first).to_be_visible()
    result.keyboard.press("Escape")
    expect(result.locator("dialog.plot-dialog")).to_have_count(0)


def test_the_figures_turn_dark_with_the_page(result: Page) -> None:
    script = "(each) => each._fullLayout.paper_bgcolor"
    canvas = result.locator("[data-plot=g2] .canvas")
    before = canvas.evaluate(script)
    result.click("#theme")
    page_colour = "getComputedStyle(document.documentElement).getPropertyValue('--paper').trim()"
    result.wait_for_function(f"({script})(document.querySelector('[data-plot=g2] .canvas')) === {page_colour}")
    assert canvas.evaluate(script) != before
    result.evaluate("localStorage.clear()")


def test_only_pages_that_plot_load_the_plotting_library(page: Page, server: Server) -> None:
    for address, is_there in ((f"/datasets/{server.result_id}", False), (f"/datasets/{server.curves[0]}", True)):
        page.goto(address)
        assert (page.locator("script[src*=plotly]").count() == 1) is is_there


def test_an_average_says_which_run_was_left_out_and_why(page: Page, server: Server) -> None:
    chosen = "&".join(f"result={each}" for each in server.curves)
    page.goto(f"/experiments/{EXPERIMENT}/average?{chosen}")
    expect(page.locator("[data-answer]")).to_contain_text("3 of 4 runs averaged", timeout=30_000)
    expect(page.locator(f"[data-run-of={server.curves[-1]}] [data-why]")).to_contain_text("left out: ")
    assert len(_data(page, "runs")) == 4
    page.select_option("[name=outliers]", "none")
    page.click("button:has-text('Average')")
    expect(page.locator("[data-answer]")).to_contain_text("4 of 4 runs averaged", timeout=30_000)


def test_runs_to_average_are_chosen_in_a_list(page: Page, server: Server) -> None:
    page.goto(f"/datasets/{server.curves[0]}")
    page.click("text=Average with others")
    boxes = page.locator("[name=result]")
    expect(boxes).to_have_count(4)
    assert [each.is_checked() for each in boxes.all()].count(True) == 1


@pytest.fixture
def facility(server: Server) -> Iterator[Facility]:
    """Return the server's facility, opened beside it as `lightkeep live` does."""
    with open_facility(load(server.config)) as opened:
        yield opened


def _snapshot(frames: int) -> dict[str, Any]:
    tau = [0.001 * each for each in range(1, 8)]
    outputs = {"tau": tau, "tau_unit": "s", "q": [0.01, 0.02], "static_q": [0.01, 0.02], "saxs_1d": [2.0, 1.0]}
    outputs |= {"g2": [[1.2, 1.1]] * 7, "g2_err": [[0.01, None]] * 7, "flags": ["3 pixels are saturated"]}
    outputs |= {"intensity": [1.0] * frames, "intensity_frames": list(range(frames))}
    outputs |= {"saxs_2d": [[1.0, 2.0], [3.0, None]]}
    return {"frames": frames, "planned": 100, "rate_hz": 50.0, "latency_s": 0.4, "outputs": outputs}


def test_the_curves_of_a_live_run_follow_its_frames(page: Page, facility: Facility, tmp_path: Path) -> None:
    run = live.request(
        facility, tmp_path / "run.h5", "xpcs", experiment_id=EXPERIMENT, principal=Principal("station-manager")
    )
    place = process.folder_of(facility, run.id) / "snapshot.json"
    page.goto(f"/runs/{run.id}")
    expect(page.locator("[data-answer]")).to_have_text("Waiting for the first frames.")
    for frames in (20, 40):
        place.with_suffix(".new").write_text(json.dumps(_snapshot(frames)))
        place.with_suffix(".new").replace(place)
        expect(page.locator("[data-live]")).to_have_attribute("data-frames", str(frames))
        assert len(_data(page, "intensity")[0]["x"]) == frames
    expect(page.locator("[data-answer]")).to_have_text("3 pixels are saturated")
    page.click("text=Stop, keep the result")
    page.wait_for_load_state()
    assert Scratch(place.parent).is_asked_to_stop()


def test_who_asks_for_less_motion_sees_the_curves_change_less_often(
    browser: Browser, signed_in: BrowserContext, server: Server, facility: Facility, tmp_path: Path
) -> None:
    run = live.request(
        facility, tmp_path / "run.h5", "xpcs", experiment_id=EXPERIMENT, principal=Principal("station-manager")
    )
    context = browser.new_context(
        base_url=server.address, reduced_motion="reduce", storage_state=signed_in.storage_state()
    )
    page = context.new_page()
    asked: list[str] = []
    live_of_the_run = f"/api/v1/runs/{run.id}/live"
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_response(f"**{live_of_the_run}"):
        page.goto(f"/runs/{run.id}")
    page.wait_for_timeout(2500)
    assert len([address for address in asked if address.endswith(live_of_the_run)]) == 1
    context.close()
