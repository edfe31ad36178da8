"""The simulated beamline measures what it says it does."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from lightkeep import formats
from lightkeep.testing.beamline import Truth, paced, simulate_tomography
from lightkeep.testing.samples import concrete

SMALL = {"size": 64, "rows": 8, "angles": 40, "flats": 6, "darks": 4}


class Noon:
    """A clock that stands still."""

    def now(self) -> datetime:
        return datetime(2026, 11, 22, 12, tzinfo=UTC)


def simulate(path: Path, **changes: object) -> Truth:
    return simulate_tomography(path, **(SMALL | {"clock": Noon()} | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return simulate(tmp_path_factory.mktemp("beamline") / "scan.h5", i0=5e4)


def test_the_scan_is_a_data_exchange_file_with_its_metadata(truth: Truth) -> None:
    found = formats.inspect(truth.path)
    assert (found.format, found.technique) == ("data-exchange", "tomography")
    assert found.arrays["projections"] == ((40, 8, 64), "uint16")
    assert found.arrays["flats"][0][0] == 6
    assert found.arrays["darks"][0][0] == 4
    assert {"energy", "pixel_size", "exposure_time", "distance"} <= set(found.metadata.quantities)
    assert found.metadata.texts["start_time"] == "2026-11-22T12:00:00+00:00"
    assert found.metadata.texts["sample"].startswith("Concrete")
    assert "notes" not in found.metadata.rest


def test_minus_log_of_the_transmission_is_the_line_integral_of_the_truth(truth: Truth) -> None:
    with formats.get("data-exchange").open(truth.path) as source:
        arrays = {role: np.asarray(array[...], float) for role, array in source.arrays.items()}
    dark, flat = arrays["darks"].mean(axis=0), arrays["flats"].mean(axis=0)
    measured = -np.log((arrays["projections"] - dark) / (flat - dark))
    expected = truth.phantom.projections(truth.theta_deg, columns=64, rows=8, center=truth.center)
    noise = np.sqrt((1 + 1 / 6) * np.exp(expected.max()) / 2e4)  # photons, in the darkest part of beam and sample
    assert np.sqrt(np.mean((measured - expected) ** 2)) < 1.5 * noise
    assert abs(np.mean(measured - expected)) < 0.01
    np.testing.assert_allclose(arrays["theta_deg"], truth.theta_deg)
    assert truth.center == 31.5 + 7.3


def test_the_sample_is_seen_whole_from_all_sides(truth: Truth, tmp_path: Path) -> None:
    seen = truth.phantom.projections(truth.theta_deg, columns=64, rows=8, center=truth.center)
    assert not seen[:, :, [0, -1]].any()
    with pytest.raises(ValueError, match="no room"):
        simulate(tmp_path / "other.h5", center_offset=40.0)


def test_the_same_seed_measures_the_same_and_another_does_not(tmp_path: Path) -> None:
    contents = [simulate(tmp_path / f"{n}.h5", seed=seed, angles=3).path for n, seed in enumerate([3, 3, 4])]
    frames = []
    for path in contents:
        with formats.get("data-exchange").open(path) as source:
            frames.append(source.arrays["projections"][...])
    np.testing.assert_array_equal(frames[0], frames[1])
    assert (frames[0] != frames[2]).mean() > 0.5


def test_the_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path, seen = tmp_path / "scan.h5", []
    simulate(path, report=lambda share, _what: seen.append((share, path.exists())))
    assert [share for share, _ in seen] == [pytest.approx(n / 40) for n in range(1, 41)]
    assert not any(there for _, there in seen)
    assert [each.name for each in tmp_path.iterdir()] == ["scan.h5"]


def test_frames_come_at_the_rate_asked_for() -> None:
    started = time.monotonic()
    assert list(paced(range(21), 200.0)) == list(range(21))
    assert 0.1 <= time.monotonic() - started < 1.0


def test_the_concrete_has_voids_grains_and_a_crack_and_nothing_below_zero() -> None:
    volume = concrete(np.random.default_rng(0)).slices(128, rows=3)
    inside = volume[1, 34:94, 34:94]
    assert volume.min() > -1e-3
    assert volume.max() > 1.5
    assert 0.005 < (inside < 0.1).mean() < 0.3
    assert (inside > 0.65).mean() > 0.2


def test_half_acquisition_measures_a_sample_wider_than_the_detector(tmp_path: Path) -> None:
    found = simulate(tmp_path / "half.h5", turn_deg=360.0, center_offset=22.0, order="golden")
    assert found.theta_deg.max() > 300
    assert found.slices().shape == (8, 108, 108)
    seen = found.phantom.projections(found.theta_deg, columns=64, rows=8, center=found.center)
    assert seen[:, :, -1].any()  # the near edge cuts the sample
    assert not found.slices()[:, [0, -1]].any()
    with pytest.raises(ValueError, match="neither 180 nor 360"):
        simulate(tmp_path / "other.h5", turn_deg=90.0)
