"""The delays are those of the programs that the schemes are named after."""

from __future__ import annotations

import pytest

from lightkeep.analysis.xpcs import levels, segment_length


def delays(n: int, **options: object) -> list[int]:
    return [lag << level for level, lag in levels(n, **options)]  # type: ignore[arg-type]


def test_aps_has_twice_dpl_delays_and_then_dpl_on_every_level() -> None:
    assert delays(100) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80]
    assert [level for level, _ in levels(100)] == [0] * 8 + [1] * 4 + [2] * 4 + [3] * 4 + [4]


@pytest.mark.parametrize(("n", "number"), [(2000, 38), (4000, 42), (100_000, 61)])
def test_aps_has_as_many_delays_as_boost_corr(n: int, number: int) -> None:
    assert len(levels(n)) == number


def test_hadoop_changes_level_one_delay_earlier() -> None:
    assert delays(40, scheme="hadoop") == delays(40)
    assert levels(40, scheme="hadoop")[7] == (1, 4)
    assert levels(40)[7] == (0, 8)


def test_sutton_is_hadoop_with_the_delay_zero() -> None:
    assert levels(100, scheme="sutton") == [(0, 0), *levels(100, scheme="hadoop")]


@pytest.mark.parametrize("scheme", ["aps", "hadoop", "sutton"])
@pytest.mark.parametrize("dpl", [1, 2, 4, 8])
def test_every_delay_has_a_pair_and_delays_grow(scheme: str, dpl: int) -> None:
    for n in [*range(40), 127, 128, 129]:
        found = levels(n, dpl=dpl, scheme=scheme)  # type: ignore[arg-type]
        assert all(lag < n >> level for level, lag in found)
        taus = [lag << level for level, lag in found]
        assert taus == sorted(set(taus))
        assert not n or (taus[-1] if taus else 0) >= (n - 1) // 4, "the longest delays are not cut off"


def test_one_frame_has_no_delay_but_zero() -> None:
    assert levels(1) == []
    assert levels(1, scheme="sutton") == [(0, 0)]
    assert levels(0, scheme="sutton") == []


def test_unknown_schemes_and_numbers_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="aps, hadoop, sutton"):
        levels(10, scheme="linear")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dpl"):
        levels(10, dpl=0)


def test_there_are_eight_to_sixteen_segments_once_there_are_frames_enough() -> None:
    for n in range(1, 5000, 7):
        length = segment_length(n)
        assert length.bit_count() == 1
        assert n // length <= 16
        assert n < 9 or n // length > 7
