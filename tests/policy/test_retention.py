"""Which policy and which rule speak of a dataset, when the clock runs, and the one date function."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lightkeep.model.datasets import DatasetKind
from lightkeep.model.errors import InvalidInput
from lightkeep.model.experiments import ExperimentState
from lightkeep.model.stores import StoreRecord, Tier
from lightkeep.policy.document import check, default_text, parse
from lightkeep.policy.placement import place
from lightkeep.policy.retention import (
    RUNNING,
    ClockFacts,
    Facts,
    Keep,
    Match,
    Policy,
    Rule,
    applicable,
    expiry,
    release_at,
)
from lightkeep.policy.spans import Span


def at(month: int, day: int, year: int = 2026) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


CLOSED = ClockFacts(ExperimentState.CLOSED, closed_at=at(8, 31))
DEFAULT = parse(default_text(), version=1)


def policy(*stations: str, id: str = "p") -> Policy:  # noqa: A002
    return Policy(id, 1, stations=stations)


# ---- which policy


def test_an_experiments_own_policy_comes_before_that_of_its_station() -> None:
    own, station = policy(id="own"), policy("*", id="station")
    assert applicable([station, own], policy_id="own", station_id="8-ID-I") is own
    assert applicable([station, own], policy_id="", station_id="8-ID-I") is station


def test_an_own_policy_that_does_not_exist_means_keep_and_not_the_stations() -> None:
    assert applicable([policy("*")], policy_id="gone", station_id="8-ID-I") is None


def test_the_glob_that_says_most_wins_and_an_exact_name_beats_every_glob() -> None:
    wide, near, exact = policy("*", id="a"), policy("8-ID*", id="b"), policy("8-ID", id="c")
    assert applicable([wide, near, exact], policy_id="", station_id="8-ID-I") is near
    assert applicable([wide, near, exact], policy_id="", station_id="8-ID") is exact
    assert applicable([wide, near, exact], policy_id="", station_id="2-BM") is wide


def test_two_policies_that_claim_a_station_equally_mean_keep() -> None:
    for first, second in (("8-ID*", "8-*-I"), ("*", "*"), ("8-ID-I", "8-ID-I")):
        both = [policy(first, id="a"), policy(second, id="b")]
        assert applicable(both, policy_id="", station_id="8-ID-I") is None


def test_no_policy_speaks_of_other_stations() -> None:
    assert applicable([policy("8-ID*"), policy(id="q")], policy_id="", station_id="2-BM") is None


# ---- which rule


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        (Match(), True),
        (Match(stations=("8-ID*",)), True),
        (Match(stations=("2-BM", "8-ID-?")), True),
        (Match(stations=("8-id*",)), False),
        (Match(techniques=("xpcs", "saxs")), True),
        (Match(techniques=("tomography",)), False),
        (Match(kinds=(DatasetKind.RAW,)), True),
        (Match(kinds=(DatasetKind.DERIVED,)), False),
        (Match(at_least=100), True),
        (Match(at_least=101), False),
        (Match(below=100), False),
        (Match(below=101), True),
        (Match(stations=("8-ID*",), techniques=("tomography",)), False),
    ],
)
def test_a_rule_matches_only_where_each_of_its_parts_does(match: Match, matches: bool) -> None:
    assert match(Facts("8-ID-I", "xpcs", DatasetKind.RAW, 100)) is matches


def test_the_first_rule_that_matches_decides() -> None:
    first, second = Rule("first", Match(techniques=("xpcs",))), Rule("second")
    both = Policy("p", rules=(first, second))
    assert both.rule_for(Facts("8-ID-I", "xpcs")) is first
    assert both.rule_for(Facts("8-ID-I", "hedm")) is second


# ---- the clock


@pytest.mark.parametrize("state", ExperimentState)
def test_the_clock_runs_only_when_the_experiment_is_closed(state: ExperimentState) -> None:
    started = ClockFacts(state, at(6, 1), at(6, 2), at(6, 3)).started_at
    assert (started is not None) == (state in RUNNING)
    assert ExperimentState.OPEN not in RUNNING
    assert ExperimentState.PLANNED not in RUNNING


@pytest.mark.parametrize(
    ("ends", "closed", "newest"), [(9, 8, 7), (7, 9, 8), (8, 7, 9)], ids=["window", "closing", "newest raw data"]
)
def test_the_clock_starts_with_the_latest_of_the_three(ends: int, closed: int, newest: int) -> None:
    clock = ClockFacts(ExperimentState.CLOSED, at(ends, 1), at(closed, 1), at(newest, 1))
    assert clock.started_at == at(9, 1)


def test_an_experiment_that_nobody_is_known_to_have_closed_has_no_clock() -> None:
    assert ClockFacts(ExperimentState.CLOSED, ends_at=at(1, 1)).started_at is None


# ---- the date


def test_a_date_carries_its_policy_its_version_and_its_rule() -> None:
    found = expiry(DEFAULT, CLOSED, Facts("20-ID"), tier=Tier.HOT)
    assert (found.at, found.pressure_at) == (found.at, found.at)
    assert found.at is not None
    assert found.at.date().isoformat() == "2026-11-30"
    assert (found.policy, found.rule) == ("central-3-months@1", "central")
    assert "3 months" in found.text
    assert "2026-08-31" in found.text


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (expiry(None, CLOSED, Facts("20-ID"), tier=Tier.HOT), "no policy"),
        (expiry(Policy("p"), CLOSED, Facts("20-ID"), tier=Tier.HOT), "no rule"),
        (expiry(DEFAULT, CLOSED, Facts("20-ID"), tier=Tier.TAPE), "for ever on tape"),
        (expiry(DEFAULT, CLOSED, Facts("20-ID", kind=DatasetKind.CALIBRATION), tier=Tier.HOT), "for ever on hot"),
        (expiry(DEFAULT, ClockFacts(ExperimentState.OPEN), Facts("20-ID"), tier=Tier.HOT), "it is open"),
    ],
)
def test_what_nothing_speaks_of_is_kept_and_the_text_says_why(found: object, word: str) -> None:
    assert found.at is None  # type: ignore[attr-defined]
    assert found.pressure_at is None  # type: ignore[attr-defined]
    assert word in found.text  # type: ignore[attr-defined]


def test_under_pressure_never_means_later() -> None:
    rule = Rule("r", keep={Tier.HOT: Keep(Span(months=1), Span(days=40))})
    found = expiry(Policy("p", rules=(rule,)), CLOSED, Facts("20-ID"), tier=Tier.HOT)
    assert found.pressure_at == found.at


def test_an_embargo_counts_from_the_same_clock() -> None:
    assert release_at(DEFAULT, CLOSED, Facts("20-ID")) == at(8, 31, 2029)
    assert release_at(DEFAULT, ClockFacts(ExperimentState.OPEN), Facts("20-ID")) is None
    assert release_at(DEFAULT, CLOSED, Facts("20-ID", kind=DatasetKind.CALIBRATION)) is None
    assert release_at(None, CLOSED, Facts("20-ID")) is None


# ---- the packaged default


@pytest.mark.parametrize(
    ("station", "rule", "until", "pressure"),
    [
        ("8-ID-I", "large-producers", "2026-11-30", "2026-09-30"),
        ("1-ID-E", "large-producers", "2026-11-30", "2026-09-30"),
        ("11-ID-B", "small-beamlines", "2027-08-31", "2027-08-31"),
        ("20-ID", "central", "2026-11-30", "2026-11-30"),
    ],
)
def test_the_default_keeps_three_months_and_each_kind_of_station_has_its_rule(
    station: str, rule: str, until: str, pressure: str
) -> None:
    found = expiry(DEFAULT, CLOSED, Facts(station), tier=Tier.HOT)
    assert found.rule == rule
    assert found.at is not None
    assert found.pressure_at is not None
    assert (found.at.date().isoformat(), found.pressure_at.date().isoformat()) == (until, pressure)


def test_the_default_lets_no_last_copy_go_and_asks_for_a_durable_one() -> None:
    spans = [keep for rule in DEFAULT.rules for keep in rule.keep.values() if keep.span]
    assert spans
    assert not any(keep.last_copy for keep in spans)
    assert all(keep.durable and keep.min_copies >= 1 for keep in spans)
    assert check(DEFAULT) == ()


# ---- where copies should lie

HOT = StoreRecord("central", "posix", "/c", "u1", failure_domain="hall")
TAPES = [
    StoreRecord(name, "hpss", "/t", f"u-{name}", Tier.TAPE, domain, is_durable=True)
    for name, domain in (("tape-a", "hall"), ("tape-b", "silo"), ("tape-c", "silo"))
]


def wants(*copies: str) -> Policy:
    listed = ", ".join(f'"{copy}"' for copy in copies)
    return parse(f'id = "p"\n[[rule]]\nname = "r"\ncopies = [{listed}]\n[rule.hot]\nkeep = "for ever"')


def placed(policy: Policy | None, stores: list[StoreRecord], present: set[str]) -> list[str]:
    return [wanted.store_id for wanted in place(Facts("8-ID-I"), policy, stores, present=present)]


def test_a_copy_goes_to_another_failure_domain_if_one_is_there() -> None:
    assert placed(wants("tape"), [HOT, *TAPES], {"central"}) == ["tape-b"]
    assert placed(wants("tape"), [HOT, TAPES[0]], {"central"}) == ["tape-a"]
    assert placed(wants("tape", "tape"), [HOT, *TAPES], {"central"}) == ["tape-b", "tape-a"]


def test_what_is_there_is_not_wanted_again() -> None:
    assert placed(wants("tape"), [HOT, *TAPES], {"central", "tape-a"}) == []
    assert placed(wants("tape", "tape"), [HOT, *TAPES], {"central", "tape-a"}) == ["tape-b"]
    assert placed(wants("tape", "store:tape-a"), [HOT, *TAPES], {"central", "tape-a"}) == ["tape-b"]


def test_a_target_that_no_store_fits_is_told() -> None:
    (wanted,) = place(Facts("8-ID-I"), wants("store:moon"), [HOT], present={"central"})
    assert wanted.store_id == ""
    assert "no store fits" in wanted.text
    assert (wanted.policy, wanted.rule) == ("p@0", "r")


def test_nothing_is_written_to_a_stations_own_disk() -> None:
    disk = StoreRecord("disk", "posix", "/d", "u2", Tier.TAPE, is_managed=False)
    assert placed(wants("tape"), [HOT, disk], {"central"}) == [""]


def test_without_a_policy_no_copy_is_wanted() -> None:
    assert placed(None, [HOT, *TAPES], {"central"}) == []


# ---- the text


GOOD = """
id = "p"
[[rule]]
name = "r"
[rule.hot]
keep = "3 months"
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("keep =", "keeep =", "did you mean `keep`"),
        ("name", "nam", "did you mean `name`"),
        ("id =", "ident =", "`ident` is not a key"),
        ('id = "p"', "", "`id` is missing"),
        ('id = "p"', 'id = "My Policy"', "'My Policy'"),
        ('name = "r"', "", "`name` is missing"),
        ("[[rule]]", "[[rules]]", "did you mean `rule`"),
        ("[rule.hot]", "[rule.hott]", "did you mean `hot`"),
        ('[rule.hot]\nkeep = "3 months"', "", "names no tier"),
        ('keep = "3 months"', "", "does not say how long"),
        ('"3 months"', '"3 moons"', "'3 moons' is not a span"),
        ('"3 months"', '"0 days"', "no time at all"),
        ('"3 months"', "90", "must be a text"),
        ('"3 months"', '""', "must be a text"),
        ('"3 months"', '"3 months"\nmin_copies = 0', "min_copies = 0 cannot be configured"),
        ('"3 months"', '"3 months"\nmin_copies = -1', "whole number"),
        ('"3 months"', '"3 months"\nmin_copies = true', "whole number"),
        ('"3 months"', '"3 months"\nmin_copies = 1.5', "whole number"),
        ('"3 months"', '"3 months"\nmin_domains = 3', "cannot lie in 3"),
        ('"3 months"', '"3 months"\ndurable = 1', "true or false"),
        ('"3 months"', '"3 months"\nlast_copy = "yes"', "true or false"),
        ('"3 months"', '"3 months"\nkeep_under_pressure = "4 months"', "longer than keep"),
        ('"3 months"', '"90 days"\nkeep_under_pressure = "3 months"', "longer than keep"),
        ('"3 months"', '"for ever"\nkeep_under_pressure = "1 month"', "for ever, but not under pressure"),
        ('name = "r"', 'name = "r"\nundo_days = 0', "`undo_days`"),
        ('name = "r"', 'name = "r"\nfinal_days = 0', "`final_days`"),
        ('name = "r"', 'name = "r"\nnotice_days = []', "notice_days"),
        ('name = "r"', 'name = "r"\nnotice_days = [0]', "notice_days"),
        ('name = "r"', 'name = "r"\nnotice_days = [1, 7, 30]', "falling"),
        ('name = "r"', 'name = "r"\nnotice_days = [7, 7]', "falling"),
        ('name = "r"', 'name = "r"\nnotice_days = [true]', "falling"),
        ('name = "r"', 'name = "r"\nembargo = "soon"', "'soon'"),
        ('name = "r"', 'name = "r"\ncopies = ["tapes"]', "did you mean `tape`"),
        ('name = "r"', 'name = "r"\ncopies = ["store:"]', "no place for a copy"),
        ('name = "r"', 'name = "r"\nmatch = { kind = "raww" }', "'raww' is no kind"),
        ('name = "r"', 'name = "r"\nmatch = { stations = ["*"] }', "did you mean `station`"),
        ('name = "r"', 'name = "r"\nmatch = { station = [] }', "list of texts"),
        ('name = "r"', 'name = "r"\nmatch = { size = "big" }', "no bound of a size"),
        ('name = "r"', 'name = "r"\nmatch = { size = [">= 2 GB", "< 1 GB"] }', "no dataset has such a size"),
        ('name = "r"', 'name = "r"\nmatch = "all"', "must be a table"),
        ('id = "p"', 'id = "p"\nrule = 3\n', ""),
        ('id = "p"', "id = p", "no TOML"),
        (GOOD.strip().split("\n", 1)[1], 'stations = ["*"]', "has no rule"),
        (GOOD, GOOD + GOOD.replace('id = "p"', ""), "two rules named r"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_its_remedy(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(InvalidInput) as found:
        parse(GOOD.replace(old, new))
    assert said in found.value.message + found.value.remedy
    assert found.value.remedy or "true or false" in said or "cannot lie" in said


def test_what_a_text_leaves_out_is_the_careful_choice() -> None:
    (rule,) = parse(GOOD).rules
    keep = rule.keep[Tier.HOT]
    assert (keep.min_copies, keep.min_domains, keep.last_copy) == (2, 2, False)
    assert (rule.notice_days, rule.undo_days, rule.final_days) == ((30, 7, 1), 14, 90)
    assert (keep.verified_days, keep.read_back_days) == (30, 1)
    assert Keep() == Keep(None, None, 2, 2, durable=False, verified_days=30, read_back_days=1, last_copy=False)


def test_sizes_are_decimal_bytes() -> None:
    text = GOOD.replace('name = "r"', 'name = "r"\nmatch = { size = [">= 1.5 TB", "< 2 PB"] }')
    (rule,) = parse(text).rules
    assert (rule.match.at_least, rule.match.below) == (1_500_000_000_000, 2 * 10**15)


def rules(*matches: str) -> tuple[str, ...]:
    tables = [
        f'[[rule]]\nname = "r{n}"\nmatch = {{ {match} }}\n[rule.hot]\nkeep = "for ever"\n'
        for n, match in enumerate(matches)
    ]
    return check(parse('id = "p"\nstations = ["*"]\n' + "".join(tables)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", 'technique = "xpcs"'),
        ('station = "8-ID*"', 'station = ["8-ID-I", "8-ID-E"]'),
        ('station = "8-*"', 'station = "8-ID*"'),
        ('kind = ["raw", "derived"]', 'kind = "raw", technique = "xpcs"'),
        ('size = ">= 1 GB"', 'size = ">= 2 GB"'),
        ('size = "< 2 GB"', 'size = [">= 1 MB", "< 1 GB"]'),
    ],
)
def test_a_rule_that_is_never_reached_is_found(first: str, second: str) -> None:
    assert "r1 is never reached" in " ".join(rules(first, second))
    assert "never reached" not in " ".join(rules(second, first))


def test_rules_that_overlap_in_part_are_found_and_a_general_one_at_the_end_is_not() -> None:
    assert "overlap" in " ".join(rules('station = "8-ID*"', 'technique = "xpcs"'))
    assert rules('station = "8-ID*"', "") == ()
    assert rules('technique = "xpcs"', 'technique = "hedm"') == ()
    assert rules('size = "< 1 GB"', 'size = ">= 1 GB"') == ()
    assert rules('station = "8-ID-?"', 'station = "8-ID*"') == ()


def test_check_tells_of_last_copies_and_of_copies_that_nobody_makes() -> None:
    loose = parse(GOOD.replace('"3 months"', '"3 months"\nlast_copy = true'))
    assert "lets a last copy go" in " ".join(check(loose))
    assert "asks for none" in " ".join(check(parse(GOOD)))
    assert "no station follows it" in " ".join(check(parse(GOOD)))
