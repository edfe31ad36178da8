"""The portal in a real Chromium, with a real server and a real worker behind it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from lightkeep.testing.correlated import EXPERIMENT as COLLOIDS
from lightkeep.testing.populated import EXPERIMENT
from lightkeep.testing.served import Server

pytestmark = pytest.mark.browser


def _brightness(page: Page, selector: str) -> float:
    """Return the mean brightness, 0 to 1, of a picture that is on the page."""
    script = """async (image) => {
        await image.decode();
        const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
        const context = canvas.getContext('2d');
        context.drawImage(image, 0, 0);
        const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
        return data.reduce((sum, each, at) => sum + (at % 4 === 3 ? 0 : each), 0) / (data.length * 0.75) / 255;
    }"""
    return float(page.locator(selector).first.evaluate(script))


def test_the_slice_is_there_and_the_scrubber_moves_through_the_stack(page: Page, server: Server) -> None:
    page.goto(f"/datasets/{server.result_id}")
    middle = _brightness(page, ".image img")
    page.locator("input[type=range]").fill("3")
    expect(page.locator("output")).to_have_text("4 / 4")
    expect(page.locator(".image img")).to_have_attribute("src", re.compile(r"/preview/3\.png"))
    assert _brightness(page, ".image img") > middle > 0.1  # the disc of the last slice is larger


def test_a_click_enlarges_the_picture_and_another_closes_it(page: Page, server: Server) -> None:
    page.goto(f"/datasets/{server.result_id}")
    page.click(".figure .image")
    expect(page.locator("dialog")).to_be_visible()
    page.click("dialog")
    expect(page.locator("dialog")).to_be_hidden()


def test_a_run_is_asked_for_followed_live_and_leads_to_its_slice(page: Page, server: Server) -> None:
    page.goto(f"/datasets/{server.slow_id}")
    page.click("text=Reconstruct")
    expect(page.locator("input[name=center]")).to_have_attribute("placeholder", "derived from the data")
    page.click("button:has-text('Reconstruct')")
    page.wait_for_url("**/runs/run_*")
    expect(page.locator("text=Open the result")).to_be_visible(timeout=120_000)  # without a reload
    assert _brightness(page, ".image img") > 0.05
    page.click("text=Open the result")
    expect(page.locator("h1")).to_contain_text("slow")


def test_a_queued_run_is_cancelled_from_its_page(page: Page, server: Server) -> None:
    page.goto(f"/datasets/{server.slow_id}/process/tomography")
    fold = page.locator("summary:has-text('Filter and iterations')")
    fold.click()
    page.fill("input[name=pad]", "9")
    fold.click()
    page.click("button:has-text('Reconstruct')")
    expect(page.locator("input[name=pad]")).to_be_visible()  # unfolds: 4 is the most
    page.fill("input[name=pad]", "4")
    page.click("button:has-text('Reconstruct')")
    page.wait_for_url("**/runs/run_*")
    page.click("text=Cancel the run")
    expect(page.locator(".state").first).to_have_text("cancelled")


def test_the_viewer_shows_the_data(page: Page, server: Server) -> None:
    page.goto(f"/datasets/{server.result_id}/view")
    frame = page.frame_locator("iframe")
    expect(frame.locator("text=entry").first).to_be_visible()
    expect(frame.locator("canvas").first).to_be_visible(timeout=20_000)
    expect(frame.locator("figcaption, [class*=title]").filter(has_text="attenuation").first).to_be_visible()


def test_slash_leads_to_the_search_and_typing_finds(page: Page) -> None:
    page.goto("/find")
    page.locator("h1").click()
    page.keyboard.press("/")
    page.keyboard.type("name:slow*")
    expect(page.locator("#found .row .name").first).to_contain_text("slow")
    expect(page.locator("#found")).not_to_contain_text("core-tomography")


def test_an_id_is_copied_with_one_click(page: Page, server: Server, signed_in: BrowserContext) -> None:
    signed_in.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"/datasets/{server.result_id}")
    page.click("button.copy")
    expect(page.locator("button.copy.done")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == server.result_id


_PAGES = ["/", "/find", "/experiments", f"/experiments/{EXPERIMENT}", "/runs", "/stations", "/storage"]
_TABS = ["", "/view", "/results", "/files", "/metadata", "/provenance", "/safety", "/process/tomography"]

_CONTRAST = """() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const part = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    const ground = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const colour = parse(getComputedStyle(each).backgroundColor);
            if (colour.length < 4 || colour[3] > 0.99) return colour;
        }
        return [255, 255, 255];
    };
    const faint = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
        if (element.closest('template, svg, option')) continue;
        const a = light(parse(getComputedStyle(element).color)), b = light(ground(element));
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${walker.currentNode.textContent.trim().slice(0, 40)}`);
    }
    return faint;
}"""


@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_fits_and_can_be_read(
    browser: Browser, signed_in: BrowserContext, server: Server, width: int
) -> None:
    context = browser.new_context(
        base_url=server.address,
        viewport={"width": width, "height": 844},
        reduced_motion="reduce",
        storage_state=signed_in.storage_state(),
    )
    page = context.new_page()
    addresses = _PAGES + [f"/datasets/{server.raw_id}{tab}" for tab in _TABS]
    addresses += [f"/datasets/{server.curves[0]}", f"/experiments/{COLLOIDS}/average?result={server.curves[0]}"]
    for number, address in enumerate(addresses):
        page.goto(address)
        grounds = set()
        for scheme in ("dark", "light") if number % 2 else ("light", "dark"):  # as it was loaded, then the other
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (address, scheme)
            assert page.evaluate(_CONTRAST) == [], (address, scheme)
            grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(grounds) == 2, address
    context.close()


def test_the_theme_that_was_chosen_stays(page: Page) -> None:
    page.goto("/stations")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert after != before
    page.goto("/storage")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == after
    page.evaluate("localStorage.clear()")


def test_the_page_works_without_scripts(browser: Browser, signed_in: BrowserContext, server: Server) -> None:
    state = signed_in.storage_state()
    context = browser.new_context(base_url=server.address, java_script_enabled=False, storage_state=state)
    page = context.new_page()
    page.goto(f"/datasets/{server.raw_id}/process/tomography")
    page.click("button:has-text('Reconstruct')")
    page.wait_for_url("**/runs/run_*")
    context.close()
