"""The technique of docs/how-to/add-a-technique.md works as it stands there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lightkeep.model.formats import Source
from lightkeep.testing.suites.technique import TechniqueSuite, source_of

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-technique.md"
FRAMES = np.random.default_rng(1).poisson(40, (6, 4, 5))


class TestBrightest(TechniqueSuite):
    name = "brightest"

    @pytest.fixture(autouse=True)
    def _installed(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path_factory.mktemp("site")
        code, entry = re.findall(r"```(?:python|toml)\n(.*?)```", PAGE.read_text(), re.DOTALL)[:2]
        (folder / "mylab").mkdir()
        (folder / "mylab" / "brightest.py").write_text(code)
        record = folder / "mylab-1.dist-info"
        record.mkdir()
        (record / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 1\n")
        name, module = re.findall(r'^(\w+) = "([\w.]+)"', entry, re.MULTILINE)[0]
        (record / "entry_points.txt").write_text(f"[lightkeep.techniques]\n{name} = {module}\n")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    def example(self, folder: Path) -> Source:
        return source_of(folder, frames=FRAMES)

    def unusable(self, folder: Path) -> Sequence[Source]:
        return [source_of(folder, projections=FRAMES)]

    def test_it_finds_the_brightest_value(self, tmp_path: Path) -> None:
        source = self.example(tmp_path)
        outputs = self.compute(source, self.preflight(source), [(0, 4), (4, 6)])
        np.testing.assert_array_equal(outputs["brightest"], FRAMES.max(axis=0))
