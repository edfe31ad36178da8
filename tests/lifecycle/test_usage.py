"""The usage table, quotas and the states that follow from the policy."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.capacity import forecast, scenarios, usage
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import experiments, set_up
from lightkeep.lifecycle.retention import retain
from lightkeep.model.clock import SystemIds
from lightkeep.model.errors import Forbidden, InvalidInput, SignInRequired, SourceError, StoreFull
from lightkeep.model.experiments import Experiment, ExperimentState, Station
from lightkeep.model.people import ANONYMOUS, SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.retention import Hold, HoldKind, HoldScope
from lightkeep.model.stores import ReplicaState
from lightkeep.model.usage import Growth, Quota, Step
from lightkeep.policy import document
from lightkeep.testing.new_facility import new_facility
from lightkeep.testing.populated import StillClock
from lightkeep.testing.seed_facility import AS_OF, STATIONS, TB, seed_facility

ADMIN = Principal("admin")
EXP = "2026-11-lee-1"


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    """The seed's facility; read only."""
    with seed_facility(tmp_path_factory.mktemp("seed")) as made:
        yield made


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with new_facility(
        Config(tmp_path / "home"), admin=Person("admin", "Ada Admin"), clock=StillClock(), ids=SystemIds()
    ) as made:
        set_up.add_station(made, Station("2-BM"), principal=ADMIN)
        experiments.create(made, Experiment(EXP, "2-BM"), principal=ADMIN)
        set_up.add_person(made, Person("pi", "Pia Lee"), principal=ADMIN)
        set_up.grant(made, Grant("pi", Role.PI, Scope.EXPERIMENT, EXP), principal=ADMIN)
        yield made


def measure(facility: Facility, folder: Path, size: int, name: str = "scan") -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "data").write_bytes(b"x" * size)
    ingest(facility, folder / name, experiment_id=EXP, principal=SERVICE, quiet_s=0.0)


def at(facility: Facility, day: datetime) -> None:
    assert isinstance(facility.clock, StillClock)
    facility.clock.at = day


# ---- the seed's table


def test_the_seeds_station_table_is_reproduced(seed: Facility) -> None:
    rows = usage.table(seed, principal=ADMIN)
    assert {row.key: row.size for row in rows} == {station: size for station, (_, _, size) in STATIONS.items()}
    assert [row.key for row in rows][:4] == ["1-ID", "34", "CARS", "8-ID"]
    assert sum(row.size for row in rows) == pytest.approx(560 * TB, rel=0.01)
    online = rows[-1]
    assert (online.key, online.experiments, online.newest_at) == ("Bio-CAT", 0, None)
    assert all(row.size == row.measured for row in rows)


@pytest.mark.parametrize("by", usage.BY)
def test_every_way_to_count_gives_the_same_sum(seed: Facility, by: str) -> None:
    rows = usage.table(seed, by, principal=ADMIN)
    assert sum(row.size for row in rows) == sum(size for _, _, size in STATIONS.values())
    assert [row.size for row in rows] == sorted((row.size for row in rows), reverse=True)


def test_strangers_see_stations_and_no_stores(seed: Facility) -> None:
    assert {row.size for row in usage.table(seed, principal=ANONYMOUS)} == {0}
    for by in ("store", "tier"):
        with pytest.raises(SignInRequired):
            usage.table(seed, by, principal=ANONYMOUS)
    with pytest.raises(SignInRequired):
        usage.history(seed, principal=ANONYMOUS)
    with pytest.raises(InvalidInput):
        usage.table(seed, "colour", principal=ADMIN)


# ---- over time


def test_samples_make_the_history(facility: Facility, tmp_path: Path) -> None:
    begin = facility.clock.now()
    assert usage.tick(facility) == 0
    for day, size in enumerate((100, 20, 3)):
        at(facility, begin + timedelta(days=day))
        measure(facility, tmp_path, size, f"scan{day}")
        usage.tick(facility)
        usage.tick(facility)
    (series,) = usage.history(facility, principal=ADMIN)
    assert series.sizes == (100, 120, 123)
    assert [day.date() for day in series.days] == [(begin + timedelta(days=n)).date() for n in range(3)]
    (short,) = usage.history(facility, principal=ADMIN, days=1)
    assert short.sizes == (120, 123)


# ---- quotas


def test_a_hard_quota_refuses_and_says_whom_to_ask(facility: Facility, tmp_path: Path) -> None:
    usage.set_quota(facility, Quota(Scope.EXPERIMENT, EXP, 1000, is_hard=True), principal=ADMIN)
    measure(facility, tmp_path, 700)
    said = f"experiment {EXP} may have 1 kB and has 700 bytes: 301 bytes more"
    with pytest.raises(StoreFull, match=said) as refused:
        measure(facility, tmp_path, 301, "more")
    assert "Pia Lee" in refused.value.remedy
    assert facility.catalog.view(ADMIN).datasets(experiment_id=EXP).total == 1
    measure(facility, tmp_path, 300, "fits")
    ingest(facility, tmp_path / "fits", experiment_id=EXP, principal=SERVICE, quiet_s=0.0)  # known: nothing more


def test_a_soft_quota_only_warns(facility: Facility, tmp_path: Path) -> None:
    usage.set_quota(facility, Quota(Scope.STATION, "2-BM", 1000), principal=ADMIN)
    measure(facility, tmp_path, 799)
    (filling,) = usage.quotas(facility, principal=ADMIN)
    assert not filling.is_warning
    measure(facility, tmp_path, 1, "more")
    assert usage.quotas(facility, principal=ADMIN)[0].is_warning
    measure(facility, tmp_path, 5000, "far")
    assert usage.quotas(facility, principal=ADMIN)[0].fraction == pytest.approx(5.8)


def test_a_station_quota_is_not_shown_to_who_sees_a_part(facility: Facility) -> None:
    usage.set_quota(facility, Quota(Scope.STATION, "2-BM", 1000), principal=ADMIN)
    usage.set_quota(facility, Quota(Scope.EXPERIMENT, EXP, 1000), principal=ADMIN)
    assert [each.quota.scope for each in usage.quotas(facility, principal=Principal("pi"))] == [Scope.EXPERIMENT]
    with pytest.raises(Forbidden):
        usage.set_quota(facility, Quota(Scope.EXPERIMENT, EXP, 10**18), principal=Principal("pi"))


# ---- export


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "=cmd|' /C calc'!A0"])
def test_a_spreadsheet_takes_no_cell_as_a_formula(text: str) -> None:
    ((_, *_), (cell, number)) = csv.reader(io.StringIO(usage.to_csv(["a", "b"], [[text, -5]]), newline=""))
    assert cell == "'" + text
    assert number == "-5"


# ---- states


POLICY = """
id = "three"
stations = ["*"]
[[rule]]
name = "all"
notice_days = [30, 7, 1]
[rule.hot]
keep = "90 days"
min_copies = 1
"""


def adopt(facility: Facility, text: str = POLICY) -> None:
    with facility.catalog.change(SERVICE) as tx:
        tx.adopt_policy(text)


def state(facility: Facility) -> ExperimentState:
    return facility.catalog.view(SERVICE).experiment(EXP).state


def test_a_closed_experiment_is_retained_expiring_and_expired_as_its_policy_says(
    facility: Facility, tmp_path: Path
) -> None:
    adopt(facility)
    begin = facility.clock.now()
    measure(facility, tmp_path, 10)
    assert retain.tick(facility) == 0  # open
    experiments.close(facility, EXP, principal=ADMIN)
    assert retain.tick(facility) == 1
    assert (state(facility), retain.tick(facility)) == (ExperimentState.RETAINED, 0)
    at(facility, begin + timedelta(days=60) - timedelta(seconds=1))
    assert retain.tick(facility) == 0
    at(facility, begin + timedelta(days=60))
    retain.tick(facility)
    assert state(facility) is ExperimentState.EXPIRING
    hold = experiments.extend(
        facility, EXP, until=begin + timedelta(days=400), reason="paper", principal=Principal("pi")
    )
    retain.tick(facility)
    assert state(facility) is ExperimentState.RETAINED
    with facility.catalog.change(SERVICE) as tx:
        tx.release_hold(hold.id)
    retain.tick(facility)
    dataset = facility.catalog.view(SERVICE).dataset_named(EXP, "scan")
    assert dataset
    replicas = facility.catalog.view(SERVICE).replicas(dataset.id)
    with facility.catalog.change(SERVICE) as tx:
        tx.set_replicas(replicas, state=ReplicaState.DELETE_PENDING)
    assert retain.tick(facility) == 0  # still in the trash
    with facility.catalog.change(SERVICE) as tx:
        tx.set_replicas(replicas, state=ReplicaState.DELETED)
    retain.tick(facility)
    assert state(facility) is ExperimentState.EXPIRED
    assert facility.catalog.view(ADMIN).files(dataset.id).total == 1  # records stay
    verbs = [each.verb for each in facility.catalog.view(SERVICE).events(experiment_id=EXP, limit=1000)]
    assert [verb for verb in verbs if verb in ("experiment.expiring", "experiment.expired")] == [
        "experiment.expiring", "experiment.expiring", "experiment.expired",
    ]  # fmt: skip


def test_without_a_policy_it_is_retained_for_ever(facility: Facility, tmp_path: Path) -> None:
    measure(facility, tmp_path, 10)
    experiments.close(facility, EXP, principal=ADMIN)
    at(facility, datetime(2999, 1, 1, tzinfo=UTC))
    retain.tick(facility)
    assert state(facility) is ExperimentState.RETAINED


def test_a_report_tells_what_lies_where_until_when_and_why(facility: Facility, tmp_path: Path) -> None:
    adopt(facility)
    measure(facility, tmp_path, 10)
    experiments.close(facility, EXP, principal=ADMIN)
    found = retain.report(facility, EXP, principal=Principal("pi"))
    (place,) = found.places
    assert (place.store_id, place.size, place.copies) == ("central", 10, 1)
    assert place.leaves_at == facility.clock.now() + timedelta(days=90)
    assert "rule all of three@1" in place.why


# ---- forecast


def keep(days: int, *, last_copy: bool = True) -> tuple[document.Policy, ...]:
    final = "last_copy = true" if last_copy else "min_copies = 1"
    return (document.parse(POLICY.replace("90 days", f"{days} days").replace("min_copies = 1", final)),)


def test_the_seeds_store_is_full_when_growth_and_room_say(seed: Facility) -> None:
    (outlook,) = forecast.outlooks(seed, principal=ADMIN, days=1000)
    central = next(path for path in outlook.paths if path.depot.id == "central")
    stored = sum(size for _, _, size in STATIONS.values())
    days = (1_500 * TB - stored) / outlook.bytes_per_day
    assert outlook.bytes_per_day == pytest.approx(stored / 241, rel=1e-6)  # since 3 February
    assert central.full_on == AS_OF.date() + timedelta(days=int(days))


def test_a_policy_in_a_scenario_ends_on_the_plateau(seed: Facility) -> None:
    assumed = forecast.Scenario("keep 90", policies=keep(90), closing_days=0)
    _, outlook = forecast.outlooks(seed, [assumed], principal=ADMIN, days=400)
    central = next(path for path in outlook.paths if path.depot.id == "central")
    assert central.used[-1] == pytest.approx(outlook.bytes_per_day * (90 + 14), abs=100)  # and the trash
    assert central.full_on is None


def test_without_a_store_for_copies_nothing_may_leave_and_the_forecast_says_so(seed: Facility) -> None:
    assumed = forecast.Scenario("no copies", policies=keep(90, last_copy=False))
    plain, outlook = forecast.outlooks(seed, [assumed], principal=ADMIN, days=300)
    assert outlook.paths[1].used == plain.paths[1].used
    assert any("no store takes the copies" in note for note in outlook.notes)


def test_a_hold_on_the_facility_keeps_everything_in_the_forecast(facility: Facility, tmp_path: Path) -> None:
    adopt(facility, POLICY.replace("min_copies = 1", "last_copy = true"))
    measure(facility, tmp_path, 1000)
    experiments.close(facility, EXP, principal=ADMIN)
    (free,) = forecast.outlooks(facility, principal=ADMIN, days=200)
    with facility.catalog.change(SERVICE) as tx:
        tx.add_hold(Hold("hold_1", HoldScope.EXPERIMENT, EXP, HoldKind.LEGAL, "court"))
    (held,) = forecast.outlooks(facility, principal=ADMIN, days=200)
    assert held.paths[0].used[-1] - free.paths[0].used[-1] == 1000


def test_growth_that_was_set_replaces_what_was_measured(facility: Facility, tmp_path: Path) -> None:
    measure(facility, tmp_path, 1000)
    growth = Growth("2-BM", "", 5e12, 1.0, (Step(facility.clock.now().date() + timedelta(days=10), 10.0),))
    usage.set_growth(facility, growth, principal=ADMIN)
    (outlook,) = forecast.outlooks(facility, principal=ADMIN, days=20)
    assert outlook.bytes_per_day == pytest.approx(5e12)
    assert outlook.paths[0].used[-1] == pytest.approx(10 * 5e12 + 10 * 5e13, rel=1e-9)
    usage.unset_growth(facility, "2-BM", principal=ADMIN)
    assert forecast.outlooks(facility, principal=ADMIN, days=1)[0].bytes_per_day == 1000


def test_a_forecast_is_for_who_sees_the_whole_facility(facility: Facility) -> None:
    with pytest.raises(Forbidden):
        forecast.outlooks(facility, principal=Principal("pi"))


SCENARIO = """
[[scenario]]
name = "another site"
policy = "p.toml"
factor = 10
archive = "nersc"
closing_days = 0
[scenario.growth."8-ID*"]
per_day = "2 TB"
per_year = 1.5
steps = [["2018-06-01", 100]]
[[scenario.store]]
id = "nersc"
tier = "remote"
capacity = "50 PB"
durable = true
[[scenario.store]]
id = "central"
upgrades = [["2018-01-01", "3 PB"]]
[[scenario.link]]
from = "central"
to = "nersc"
speed = "10 Gbit/s"
"""


def test_a_scenario_file_is_read_and_run(seed: Facility, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(POLICY)
    (tmp_path / "s.toml").write_text(SCENARIO)
    (found,) = scenarios.read(tmp_path / "s.toml", seed.catalog.view(ADMIN).stores())
    assert found.growth["8-ID*"].steps == (Step(date(2018, 6, 1), 100.0),)
    assert found.links[0].bytes_per_day == 108 * TB
    assert found.upgrades["central"] == ((date(2018, 1, 1), 3000 * TB),)
    _, outlook = forecast.outlooks(seed, [found], principal=ADMIN, days=730)
    paths = {path.depot.id: path for path in outlook.paths}
    assert paths["nersc"].used[-1] > 0
    assert paths["central"].waiting[-1] >= 0
    assert set(paths) == {"central", "archive", "nersc"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("factor", "factr", "`factr` is not known"),
        ('"10 Gbit/s"', '"fast"', "is not a speed"),
        ('"50 PB"', "50", "is not a size"),
        ('archive = "nersc"', 'archive = "moon"', "there is no store moon"),
        ('tier = "remote"', 'tier = "far"', "far is not a tier"),
        ('to = "nersc"', 'to = "moon"', "names the store 'moon'"),
        ("factor = 10", "factor = -1", "is a number from 0"),
        ('["2018-06-01", 100]', '"soon"', "is not a day and a value"),
        ('policy = "p.toml"', 'policy_text = "id = 3"', "another site:"),
        ("[[scenario]]", "[[scenari]]", "and nothing else"),
    ],
)
def test_a_wrong_scenario_says_what_is_wrong(
    seed: Facility, tmp_path: Path, old: str, new: str, says: str
) -> None:
    (tmp_path / "p.toml").write_text(POLICY)
    (tmp_path / "s.toml").write_text(SCENARIO.replace(old, new, 1))
    with pytest.raises(InvalidInput, match=says):
        scenarios.read(tmp_path / "s.toml", seed.catalog.view(ADMIN).stores())


def test_a_scenario_that_is_not_there_is_said_so(seed: Facility, tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        scenarios.read(tmp_path / "none.toml", [])
