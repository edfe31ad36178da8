"""Who may hold what, who sees a hold, and that readers keep what they read."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lightkeep.lifecycle.replicas.leases import LENGTH, leased
from lightkeep.lifecycle.retention import holds
from lightkeep.model.errors import Conflict, Forbidden, InvalidInput, NotFound
from lightkeep.model.people import ANONYMOUS, SERVICE, Principal
from lightkeep.model.retention import HoldKind, HoldScope, LeaseKind, NoticeState
from lightkeep.testing.retained import ADMIN, EXPERIMENT, MANAGER, MEMBER, PI, STATION

STRANGER = Principal("nobody-we-know")


def add(kept, who, *, scope=HoldScope.EXPERIMENT, on=EXPERIMENT, kind=HoldKind.USER, days=None):
    until = kept.clock.at + timedelta(days=days) if days else None
    return holds.add(kept.facility, scope, on, reason="it is needed", principal=who, kind=kind, until=until)


def test_the_pi_extends_the_staff_hold_and_administrators_hold_by_law(kept):
    assert add(kept, PI, kind=HoldKind.EXTENSION, days=90).until is not None
    assert add(kept, MANAGER).until is None
    assert add(kept, ADMIN, kind=HoldKind.LEGAL).kind is HoldKind.LEGAL
    for who, kind in ((PI, HoldKind.USER), (PI, HoldKind.LEGAL), (MANAGER, HoldKind.LEGAL)):
        with pytest.raises(Forbidden):
            add(kept, who, kind=kind)
    with pytest.raises(Forbidden):
        add(kept, MEMBER, kind=HoldKind.EXTENSION, days=90)
    for who in (STRANGER, ANONYMOUS):
        with pytest.raises(NotFound):
            add(kept, who, kind=HoldKind.EXTENSION, days=90)


def test_wide_holds_need_those_who_are_responsible(kept):
    assert add(kept, MANAGER, scope=HoldScope.STATION, on=STATION)
    assert add(kept, ADMIN, scope=HoldScope.STORE, on="central")
    assert add(kept, ADMIN, scope=HoldScope.FACILITY, on="")
    for scope, on in ((HoldScope.STORE, "central"), (HoldScope.FACILITY, "")):
        with pytest.raises(Forbidden):
            add(kept, MANAGER, scope=scope, on=on)
    with pytest.raises(Forbidden):
        add(kept, PI, scope=HoldScope.STATION, on=STATION)


def test_a_hold_says_why_and_ends_later_than_now(kept):
    for reason in ("", "   ", "x" * 2001):
        with pytest.raises(InvalidInput):
            holds.add(kept.facility, HoldScope.EXPERIMENT, EXPERIMENT, reason=reason, principal=ADMIN)
    with pytest.raises(InvalidInput):
        add(kept, PI, kind=HoldKind.EXTENSION)
    with pytest.raises(InvalidInput):
        add(kept, ADMIN, days=-1)
    for scope, on in ((HoldScope.FACILITY, "x"), (HoldScope.EXPERIMENT, "")):
        with pytest.raises((InvalidInput, NotFound)):
            add(kept, ADMIN, scope=scope, on=on)


@pytest.mark.parametrize("scope", list(HoldScope))
def test_a_hold_reaches_everything_under_it_and_is_seen_by_who_sees_that(kept, scope):
    scan = kept.datasets["scan"]
    file = kept.facility.catalog.view(SERVICE).file(scan.id, "a.h5")
    on = {"facility": "", "station": STATION, "store": "central", "experiment": EXPERIMENT,
          "dataset": scan.id, "file": file.id}[scope]  # fmt: skip
    made = add(kept, ADMIN, scope=scope, on=on)
    over = kept.facility.catalog.view(PI).holds_over(scan.id)
    assert [each.id for each in over] == [made.id]
    is_wide = scope in (HoldScope.FACILITY, HoldScope.STATION, HoldScope.STORE)
    assert kept.facility.catalog.view(MEMBER).holds().total == 1
    assert kept.facility.catalog.view(STRANGER).holds().total == int(is_wide)
    assert kept.facility.catalog.view(ANONYMOUS).holds().total == 0
    with pytest.raises(NotFound):
        kept.facility.catalog.view(ANONYMOUS).hold(made.id)
    with pytest.raises(NotFound):
        kept.facility.catalog.view(STRANGER).holds_over(scan.id)


def test_a_hold_is_released_once_by_who_may_set_it(kept):
    made = add(kept, MANAGER)
    with pytest.raises(Forbidden):
        holds.release(kept.facility, made.id, principal=PI)
    ended = holds.release(kept.facility, made.id, principal=MANAGER)
    assert ended.released_by == MANAGER.id
    with pytest.raises(Conflict):
        holds.release(kept.facility, made.id, principal=MANAGER)
    assert kept.facility.catalog.view(PI).holds().total == 0
    assert kept.facility.catalog.view(PI).holds(standing=False).total == 1
    legal = add(kept, ADMIN, kind=HoldKind.LEGAL)
    with pytest.raises(Forbidden):
        holds.release(kept.facility, legal.id, principal=MANAGER)


def test_a_hold_ends_by_itself(kept):
    add(kept, PI, kind=HoldKind.EXTENSION, days=10)
    assert kept.facility.catalog.view(PI).holds().total == 1
    kept.clock.at += timedelta(days=10)
    assert kept.facility.catalog.view(PI).holds().total == 0


def test_a_hold_takes_back_what_was_announced(kept):
    view = kept.facility.catalog.view(SERVICE)
    assert {each.state for each in view.notices()} == {NoticeState.SENT}
    add(kept, PI, kind=HoldKind.EXTENSION, days=10)
    assert {each.state for each in view.notices()} == {NoticeState.VOID}


def test_a_lease_stands_while_its_reader_lives_and_runs_out_when_it_has_died(kept):
    scan = kept.datasets["scan"].id
    readers = lambda: kept.facility.catalog.view(SERVICE).readers([scan])  # noqa: E731
    with leased(kept.facility, scan, LeaseKind.DOWNLOAD, holder="mia") as lease:
        assert list(readers()) == [scan]
        for _ in range(5):
            kept.clock.at += LENGTH * 0.7
            lease.renew()
        assert list(readers()) == [scan]
    assert readers() == {}
    with leased(kept.facility, scan, LeaseKind.DOWNLOAD, holder="mia") as dead:
        kept.clock.at += LENGTH
        assert readers() == {}
        with kept.facility.catalog.change(SERVICE) as tx:
            assert tx.clear_leases() == 1
        with pytest.raises(Conflict, match="pause"):
            dead.renew()
