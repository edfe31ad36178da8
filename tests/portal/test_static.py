"""What is committed of the front end."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lightkeep.portal.page import STATIC

FRONTEND = Path(__file__).parents[2] / "frontend"


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((FRONTEND / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]


def test_the_viewer_has_fixed_names_and_carries_its_licences() -> None:
    names = {path.name for path in (STATIC / "viewer").iterdir()}
    assert names == {"index.html", "viewer.js", "viewer.css", "LICENSES.txt"}
    licences = (STATIC / "viewer" / "LICENSES.txt").read_text()
    assert all(f"{name} " in licences for name in ("@h5web/app", "react", "three"))
    assert (STATIC / "vendor" / "htmx.LICENSE.txt").is_file()
    assert "Open Font License" in (STATIC / "fonts" / "LICENSE.txt").read_text()


def test_the_vendored_htmx_is_the_pinned_one() -> None:
    pinned = json.loads((FRONTEND / "package.json").read_text())["dependencies"]["htmx.org"]
    assert f'version:"{pinned}"' in (STATIC / "vendor" / "htmx.min.js").read_text()


def test_the_vendored_plotly_is_the_pinned_one_and_carries_its_licence() -> None:
    pinned = json.loads((FRONTEND / "package.json").read_text())["dependencies"]["plotly.js-cartesian-dist-min"]
    with (STATIC / "vendor" / "plotly.min.js").open() as script:
        assert f"plotly.js (cartesian - minified) v{pinned}" in script.read(200)
    assert "MIT" in (STATIC / "vendor" / "plotly.LICENSE.txt").read_text()


def test_every_colour_is_a_token() -> None:
    sheet = (STATIC / "portal.css").read_text()
    drawn = re.sub(r"\.strip\.\w+ \{[^}]*\}", "", sheet)  # colour maps are data
    assert set(re.findall(r"#[0-9a-f]{3,8}\b", drawn)) <= {"#000", "#fff"}
