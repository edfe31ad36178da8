"""XPCS as a technique: the same bytes however it is cut, and nothing wrong without a word."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from lightkeep.analysis import xpcs as analysis
from lightkeep.formats import events, imm, metadata_8id, rigaku
from lightkeep.lifecycle.processing.pieces import blocks
from lightkeep.model.datasets import Dataset, DatasetKind, Metadata
from lightkeep.model.errors import BadFile, InvalidInput
from lightkeep.model.formats import Source
from lightkeep.model.quantity import Quantity
from lightkeep.techniques import xpcs
from lightkeep.testing.suites.technique import TechniqueSuite, source_of
from lightkeep.testing.xpcs_oracle import brute_force

SHAPE = (96, 224)
"""Five blocks of pixels and a bit."""
FRAMES = np.random.default_rng(5).poisson(0.3, (37, *SHAPE)).astype(np.uint8)
GEOMETRY = {
    "frame_time": Quantity.of(2.0, "ms"),
    "energy": Quantity.of(10.9, "keV"),
    "distance": Quantity.of(8.0, "m"),
    "pixel_size": Quantity.of(76.0, "um"),
    "beam_center_x": Quantity.of(20.0, "pixel"),
    "beam_center_y": Quantity.of(50.0, "pixel"),
}
STATIC_ONLY = {"g2", "g2_err", "g2_partial", "pairs"}


def run_of(folder: Path, frames: Any = FRAMES, **quantities: Quantity) -> Source:
    """Return a run in memory with its metadata."""
    return replace(source_of(folder, frames=frames), metadata=Metadata(quantities={**GEOMETRY, **quantities}))


def bins(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return (H, W) labels: columns cut into seven static partitions, two to a dynamic bin."""
    return np.broadcast_to(1 + np.arange(shape[1]) * 7 // shape[1], shape).copy()


def with_qmap(source: Source, static: np.ndarray, dynamic: np.ndarray | None = None) -> Source:
    """Return the source with a q map as the file of one gives it."""
    dynamic = (static + 1) // 2 if dynamic is None else dynamic
    arrays = {"dynamic_roi_map": dynamic, "static_roi_map": static, "mask": static > 0}
    return replace(source, inputs={"qmap": Source(source.path.with_name("qmap.h5"), "qmap", "", arrays)})


class XpcsSuite(TechniqueSuite):
    """What holds for both kinds of correlation: equal to the last bit, not to rounding."""

    name = "xpcs"

    def example(self, folder: Path) -> Source:
        return run_of(folder)

    def unusable(self, folder: Path) -> Sequence[Source]:
        good = run_of(folder)
        static = bins()
        return [
            source_of(folder, projections=FRAMES),
            source_of(folder, frames=FRAMES),  # no geometry, no q map
            run_of(folder, FRAMES[:1]),
            run_of(folder, FRAMES[0]),
            with_qmap(good, bins((64, 64))),
            with_qmap(good, static, np.where(np.arange(SHAPE[1]) < 40, 1, 2) * np.ones(SHAPE, int)),
            with_qmap(good, np.zeros(SHAPE, int)),
        ]

    def test_any_cut_gives_the_same_bytes(self, tmp_path: Path) -> None:
        source = self.example(tmp_path)
        found = self.preflight(source)
        whole = self.compute(source, found, [(0, found.length)])
        for cuts in ([(0, 1), (1, 6)], [(3, 6), (0, 3)], [(at, at + 1) for at in range(found.length)]):
            pieces = self.compute(source, found, cuts)
            assert {name: each.tobytes() for name, each in pieces.items()} == {
                name: each.tobytes() for name, each in whole.items()
            }


class TestMultiTau(XpcsSuite):
    pass


class TestBoth(XpcsSuite):
    params: ClassVar[Mapping[str, Any]] = {"mode": "both", "preset": "wa-xpcs"}


class TestTwoTimeOfSomeBins(XpcsSuite):
    params: ClassVar[Mapping[str, Any]] = {"mode": "twotime", "bins": "2, 5-6", "average": 2}

    def test_it_makes_no_multi_tau_outputs(self, tmp_path: Path) -> None:
        shapes = self.preflight(self.example(tmp_path)).shapes
        assert not STATIC_ONLY & set(shapes)
        assert shapes["c2"] == (3, 18, 18)


def compute(source: Source, **given: Any) -> tuple[dict[str, Any], list[str], xpcs.Params]:
    """Return (outputs, flags, parameters in force) of a run in one piece."""
    found = xpcs.preflight(source, xpcs.Params(**given))
    params = xpcs.Params(**json.loads(json.dumps(dict(found.params))))
    state = xpcs.start(source, params, 0, found.length)
    for block, begin, _ in blocks(xpcs, source, params, 0, found.length):
        state = xpcs.push(state, block, begin)
    return xpcs.finish(state, params), xpcs.flags(state, params), params


def sentence(found: Sequence[str], *words: str) -> str:
    """Return the one sentence that has all the words."""
    (only,) = [each for each in found if all(word in each for word in words)]
    return only


def test_g2_is_what_the_definition_says(tmp_path: Path) -> None:
    static = bins()
    made, _, params = compute(with_qmap(run_of(tmp_path), static), stride=2, begin=3, bad_frames="9, 12-13")
    qmap = analysis.QMap.from_labels((static + 1) // 2, static)
    truth = brute_force(FRAMES, qmap, begin=3, stride=2, bad_frames=[9, 12, 13])
    np.testing.assert_allclose(made["g2"].data, truth.g2, rtol=1e-9)
    np.testing.assert_allclose(made["g2_err"].data, truth.g2_err, rtol=1e-9)
    np.testing.assert_allclose(made["g2"].scales["tau"], truth.tau_frames * 2 * 0.002, rtol=1e-12)
    assert made["g2"].scale_units == {"tau": "s", "q": "1/angstrom"}
    assert (params.end, params.bad_frames, params.frame_time_s) == (37, (9, 12, 13), 0.002)


def test_without_a_q_map_the_bins_are_rings_about_the_beam(tmp_path: Path) -> None:
    made, _, params = compute(run_of(tmp_path), q_min=0.0005)
    q = made["g2"].scales["q"]
    assert q.shape == (10,)
    assert (np.diff(q) > 0).all()
    assert q[0] > 0.0005
    assert (params.energy_kev, params.pixel_size_um) == (10.9, 76.0)
    assert made["mask"].data[50, 20] == 0  # the beam itself is below q_min


def test_values_given_by_hand_stand_for_those_that_the_file_does_not_say(tmp_path: Path) -> None:
    geometry = {"beam_center_x": 20.0, "beam_center_y": 50.0, "pixel_size_um": 76.0, "distance_m": 8.0}
    by_hand = compute(source_of(tmp_path, frames=FRAMES), **geometry, energy_kev=10.9, frame_time_s=0.002)[0]
    from_file = compute(run_of(tmp_path))[0]
    assert by_hand["g2"].data.tobytes() == from_file["g2"].data.tobytes()
    np.testing.assert_array_equal(by_hand["g2"].scales["q"], from_file["g2"].scales["q"])


def test_what_is_missing_for_rings_is_named(tmp_path: Path) -> None:
    source = run_of(tmp_path)
    known = {name: each for name, each in GEOMETRY.items() if name not in ("energy", "distance")}
    with pytest.raises(InvalidInput, match=r"does not say its distance_m, energy_kev"):
        xpcs.preflight(replace(source, metadata=Metadata(quantities=known)), xpcs.Params())


def test_a_q_map_of_another_detector_is_refused_with_both_shapes(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\(64, 64\).*\(96, 224\)") as caught:
        xpcs.preflight(with_qmap(run_of(tmp_path), bins((64, 64))), xpcs.Params())
    assert caught.value.data["field"] == "qmap"


def test_a_turned_q_map_is_turned_and_it_says_so(tmp_path: Path) -> None:
    turned = with_qmap(run_of(tmp_path), bins().T)
    found = xpcs.preflight(turned, xpcs.Params())
    sentence(found.warnings, "transposed")
    straight = compute(with_qmap(run_of(tmp_path), bins()))[0]
    assert compute(turned)[0]["g2"].data.tobytes() == straight["g2"].data.tobytes()


def test_a_static_partition_in_two_dynamic_bins_is_refused(tmp_path: Path) -> None:
    dynamic = np.where(np.arange(SHAPE[1]) < 40, 1, 2) * np.ones(SHAPE, int)
    with pytest.raises(InvalidInput, match="static partition 2 spans dynamic bins 1 and 2"):
        xpcs.preflight(with_qmap(run_of(tmp_path), bins(), dynamic), xpcs.Params())


def test_frames_that_are_not_as_many_as_promised_are_a_warning(tmp_path: Path) -> None:
    path = imm.write_run(tmp_path / "gel.imm", analysis.iterate(FRAMES), shape=SHAPE)
    metadata_8id.write_metadata(
        tmp_path / "gel_metadata.hdf", Metadata(quantities={**GEOMETRY, "frames": Quantity.of(50.0, "")})
    )
    with imm.FORMAT.open(path) as source:
        found = xpcs.preflight(source, xpcs.Params())
    sentence(found.warnings, "50 frames", "holds 37")


def test_a_run_that_is_cut_short_inside_a_record_is_refused(tmp_path: Path) -> None:
    path = imm.write_run(tmp_path / "gel.imm", analysis.iterate(FRAMES), shape=SHAPE)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(BadFile):
        imm.FORMAT.open(path).close()


def test_an_event_beyond_the_detector_is_refused(tmp_path: Path) -> None:
    words = np.array([(frame << 40) | (frame % 512 << 16) | 1 for frame in range(2000)], "<u8")
    words[1500] = (1500 << 40) | (512 * 1024 << 16) | 1
    path = tmp_path / "gel.bin"
    path.write_bytes(words.tobytes())
    metadata_8id.write_metadata(tmp_path / "gel_metadata.hdf", Metadata(quantities=GEOMETRY))
    with pytest.raises(InvalidInput, match=r"pixel|detector"), rigaku.FORMAT.open(path) as source:
        compute(source)


def test_saturated_pixels_are_left_out_with_a_warning_before_and_a_flag_after(tmp_path: Path) -> None:
    frames = FRAMES.copy()
    frames[:, 5, 7] = 255
    source = with_qmap(run_of(tmp_path, frames), bins())
    sentence(xpcs.preflight(source, xpcs.Params()).warnings, "1 used pixels", "saturated or dead")
    made, flags, _ = compute(source)
    sentence(flags, "1 used pixels", "highest possible count", "left out")
    truth = brute_force(frames, analysis.QMap.from_labels((bins() + 1) // 2, bins()))
    np.testing.assert_allclose(made["g2"].data, truth.g2, rtol=1e-9)
    assert made["g2"].data.max() < 1.2  # with the pixel in, the first bin would be far above


def test_a_pixel_that_never_counts_among_bright_ones_is_a_flag(tmp_path: Path) -> None:
    frames = FRAMES + 20
    frames[:, 5, 7] = 0
    sentence(compute(with_qmap(run_of(tmp_path, frames), bins()))[1], "never counted", "dead")


def test_a_run_without_any_count_says_that_its_curves_are_not_numbers(tmp_path: Path) -> None:
    made, flags, _ = compute(with_qmap(run_of(tmp_path, np.zeros_like(FRAMES)), bins()))
    assert np.isnan(made["g2"].data).all()
    sentence(flags, "no used pixel counted")


@pytest.mark.parametrize(
    "given", [{"begin": 37}, {"end": 38}, {"begin": 5, "end": 5}, {"stride": 30, "average": 2}]
)
def test_frames_outside_the_run_or_too_few_are_refused(tmp_path: Path, given: Mapping[str, int]) -> None:
    with pytest.raises(InvalidInput):
        xpcs.preflight(run_of(tmp_path), xpcs.Params(**given))


def test_bins_that_the_map_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"1 to 10"):
        xpcs.preflight(run_of(tmp_path), xpcs.Params(mode="twotime", bins=(3, 11)))


def test_delays_are_in_frames_where_the_frame_time_is_not_known_and_it_says_so(tmp_path: Path) -> None:
    known = {name: each for name, each in GEOMETRY.items() if name != "frame_time"}
    source = replace(run_of(tmp_path), metadata=Metadata(quantities=known))
    sentence(xpcs.preflight(source, xpcs.Params()).warnings, "frame time is not known")
    g2 = compute(source)[0]["g2"]
    assert (g2.scale_units["tau"], g2.scales["tau"][0]) == ("frames", 1.0)


def test_a_state_travels_between_processes_in_less_than_a_megabyte_beside_its_maps(tmp_path: Path) -> None:
    source = run_of(tmp_path)
    found = xpcs.preflight(source, xpcs.Params())
    params = xpcs.Params(**found.params)
    states = []
    for cut in ((0, 2), (2, found.length)):
        state = xpcs.start(source, params, *cut)
        for block, begin, _ in blocks(xpcs, source, params, *cut):
            state = xpcs.push(state, block, begin)
        assert len(pickle.dumps(state.multitau.sums())) < 1_000_000
        states.append(pickle.loads(pickle.dumps(state)))
    merged = xpcs.finish(reduce(xpcs.merge, states), params)
    assert merged["g2"].data.tobytes() == compute(source)[0]["g2"].data.tobytes()


def test_it_accepts_raw_runs_of_its_formats_only() -> None:
    run = Dataset("ds_1", "e", "gel", DatasetKind.RAW, format="rigaku")
    assert xpcs.accepts(run)
    assert not xpcs.accepts(replace(run, kind=DatasetKind.DERIVED))
    assert not xpcs.accepts(replace(run, format="data-exchange"))


def test_a_time_that_is_not_that_of_a_bin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a frame is as long as a bin"):
        xpcs.preflight(run_of(tmp_path), xpcs.Params(bin_time_s=1e-6, frame_time_s=2e-6))


def test_events_with_times_need_the_length_of_a_frame(tmp_path: Path) -> None:
    times = np.arange(40, dtype=np.uint64) * 500
    path = events.write_times(tmp_path / "run.h5", [(times, times.astype(np.uint32) % 63)], shape=(7, 9))
    with events.FORMAT.open(path) as source, pytest.raises(InvalidInput, match="how long a frame is") as caught:
        xpcs.preflight(source, xpcs.Params())
    assert caught.value.data["field"] == "bin_time_s"
