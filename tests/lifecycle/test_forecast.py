"""The forecast of a facility, against what its purges then do."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest

from lightkeep.config import Config, PurgeConfig
from lightkeep.lifecycle import outbox
from lightkeep.lifecycle.capacity import forecast
from lightkeep.lifecycle.retention import notices, purge, purge_plan
from lightkeep.lifecycle.retention.purge_destroy import destroy
from lightkeep.model.errors import Conflict
from lightkeep.model.experiments import Experiment
from lightkeep.model.people import SERVICE
from lightkeep.model.stores import ReplicaState
from lightkeep.policy.forecast import Path as Course
from lightkeep.testing.retained import ADMIN, POLICY, STATION, Retained, retained

SHORT = POLICY.replace('"3 months"', '"20 days"').replace('keep_under_pressure = "2 months"\n', "").replace(
    "undo_days = 14", "undo_days = 3"
)  # fmt: skip
QUIET, DAYS = 13, 30
TRASH = 14
"""Nothing may go before the one; all that may is gone by the other."""


def measured(kept: Retained, seed: int) -> None:
    """Experiments of ten days, each with data of a size of its own, closed in the evening."""
    chance = random.Random(seed)
    for number in range(8):
        name = f"2026-1-exp-{number}"
        with kept.facility.catalog.change(SERVICE) as tx:
            tx.add_experiment(Experiment(name, STATION))
        on = ("central", "vault") if chance.random() < 0.8 else ("central",)  # no second copy: it stays
        kept.dataset(f"scan{number}", {"a": b"a" * chance.randrange(1, 500)}, experiment=name, on=on)
        kept.close(name)
        kept.clock.at += timedelta(days=chance.randrange(0, 3), hours=chance.randrange(0, 5))


def central(kept: Retained) -> int:
    view = kept.facility.catalog.view(SERVICE)
    sizes = {file.id: file.size for each in kept.datasets.values() for file in view.files(each.id)}
    return sum(
        sizes[replica.file_id]
        for each in kept.datasets.values()
        for replica in view.replicas(each.id)
        if replica.store_id == "central" and replica.state is not ReplicaState.DELETED
    )


def day_of_purging(kept: Retained) -> None:
    """All that a diligent administrator does in the last minute of a day."""
    kept.trust_clock()
    kept.verified()
    try:
        plan = purge_plan.plan(kept.facility, "central", principal=ADMIN)
    except Conflict:
        pass
    else:
        purge_plan.approve(kept.facility, plan.id, principal=ADMIN)
        purge.run(kept.facility, plan.id, principal=ADMIN)
    destroy(kept.facility, principal=ADMIN)


@pytest.mark.parametrize("seed", range(2))
def test_the_purges_of_a_month_are_those_that_were_forecast(tmp_path: Path, seed: int) -> None:
    kept = retained(tmp_path, policy=SHORT, config=Config(tmp_path, purge=PurgeConfig(max_fraction=1.0)))
    measured(kept, seed)
    begin = kept.clock.at
    midnight = begin.replace(hour=0, minute=0, second=0)
    kept.clock.at = midnight + timedelta(days=QUIET)
    for experiment in sorted({each.experiment_id for each in kept.datasets.values()}):
        kept.told(experiment=experiment)
    kept.clock.at = begin
    still = forecast.Scenario("nothing new", factor=0.0)
    _, outlook = forecast.outlooks(kept.facility, [still], principal=ADMIN, days=DAYS)
    course: Course = next(path for path in outlook.paths if path.depot.id == "central")
    assert len(set(course.used[:QUIET])) == 1
    real = []
    for day in range(QUIET, DAYS):
        kept.clock.at = midnight + timedelta(days=day, hours=23, minutes=59, seconds=30)
        day_of_purging(kept)
        real.append(central(kept))
    assert tuple(real) == course.used[QUIET:]
    assert len(set(real)) > 2


@pytest.mark.parametrize("waited", [0, 50, 200])
def test_a_forecast_day_of_purging_is_the_first_on_which_it_may_go_the_notices_included(
    tmp_path: Path, waited: int
) -> None:
    kept = retained(tmp_path, config=Config(tmp_path, purge=PurgeConfig(max_fraction=1.0)))
    kept.dataset("scan", {"a": b"a" * 100})
    kept.close()
    kept.clock.at += timedelta(days=waited)  # nobody was told meanwhile: no mail server, say
    kept.trust_clock()
    still = forecast.Scenario("nothing new", factor=0.0)
    _, outlook = forecast.outlooks(kept.facility, [still], principal=ADMIN, days=200)
    course: Course = next(path for path in outlook.paths if path.depot.id == "central")
    foretold = course.days[next(number for number, used in enumerate(course.used) if not used)]
    midnight = kept.clock.at.replace(hour=0, minute=0, second=0)
    announce(kept)
    for day in range(200):
        kept.clock.at = midnight + timedelta(days=day, hours=23, minutes=59, seconds=30)
        is_soon = kept.clock.at.date() >= foretold - timedelta(days=TRASH + 9)
        if is_soon or day % 7 == 0:  # seldom at first, to save time
            announce(kept)
        if is_soon and may_go(kept):
            break
    assert kept.clock.at.date() == foretold - timedelta(days=TRASH)
    assert (foretold - midnight.date()).days - TRASH == {0: 90, 50: 40, 200: 30}[waited]


def announce(kept: Retained) -> None:
    """What the upkeep of a day does about notices."""
    kept.trust_clock()
    notices.announce(kept.facility)
    outbox.send_waiting(kept.facility)


def may_go(kept: Retained) -> bool:
    """Return whether something may go from `central` now."""
    kept.verified()
    try:
        purge_plan.plan(kept.facility, "central", principal=ADMIN)
    except Conflict:
        return False
    return True
