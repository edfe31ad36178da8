"""A facility with a past, to practise on: what the tutorial of a dataset's first year would take 100 days to make.

python -m lightkeep.testing.first_year FOLDER SCAN

Everything is done by the same verbs as at the command line. They get the clock as an argument, and this one tells
the day on which each thing is to have happened; the commands that follow use the machine's clock, as always.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from lightkeep import config
from lightkeep.cli.session import os_person
from lightkeep.facility import Facility, create_facility
from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import experiments, set_up
from lightkeep.lifecycle.replicas.archive import archive
from lightkeep.lifecycle.retention import policies
from lightkeep.lifecycle.upkeep import upkeep
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import Grant, Person, Principal, Role, Scope
from lightkeep.model.stores import Tier
from lightkeep.policy.document import default_text
from lightkeep.testing.populated import StillClock

EXPERIMENT: Final = "2026-11-lee-81234"
CLOSED_DAYS: Final = 100
"""Days that lie between the closing of the experiment and today: a little more than the 3 months of the policy."""
UPKEEP_DAYS: Final = (90, 69, 61, 60, 40, 32, 30, 10, 8, 7, 6, 2, 1)
"""Days before today on which the upkeep ran; a real one runs each minute."""


def first_year(root: Path, scan: Path, *, today: datetime) -> None:
    """Make a facility whose experiment was measured, archived and closed 100 days before today.

    Parameters
    ----------
    root: an empty folder, or a new one.
    scan: a file; it is kept as the dataset `tooth`.
    """
    clock = StillClock(today - timedelta(days=CLOSED_DAYS))
    root.mkdir(parents=True, exist_ok=True)
    (root / config.FILE_NAME).write_text(config.starter())
    settings = config.load(root / config.FILE_NAME)
    who = Principal(os_person().id)
    with create_facility(settings, admin=os_person(), clock=clock) as facility:
        _set_up(facility, root, who)
        ingest(facility, scan, experiment_id=EXPERIMENT, principal=who, name="tooth", quiet_s=0)
        archive(facility, principal=who, store_id="archive", experiment_id=EXPERIMENT)
        experiments.close(facility, EXPERIMENT, principal=who)
        for days in UPKEEP_DAYS:
            clock.at = today - timedelta(days=days)
            upkeep(facility)
            guards.confirm_clock(facility, principal=who)


def _set_up(facility: Facility, root: Path, who: Principal) -> None:
    set_up.add_station(facility, Station("2-BM", "Micro-tomography"), principal=who)
    experiments.create(facility, Experiment(EXPERIMENT, "2-BM", "Teeth"), principal=who)
    set_up.add_person(facility, Person("lee", "Ann Lee", "ann@example.org"), principal=who)
    set_up.grant(facility, Grant("lee", Role.PI, Scope.EXPERIMENT, EXPERIMENT), principal=who)
    set_up.add_store(
        facility, "archive", root / "stores" / "archive", principal=who, tier=Tier.TAPE, is_durable=True,
        failure_domain="another building",
    )  # fmt: skip
    policies.adopt(facility, default_text(), principal=who)


def main(arguments: list[str]) -> int:
    """Make the facility in the folder named first, of the file named second."""
    if len(arguments) != 2:
        sys.stderr.write("python -m lightkeep.testing.first_year FOLDER SCAN\n")
        return 2
    root, scan = map(Path, arguments)
    first_year(root.absolute(), scan, today=datetime.now(UTC))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
