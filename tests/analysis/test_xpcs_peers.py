"""Where definitions agree, the other programs' numbers come out: `references/make_xpcs_peers.py` noted them."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeep.analysis.xpcs import MultiTauResult, QMap, multitau

REFERENCES = Path(__file__).parent / "references"
MAKER = REFERENCES / "make_xpcs_peers.py"
FLOAT32 = 1e-6
"""boost-corr computes in float32."""


@pytest.fixture(scope="module")
def peers() -> dict[str, np.ndarray]:
    with np.load(REFERENCES / "xpcs_peers.npz") as found:
        return dict(found)


def ours(peers: dict[str, np.ndarray], **options: Any) -> MultiTauResult:
    return multitau(peers["frames"], QMap.from_labels(peers["dynamic"], peers["static"]), **options)


def test_boost_corr_has_the_same_delays_curves_and_errors(peers: dict[str, np.ndarray]) -> None:
    found = ours(peers)
    np.testing.assert_array_equal(found.tau_frames, peers["boost_tau"])
    np.testing.assert_allclose(found.g2, peers["boost_g2"], atol=FLOAT32)
    several = found.pairs > 1
    np.testing.assert_allclose(found.g2_err[several], peers["boost_g2_err"][several], atol=FLOAT32)


def test_boost_corr_has_the_same_static_scattering(peers: dict[str, np.ndarray]) -> None:
    found, used = ours(peers), peers["dynamic"] > 0
    np.testing.assert_allclose(found.saxs_2d[used], peers["boost_saxs_2d"][used], rtol=FLOAT32)
    np.testing.assert_allclose(found.saxs_1d, peers["boost_saxs_1d"], rtol=FLOAT32)


def test_the_intensity_is_of_the_used_pixels_where_boost_corr_takes_all(peers: dict[str, np.ndarray]) -> None:
    found, used = ours(peers), peers["dynamic"] > 0
    np.testing.assert_allclose(peers["boost_intensity"], peers["frames"].mean(axis=(1, 2)), rtol=FLOAT32)
    np.testing.assert_allclose(found.intensity, peers["frames"][:, used].mean(axis=1), rtol=1e-9)


def test_scikit_beam_has_the_same_delays_and_curves(peers: dict[str, np.ndarray]) -> None:
    found = ours(peers, scheme="sutton", normalise="pooled")
    np.testing.assert_array_equal(found.tau_frames, peers["skbeam_tau"])
    np.testing.assert_allclose(found.g2, peers["skbeam_g2"], atol=FLOAT32)


@pytest.mark.parametrize(("package", "function"), [("boost_corr", "boost_corr"), ("skbeam", "scikit_beam")])
def test_the_numbers_are_those_of_the_program_where_it_is_installed(
    peers: dict[str, np.ndarray], package: str, function: str
) -> None:
    pytest.importorskip(package, reason=f"{package} is a peer: its numbers are on record")
    labels = (peers["dynamic"].astype(int), peers["static"].astype(int))
    arguments = labels if function == "boost_corr" else labels[:1]
    found = runpy.run_path(str(MAKER))[function](peers["frames"], *arguments)
    name = {"boost_corr": "boost", "scikit_beam": "skbeam"}[function]
    np.testing.assert_allclose(found["g2"], peers[f"{name}_g2"], rtol=FLOAT32)
