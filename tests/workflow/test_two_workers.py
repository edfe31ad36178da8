"""Two real worker processes on PostgreSQL: one is paused past its lease, killed, or cut from its database."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lightkeep.model.people import SERVICE

sys.path.insert(0, str(Path(__file__).parent))
from two_workers import LEASE_S, Site, assert_done_once, opened_site, terminate_backends, until

pytestmark = [pytest.mark.postgres, pytest.mark.crash]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with opened_site(tmp_path) as made:
        yield made


def test_a_worker_paused_past_its_lease_commits_nothing_when_it_goes_on(site: Site) -> None:
    (site.gates / "hold-2").touch()
    first = site.start_worker()
    run_id = site.queue_run()
    until(lambda: site.computed()[2] == 1)
    os.kill(first.pid, signal.SIGSTOP)
    second = site.start_worker()
    until(lambda: site.computed()[2] == 2)  # the second one is at it: the lease is over
    os.kill(first.pid, signal.SIGCONT)
    time.sleep(0.3)
    (site.gates / "hold-2").unlink()
    until(lambda: site.facility.catalog.view(SERVICE).run(run_id).state.is_over)
    until(lambda: len(site.workers_known()) == 2)  # the first has begun a new life
    assert first.poll() is None
    assert second.poll() is None
    assert_done_once(site)


def test_what_a_killed_worker_had_in_hand_is_done_within_twice_the_lease(site: Site) -> None:
    (site.gates / "hold-1").touch()
    first = site.start_worker()
    site.queue_ingest()
    until(lambda: site.computed()[1] == 1)
    second = site.start_worker()
    until(lambda: second.pid in site.workers_known())
    first.kill()
    killed_at = datetime.now(UTC)
    (site.gates / "hold-1").unlink()
    until(lambda: bool(site.runs()) and site.runs()[0].state.is_over)
    assert_done_once(site)
    (lost,) = [
        each for each in site.facility.catalog.view(SERVICE).events(limit=1000) if each.verb == "worker.lost"
    ]
    assert lost.at - killed_at < timedelta(seconds=2 * LEASE_S)


def test_workers_that_die_on_this_host_are_known_long_before_their_lease_is_over(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("two_workers.LEASE_S", 3600.0)
    (site.gates / "hold-1").touch()
    first = site.start_worker()
    site.queue_run()
    until(lambda: site.computed()[1] == 1)
    first.kill()
    first.wait()
    second = site.start_worker()  # it looks when it joins
    until(lambda: site.computed()[1] == 2)
    third = site.start_worker()  # and it, while it watches
    until(lambda: third.pid in site.workers_known())
    second.kill()
    (site.gates / "hold-1").unlink()
    until(lambda: site.runs()[0].state.is_over)
    assert_done_once(site)
    assert site.workers_known() == [third.pid]
    locks = site.facility.config.scratch / "workers"
    assert len(list(locks.glob("*/*"))) == 2  # the second's is cleared up when a worker joins


def test_a_run_survives_the_loss_of_every_database_connection(site: Site) -> None:
    (site.gates / "hold-0").touch()
    (site.gates / "hold-2").touch()
    site.start_worker()
    site.queue_run()
    for row in (0, 2):
        until(lambda row=row: site.computed()[row] == 1)
        terminate_backends(site)
        (site.gates / f"hold-{row}").unlink()
    until(lambda: site.runs()[0].state.is_over)
    assert_done_once(site)
    assert site.computed() == {0: 1, 1: 1, 2: 1, 3: 1}
