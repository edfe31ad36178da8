"""A run goes where it ends first, as far as queue, link and past runs tell."""

from __future__ import annotations

from lightkeep.policy.placing import GUESSED_RATE, GUESSED_WAIT_S, Past, Place, Work, estimates

WORK = Work("tomography", seconds=600.0, moved_bytes=1e9, pieces=32)


def past(place: str, *, wait_s: float = 0.0, rate: float = 0.0, scale: float = 1.0, technique: str = "") -> Past:
    """Return a run of 100 s of work, with a transfer at a rate."""
    transfer_s = 1e8 / rate if rate else 0.0
    return Past(technique or "tomography", place, 100.0, wait_s, transfer_s, 1e8 if rate else 0.0, 100.0 * scale)


def test_more_workers_end_first_when_nothing_else_differs() -> None:
    found = estimates(WORK, [Place("inline", 1), Place("processes", 8)], [])
    assert [each.place for each in found] == ["processes", "inline"]
    assert [each.total_s for each in found] == [75.0, 600.0]


def test_a_far_place_is_worth_its_way_only_when_the_link_is_fast() -> None:
    here = Place("processes", 8)
    for rate, first in ((1e6, "processes"), (1e9, "nersc")):
        far = Place("nersc", 300, wait_s=5.0, is_far=True, rate=rate)
        assert estimates(WORK, [here, far], [])[0].place == first


def test_a_queue_that_is_full_sends_the_run_home() -> None:
    here = Place("processes", 8)
    for wait_s, first in ((10.0, "slurm"), (900.0, "processes")):
        assert estimates(WORK, [here, Place("slurm", 64, wait_s=wait_s)], [])[0].place == first


def test_no_more_workers_count_than_there_are_pieces() -> None:
    assert estimates(WORK, [Place("slurm", 1000)], [])[0].compute_s == 600.0 / 32


def test_the_measured_rate_beats_the_promised_one() -> None:
    far = Place("nersc", 32, wait_s=0.0, is_far=True, rate=1e9)
    assert estimates(WORK, [far], [])[0].transfer_s == 1.0
    assert estimates(WORK, [far], [past("nersc", rate=1e7)])[0].transfer_s == 100.0


def test_past_runs_are_scaled_by_their_work_and_the_median_counts() -> None:
    runs = [past("processes", scale=scale) for scale in (0.2, 0.25, 50.0)]
    (found,) = estimates(WORK, [Place("processes", 8)], runs)
    assert found.compute_s == 150.0
    assert "3 past runs" in found.reason


def test_computing_of_another_technique_says_nothing_but_its_wait_does() -> None:
    runs = [past("nersc", wait_s=42.0, rate=1e8, scale=9.0, technique="xpcs")]
    (found,) = estimates(WORK, [Place("nersc", 10, wait_s=None, is_far=True)], runs)
    assert (found.wait_s, found.transfer_s, found.compute_s) == (42.0, 10.0, 60.0)


def test_what_nobody_knows_is_guessed_and_called_a_guess() -> None:
    (found,) = estimates(WORK, [Place("nersc", 10, wait_s=None, is_far=True)], [])
    assert (found.wait_s, found.transfer_s) == (GUESSED_WAIT_S, 1e9 / GUESSED_RATE)
    assert found.reason.count("a guess") == 2


def test_runs_elsewhere_do_not_count() -> None:
    assert estimates(WORK, [Place("processes", 8)], [past("slurm", scale=9.0)])[0].compute_s == 75.0


def test_where_a_technique_never_ran_its_preflight_is_corrected_by_what_it_took_elsewhere() -> None:
    """On one core it took three times what the preflight had said: three eighths on eight, and the start."""
    places = [Place("inline", 1), Place("processes", 8, start_s=1.0)]
    first, last = estimates(WORK, places, [past("inline", scale=3.0)])
    assert (first.place, first.compute_s, last.compute_s) == ("processes", 226.0, 1800.0)
    assert "by runs elsewhere" in first.reason


def test_what_is_over_before_a_process_has_started_is_done_in_this_one() -> None:
    small = Work("tomography", seconds=0.5, moved_bytes=1e6, pieces=8)
    assert estimates(small, [Place("processes", 8, start_s=1.0), Place("inline", 1)], [])[0].place == "inline"


def test_a_place_that_refuses_comes_last_and_says_why() -> None:
    found = estimates(WORK, [Place("slurm", 999, refusal="Invalid qos"), Place("inline", 1)], [])
    assert [(each.place, each.is_possible) for each in found] == [("inline", True), ("slurm", False)]
    assert found[1].reason == "Invalid qos"


def test_equal_ends_are_decided_the_same_way_each_time() -> None:
    places = [Place("b", 4), Place("a", 4)]
    orders = [estimates(WORK, order, [])[0].place for order in (places, places[::-1])]
    assert orders == ["a", "a"]


def test_what_lies_there_already_does_not_travel() -> None:
    far = Place("nersc", 32, wait_s=0.0, is_far=True, rate=1e8, held_bytes=9e8)
    (found,) = estimates(WORK, [far], [])
    assert found.transfer_s == 1.0
    assert "900 MB there" in found.reason
