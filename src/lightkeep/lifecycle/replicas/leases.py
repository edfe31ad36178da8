"""Leases: who reads a dataset right now keeps all of its replicas where they are (P2, R2).

    with leased(facility, dataset_id, LeaseKind.DOWNLOAD, holder=principal.id) as lease:
        for block in blocks:
            lease.renew()      # cheap: writes once in a few minutes

A reader that dies blocks nothing for ever: its lease runs out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from lightkeep.model.errors import Conflict, NotFound
from lightkeep.model.people import SERVICE
from lightkeep.model.retention import Lease, LeaseKind

if TYPE_CHECKING:
    from lightkeep.facility import Facility

LENGTH: Final = timedelta(minutes=15)
"""A lease that is not renewed lasts so long: longer than one block of a slow client takes."""


class Holding:
    """A lease that is held. `renew` may be called from several threads, as often as one likes."""

    def __init__(self, facility: Facility, lease: Lease) -> None:
        self._facility = facility
        self._lease = lease
        self._renew_at = lease.expires_at - LENGTH / 2
        self._lock = threading.Lock()

    def renew(self) -> None:
        """Make it last `LENGTH` from now, when half of that has passed.

        Raises
        ------
        Conflict: it ran out and was cleared away: what is read may be on its way out.
        """
        now = self._facility.clock.now()
        with self._lock:
            if now < self._renew_at:
                return
            self._renew_at = now + LENGTH / 2
        try:
            with self._facility.catalog.change(SERVICE) as tx:
                tx.renew_lease(self._lease.id, expires_at=now + LENGTH)
        except NotFound as error:
            raise Conflict(
                f"reading dataset {self._lease.dataset_id} took a pause of more than {LENGTH}",
                remedy="begin again: what was read so far is kept",
            ) from error


@contextmanager
def leased(facility: Facility, dataset_id: str, kind: LeaseKind, *, holder: str) -> Iterator[Holding]:
    """Keep a dataset's replicas from being deleted while the block runs.

    Parameters
    ----------
    holder: who reads, for people: a run's, a person's or a plan's id.

    Raises
    ------
    NotFound: there is no such dataset.
    """
    lease_id = facility.ids.new("lease")
    lease = Lease(lease_id, dataset_id, kind, holder, facility.clock.now() + LENGTH)
    with facility.catalog.change(SERVICE) as tx:
        tx.add_lease(lease)
    try:
        yield Holding(facility, lease)
    finally:
        with facility.catalog.change(SERVICE) as tx:
            tx.end_lease(lease_id)
