"""A real server with a real worker behind it, and a real Chromium before it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from html import unescape
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, expect, sync_playwright
from starlette.testclient import TestClient

from lightkeep.lifecycle.people import sign_in
from lightkeep.lifecycle.people.sign_in import COOKIE
from lightkeep.model.people import Principal
from lightkeep.testing.beamline import simulate_tomography
from lightkeep.testing.correlated import add_correlation
from lightkeep.testing.populated import EXPERIMENT, PASSWORD, Populated, populate
from lightkeep.testing.retained import Retained, retained
from lightkeep.testing.served import Server

As = Callable[[Principal | None], TestClient]
"""Gives a browser in which somebody is signed in."""

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--enable-unsafe-swiftshader",
]


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A facility that is not served yet, and what is in it."""
    root = tmp_path_factory.mktemp("served")
    made = populate(root)
    slow = _slow_scan(made, root)
    curves = tuple(each.id for each in add_correlation(made, root / "xpcs").runs)
    made.close()
    config = made.facility.config.root / "lightkeep.toml"
    config.write_text('root = "."\n[engine]\nname = "inline"\n')
    return Server("", config, made.raw.id, made.result.id, slow, curves)


@pytest.fixture(scope="module")
def server(filled: Server) -> Iterator[Server]:
    """Serve the facility as `lightkeep serve` does, from a process of its own.

    It ends with the tests of a module: a worker that waits for work takes time from the tests of the others.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", "lightkeep.asgi:create", "--port", str(port)]
    environment = os.environ | {"LIGHTKEEP_CONFIG": str(filled.config)}
    process = subprocess.Popen([*command, "--timeout-graceful-shutdown", "1"], env=environment)
    try:
        _wait_for(port, process)
        yield replace(filled, address=f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)


def _slow_scan(made: Populated, root: Path) -> str:
    from lightkeep.lifecycle.intake.ingest import ingest
    from lightkeep.model.people import SERVICE

    scan = simulate_tomography(root / "slow.h5", size=160, rows=32, angles=90, flats=2, darks=2).path
    return ingest(made.facility, scan, experiment_id=EXPERIMENT, principal=SERVICE, quiet_s=0.0).dataset.id


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("the server did not start")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return a Chromium."""
    if _CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def signed_in(browser: Browser, server: Server) -> Iterator[BrowserContext]:
    """Return a window in which the principal investigator has signed in, by hand."""
    context = browser.new_context(base_url=server.address)
    page = context.new_page()
    page.goto(f"/datasets/{server.result_id}")
    page.fill("input[name=user]", "pi")
    page.fill("input[name=password]", PASSWORD)
    page.click("text=Sign in")
    expect(page).to_have_url(f"{server.address}/datasets/{server.result_id}")
    yield context
    context.close()


@pytest.fixture
def page(signed_in: BrowserContext) -> Iterator[Page]:
    """Return the window's page; the test fails when its console shows an error, pictures that are not there apart.

    The tests of a module share it: a page of its own for each costs two processes and a cold compiler.
    """
    (opened,) = signed_in.pages
    opened.set_viewport_size({"width": 1280, "height": 900})
    opened.mouse.move(0, 0)
    wrong: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.location.get("url", "").endswith("/thumbnail.png"):
            wrong.append(message.text)

    def note(error: Error) -> None:
        wrong.append(str(error))

    opened.on("pageerror", note)
    opened.on("console", listen)
    yield opened
    found = list(wrong)
    opened.goto("/stations")  # a quiet page: nothing of this test goes on in the next
    opened.remove_listener("pageerror", note)
    opened.remove_listener("console", listen)
    assert not found


SCAN = {"a.h5": b"a" * 1500, "b.h5": b"b" * 2000}
FLAT = {"c.h5": b"c" * 500}


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Retained]:
    """An experiment past its three months: all of it may leave `central` now."""
    made = retained(tmp_path, capacity=5_000)
    settings = replace(made.facility.config.purge, max_fraction=1.0)
    made.facility = replace(made.facility, config=replace(made.facility.config, purge=settings))
    made.dataset("scan", SCAN)
    made.dataset("flat", FLAT, on=("central", "vault"))
    made.close()
    made.clock.at += timedelta(days=100)
    made.told()
    made.verified()
    made.trust_clock()
    yield made
    made.facility.close()


@pytest.fixture
def as_(kept: Retained) -> Iterator[As]:
    """A function that gives a browser in which somebody is signed in."""
    from lightkeep.asgi import compose
    from lightkeep.workflow import open_workflow

    with open_workflow(kept.facility, work=False) as orchestrator:
        app = compose(kept.facility, orchestrator)

        def browser(who: Principal | None) -> TestClient:
            cookies = {COOKIE: sign_in.new_api_token(kept.facility, who.id, label="test")} if who else {}
            origin = {"Origin": "http://testserver"}
            return TestClient(app, cookies=cookies, headers=origin, follow_redirects=False)

        yield browser


def read(page: str) -> str:
    """Return a page as it is read: without its tags, with single spaces."""
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", page.split("<main", 1)[1])).split())
    return re.sub(r" (?=[.,;)])|(?<=\() ", "", text)
