"""The simulated XPCS beamline measures what it says it does, in every detector's files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeep import formats
from lightkeep.analysis import xpcs
from lightkeep.formats.qmap import read_qmap
from lightkeep.testing.beamline import XPCS_FORMATS, Colloid, XpcsTruth, simulate_xpcs

SMALL = (48, 96)
FORMATS = {"rigaku": "rigaku", "rigaku-3m": "rigaku", "imm": "imm", "imm-sparse": "imm", "hdf5": "eiger",
           "eiger": "eiger", "events": "events"}  # fmt: skip


def measure(folder: Path, **changes: Any) -> XpcsTruth:
    values: dict[str, Any] = {"format": "hdf5", "shape": SMALL, "frames": 40, "rings": (4, 8)}
    if changes.get("format") in ("rigaku", "rigaku-3m"):
        values["shape"] = None
    return simulate_xpcs(folder, **(values | changes))


def test_every_format_that_it_writes_is_tested() -> None:
    assert set(FORMATS) == set(XPCS_FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_the_files_hold_the_frames_of_the_truth_and_its_metadata(name: str, tmp_path: Path) -> None:
    truth = measure(tmp_path / "run_7", format=name, frames=6 if name == "rigaku-3m" else 40)
    found = formats.inspect(truth.path, within=truth.path.parent)
    assert (found.format, found.technique) == (FORMATS[name], "xpcs")
    assert found.arrays["frames"][0] == truth.speckle.shape
    quantities = {key: value.value for key, value in found.metadata.quantities.items()}
    assert quantities["frame_time"] == pytest.approx(1e-3)
    assert quantities["energy"] == 10.9
    assert quantities["frames"] == truth.speckle.n_frames
    assert found.metadata.texts["qmap_file"] == "run_7_qmap.hdf"
    assert "frames_differ" not in found.metadata.rest
    with formats.get(found.format).open(truth.path) as source:
        np.testing.assert_array_equal(source.arrays["frames"][:], truth.speckle.frames())


def test_the_qmap_file_holds_the_bins_of_the_truth(tmp_path: Path) -> None:
    truth = measure(tmp_path / "run")
    found = read_qmap(truth.qmap_path)
    np.testing.assert_array_equal(found.dynamic, truth.qmap.dynamic)
    np.testing.assert_array_equal(found.static, truth.qmap.static)
    np.testing.assert_allclose(found.dynamic_q, truth.qmap.dynamic_q)
    assert found.n_dynamic == 4
    assert found.n_static == 8
    assert not found.mask[~truth.speckle.works].any()


@pytest.mark.parametrize("diffusion", [None, 4e4])
def test_the_sample_diffuses(diffusion: float | None, tmp_path: Path) -> None:
    truth = measure(tmp_path / "run", colloid=Colloid(diffusion=diffusion), frames=2)
    np.testing.assert_allclose(truth.gamma, truth.diffusion * truth.qmap.dynamic_q**2)
    assert diffusion is None or truth.diffusion == diffusion
    assert 0.002 < truth.speckle.rates[0] < truth.speckle.rates[-1] < 1


def test_correlating_the_files_finds_the_truth(tmp_path: Path) -> None:
    truth = measure(
        tmp_path / "run",
        shape=(96, 192),
        frames=400,
        colloid=Colloid(photons=1.0, static=0.1, drift=0.4, ageing=0.5),
    )
    with formats.get("eiger").open(truth.path) as source:
        result = xpcs.multitau(
            source.arrays["frames"], truth.qmap, frame_time_s=source.metadata.quantities["frame_time"].value_si
        )
    short = result.tau < 0.05
    off = (result.g2 - truth.expected_g2(result.tau))[short] / result.g2_err[short]
    assert np.abs(off).max() < 6
    assert np.sqrt(np.mean(off**2)) < 2
    np.testing.assert_allclose(result.saxs_1d, truth.speckle.expected_saxs_1d(truth.qmap.static), rtol=0.1)
    with pytest.raises(ValueError, match="no delay of 9 frames"):
        truth.expected_g2([9e-3])


@pytest.mark.parametrize("name", ["imm", "imm-sparse"])
def test_live_frames_come_at_the_rate_of_the_detector_and_are_the_same(name: str, tmp_path: Path) -> None:
    seen: list[tuple[float, int]] = []
    path = tmp_path / "run" / "run.imm"

    def report(share: float, _what: str) -> None:
        seen.append((share, path.stat().st_size))

    started = time.monotonic()
    measure(tmp_path / "run", format=name, frames=60, rate_hz=200.0, is_live=True, report=report)
    assert time.monotonic() - started >= 60 / 200
    assert [share for share, _ in seen] == sorted({share for share, _ in seen})
    sizes = [size for _, size in seen]
    assert len(set(sizes)) > 5
    assert sizes[-1] <= path.stat().st_size
    assert (
        path.read_bytes() == measure(tmp_path / "again", format=name, frames=60, rate_hz=200.0).path.read_bytes()
    )


def test_the_same_seed_measures_the_same_and_another_does_not(tmp_path: Path) -> None:
    paths = [measure(tmp_path / str(n), format="imm", seed=seed).path for n, seed in enumerate((3, 3, 4))]
    first, same, other = (path.read_bytes() for path in paths)
    assert first == same
    assert first != other


def test_lost_frames_are_empty_and_bad_pixels_are_masked(tmp_path: Path) -> None:
    truth = measure(tmp_path / "run", colloid=Colloid(lost=(3, 17), bad_pixels=9, photons=2.0))
    frames = truth.speckle.frames()
    good = truth.qmap.dynamic > 0
    assert not frames[[3, 17]][:, good].any()
    assert frames[4][good].any()
    assert (~truth.speckle.works).sum() == 9
    assert (frames == 65535).any(axis=0).sum() == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "tape"}, "none of rigaku"),
        ({"format": "rigaku", "shape": (64, 64)}, "512 x 1024"),
        ({"shape": (16, 400)}, "too few"),
        ({"rate_hz": 0.0}, "above 0"),
        ({"colloid": Colloid(drift=1.0)}, "below 1"),
        ({"rings": (4, 7)}, "multiples"),
    ],
)
def test_what_cannot_be_measured_leaves_nothing_behind(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=reason):
        measure(tmp_path / "run", **changes)
    assert not list(tmp_path.iterdir())


def test_a_run_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    before = measure(tmp_path / "run").path.read_bytes()
    with pytest.raises(FileExistsError, match=r"run\.h5 exists already"):
        measure(tmp_path / "run", seed=1)
    assert (tmp_path / "run" / "run.h5").read_bytes() == before
