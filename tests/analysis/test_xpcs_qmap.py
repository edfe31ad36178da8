"""A qmap is right, or says what is wrong with it."""

from __future__ import annotations

import numpy as np
import pytest

from lightkeep.analysis.xpcs import PRESETS, Geometry, Grid, QMap, compacted, coordinates

SHAPE = (60, 80)
THERE = Geometry(
    beam_center_x=30.0, beam_center_y=25.0, pixel_size_m=75e-6, detector_distance_m=5.0, energy_keV=10.0
)
CLOSE = Geometry(
    beam_center_x=30.0, beam_center_y=25.0, pixel_size_m=1e-3, detector_distance_m=0.05, energy_keV=10.0
)


def bragg(geometry: Geometry, row: float, column: float) -> float:
    """q from Bragg's law and the distance of the pixel from the beam."""
    far = np.hypot(column - geometry.beam_center_x, row - geometry.beam_center_y) * geometry.pixel_size_m
    two_theta = np.arctan(far / geometry.detector_distance_m)
    return float(4 * np.pi / (12.398419843 / geometry.energy_keV) * np.sin(two_theta / 2))


@pytest.mark.parametrize("geometry", [THERE, CLOSE], ids=["small angles", "wide angles"])
def test_q_is_that_of_braggs_law_at_small_and_at_wide_angles(geometry: Geometry) -> None:
    q, _ = coordinates(SHAPE, geometry)
    for row, column in [(0, 0), (59, 79), (25, 30), (3, 77)]:
        assert q[row, column] == pytest.approx(bragg(geometry, row, column), rel=1e-9, abs=1e-15)


def test_the_azimuth_turns_from_larger_columns_towards_smaller_rows() -> None:
    _, phi = coordinates(SHAPE, THERE)
    assert [phi[25, 40], phi[15, 30], phi[35, 30]] == pytest.approx([0, 90, -90])
    assert abs(phi[25, 20]) == pytest.approx(180)


def test_an_arm_turns_the_detector_rigidly_about_the_sample() -> None:
    turned = Geometry(30.0, 25.0, 1e-3, 0.5, 10.0, arm_horizontal_deg=40.0, arm_vertical_deg=25.0)
    q, phi = coordinates(SHAPE, turned)
    up, side = np.deg2rad(25.0), np.deg2rad(40.0)
    two_theta = np.arccos(np.cos(up) * np.cos(side))  # of the detector's normal
    assert q[25, 30] == pytest.approx(4 * np.pi / 1.2398419843 * np.sin(two_theta / 2))
    assert phi[25, 30] == pytest.approx(np.rad2deg(np.arctan2(np.sin(up), np.cos(up) * np.sin(side))))
    only_side, _ = coordinates(SHAPE, Geometry(30.0, 25.0, 1e-3, 0.5, 10.0, arm_horizontal_deg=10.0))
    along_the_row = np.deg2rad(10.0) + np.arctan((np.arange(80) - 30) * 1e-3 / 0.5)
    np.testing.assert_allclose(
        only_side[25], np.abs(4 * np.pi / 1.2398419843 * np.sin(along_the_row / 2)), rtol=1e-9
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_makes_a_map_whose_partitions_lie_inside_their_bins(preset: str) -> None:
    qmap = QMap.from_geometry(SHAPE, THERE, **PRESETS[preset])
    wanted = np.prod(PRESETS[preset]["dynamic"])
    assert 0.5 * wanted <= qmap.n_dynamic <= wanted
    for label in range(1, qmap.n_static + 1):
        assert set(np.unique(qmap.dynamic[qmap.static == label])) == {qmap.static_to_dynamic[label - 1]}
    assert ((qmap.dynamic > 0) == (qmap.static > 0)).all()
    assert (qmap.dynamic > 0).all(), "the default ranges reach every pixel"


@pytest.mark.parametrize("spacing", ["linear", "log"])
def test_rings_hold_the_pixels_that_their_edges_enclose(spacing: str) -> None:
    low, high, n = 2e-4, 5e-3, 6
    qmap = QMap.from_geometry(
        SHAPE, THERE, dynamic=(n, 1), static=(2 * n, 1), first_range=(low, high), spacing=spacing
    )
    q, _ = coordinates(SHAPE, THERE)
    edges = np.geomspace(low, high, n + 1) if spacing == "log" else np.linspace(low, high, n + 1)
    np.testing.assert_array_equal(qmap.dynamic > 0, (q >= low) & (q <= high))
    for label in range(1, qmap.n_dynamic + 1):
        inside = q[qmap.dynamic == label]
        assert edges[label - 1] <= inside.min() <= inside.max() <= edges[label]
        assert edges[label - 1] < qmap.dynamic_q[label - 1] < edges[label]
    assert (np.diff(qmap.dynamic_q) > 0).all()
    assert np.isnan(qmap.dynamic_phi).sum() == 0


def test_wedges_know_their_q_and_their_azimuth() -> None:
    qmap = QMap.from_geometry(SHAPE, THERE, dynamic=(3, 4), static=(6, 8))
    q, phi = coordinates(SHAPE, THERE)
    for label in range(1, qmap.n_dynamic + 1):
        inside = qmap.dynamic == label
        assert np.ptp(q) / 3 > 2 * abs(qmap.dynamic_q[label - 1] - q[inside]).max() - 1e-12
        assert abs(qmap.dynamic_phi[label - 1] - phi[inside].mean()) < 45
    assert set(np.round(qmap.dynamic_phi, 6)) == {-135, -45, 45, 135}


def test_boxes_have_the_mean_q_of_their_pixels() -> None:
    qmap = QMap.from_geometry(SHAPE, CLOSE, kind="x-y", dynamic=(4, 2), static=(8, 4))
    assert (qmap.n_dynamic, qmap.n_static) == (8, 32)
    assert np.bincount(qmap.dynamic.ravel())[1:].tolist() == [20 * 30] * 8
    q, _ = coordinates(SHAPE, CLOSE)
    means = [q[qmap.dynamic == label].mean() for label in range(1, 9)]
    np.testing.assert_allclose(qmap.dynamic_q, means)
    assert qmap.names == ("x", "y")


def test_a_bin_across_the_end_of_the_azimuth_has_the_azimuth_in_its_middle() -> None:
    left = np.zeros(SHAPE, int)
    left[20:31, :10] = 1
    qmap = QMap.from_labels(left, geometry=THERE)
    assert abs(qmap.dynamic_phi[0]) == pytest.approx(180, abs=1e-6)


def test_masked_pixels_are_not_used_and_empty_cells_have_no_number() -> None:
    mask = np.ones(SHAPE, bool)
    mask[:, 35:] = False
    qmap = QMap.from_geometry(SHAPE, THERE, dynamic=(2, 8), static=(4, 16), mask=mask)
    assert not qmap.dynamic[~mask].any()
    assert qmap.n_dynamic < 16
    assert qmap.dynamic_grid is not None
    assert qmap.dynamic_q.shape == qmap.dynamic_phi.shape == (qmap.n_dynamic,)
    _, phi = coordinates(SHAPE, THERE)
    for label in range(1, qmap.n_dynamic + 1):
        assert abs(phi[qmap.dynamic == label] - qmap.dynamic_phi[label - 1]).max() <= 22.5


def test_without_geometry_and_grid_q_is_not_known() -> None:
    qmap = QMap.from_labels(np.ones((3, 4), int))
    assert np.isnan([*qmap.dynamic_q, *qmap.static_phi]).all()


def test_labels_are_compacted_with_the_coordinates_they_had() -> None:
    grid = Grid(np.array([0.1, 0.2, 0.3]), np.zeros(1), np.arange(3))
    qmap = QMap.from_labels([[0, 3], [1, 3]], dynamic_grid=grid)
    assert qmap.dynamic.tolist() == [[0, 2], [1, 2]]
    assert qmap.dynamic_q.tolist() == [0.1, 0.3]
    labels, kept = compacted([[5, 0], [9, 5]])
    assert (labels.tolist(), kept.tolist()) == ([[1, 0], [2, 1]], [5, 9])
    labels, kept = compacted([[5, -3], [2**40, 5]])
    assert (labels.tolist(), kept.tolist()) == ([[1, 0], [2, 1]], [5, 2**40])


def test_pixels_with_one_label_only_are_left_out_by_from_labels() -> None:
    qmap = QMap.from_labels([[1, 1, 0]], [[1, 0, 2]])
    assert (qmap.dynamic.tolist(), qmap.static.tolist()) == ([[1, 0, 0]], [[1, 0, 0]])


def one(labels: list[list[int]]) -> np.ndarray:
    return np.array(labels, np.int32)


@pytest.mark.parametrize(
    ("dynamic", "static", "mask", "reason"),
    [
        (one([[1, 2]]), one([[1, 1]]), None, "static partition 1 spans dynamic bins 1 and 2"),
        (one([[1, 3]]), one([[1, 2]]), None, "dynamic labels have gaps: 2 numbers up to 3"),
        (one([[1, 1]]), one([[1, 5]]), None, "static labels have gaps"),
        (one([[0, 0]]), one([[0, 0]]), None, "no pixel has a dynamic label"),
        (one([[1, 1]]), one([[1, 0]]), None, "1 pixels have a dynamic bin or a static partition, but not both"),
        (one([[1, 1]]), one([[1], [1]]), None, "differ in shape"),
        (one([[1, 1]]), one([[1, 1]]), np.array([[True, False]]), "1 masked pixels have a bin"),
        (one([[1, -1]]), one([[1, 0]]), None, "whole numbers from 0"),
        (np.array([[1.5, 1.0]]), one([[1, 1]]), None, "whole numbers from 0"),
        (np.ones(4, int), np.ones(4, int), None, r"must be \(H, W\)"),
    ],
)
def test_a_wrong_map_is_refused_with_its_reason(
    dynamic: np.ndarray, static: np.ndarray, mask: np.ndarray | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        QMap(dynamic, static, np.ones(dynamic.shape, bool) if mask is None else mask)


def test_a_map_of_another_detector_is_refused_and_a_turned_one_is_named() -> None:
    qmap = QMap.from_labels(np.ones((3, 4), int))
    qmap.require((3, 4))
    with pytest.raises(ValueError, match=r"the qmap is for \(3, 4\) pixels, the frames have \(5, 6\)$"):
        qmap.require((5, 6))
    with pytest.raises(ValueError, match="its transpose would fit"):
        qmap.require((4, 3))


def test_wishes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples"):
        QMap.from_geometry(SHAPE, THERE, dynamic=(10, 1), static=(25, 1))
    with pytest.raises(ValueError, match="leaves no pixel"):
        QMap.from_geometry(SHAPE, THERE, mask=np.zeros(SHAPE))
    with pytest.raises(ValueError, match="mask is"):
        QMap.from_geometry(SHAPE, THERE, mask=np.ones((3, 3)))
    with pytest.raises(ValueError, match="log bins"):
        QMap.from_geometry(SHAPE, THERE, first_range=(0.0, 1.0), spacing="log")
    with pytest.raises(ValueError, match="the map is empty"):
        QMap.from_geometry(SHAPE, THERE, first_range=(5.0, 6.0))
    with pytest.raises(ValueError, match="pixel_size_m must be above 0"):
        Geometry(1, 1, 0.0, 1.0, 10.0)
    with pytest.raises(ValueError, match="q-phi or x-y"):
        coordinates(SHAPE, THERE, kind="polar")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="their grid has 1 places"):
        QMap.from_labels([[1, 2]], dynamic_grid=Grid(np.ones(1), np.ones(1), np.arange(1)))
