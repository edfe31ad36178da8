"""Repair: a corrupt replica is replaced by a new one, copied from a good one that is hashed while it is read.

Nothing is deleted or overwritten: the corrupt bytes stay under their name, the new copy gets a name of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightkeep.lifecycle.replicas.archive import archive_files
from lightkeep.lifecycle.replicas.copies import LIVE, Copying, by_file, seek
from lightkeep.lifecycle.replicas.leases import leased
from lightkeep.lifecycle.replicas.transfer import Pace
from lightkeep.model.datasets import Dataset, DatasetState, File
from lightkeep.model.errors import LightkeepError
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.retention import LeaseKind
from lightkeep.model.stores import Replica, ReplicaState, split_member

if TYPE_CHECKING:
    from lightkeep.facility import Facility


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did."""

    repaired: tuple[str, ...] = ()
    """Paths of which a store has a good copy again."""
    failed: tuple[str, ...] = ()
    """Paths of which no good copy was found, or whose store takes none now."""


def repair_files(
    facility: Facility,
    dataset_id: str,
    *,
    principal: Principal,
    file_ids: Sequence[str] | None = None,
    pace: Pace = Pace(),  # noqa: B008 (frozen)
) -> Repaired:
    """Give every store that has only corrupt copies of a dataset's files new ones. Idempotent.

    Whether the principal may do so has been asked before. A store that is registered in place is never written:
    what is corrupt there stays so. A file in an archive unit is archived again, into a new unit.

    Parameters
    ----------
    file_ids: only these files.
    """
    view = facility.catalog.view(SERVICE)
    dataset = view.dataset(dataset_id)
    if dataset.state is DatasetState.RECEIVING:
        return Repaired()
    held = [each for each in view.held_of(dataset_id) if file_ids is None or each.file.id in file_ids]
    work = _Repair(facility, principal, dataset, {each.file.id: each.file for each in held}, pace)
    replicas = by_file(each.replica for each in held)
    repaired: list[str] = []
    failed: list[str] = []
    for store_id in sorted({each.replica.store_id for each in held}):
        broken = [file_id for file_id, of in replicas.items() if _is_broken(of, store_id)]
        if not broken or not facility.stores[store_id].record.is_managed:
            continue
        paths = {work.files[each].path for each in broken}
        with leased(facility, dataset_id, LeaseKind.TRANSFER, holder="repair"):
            try:
                left = paths & work.store(store_id, broken, replicas)
            except LightkeepError:  # that store takes nothing now; the others may
                left = paths
        repaired += sorted(paths - left)
        failed += sorted(left)
    return Repaired(tuple(repaired), tuple(failed))


@dataclass(frozen=True)
class _Repair:
    """One call of `repair_files`."""

    facility: Facility
    principal: Principal
    dataset: Dataset
    files: Mapping[str, File]
    pace: Pace

    def store(self, store_id: str, broken: Sequence[str], replicas: Mapping[str, Sequence[Replica]]) -> set[str]:
        """Give a store new copies; return the paths of which none could be read."""
        failed: set[str] = set()
        packed = [each for each in broken if _was_in_unit(replicas[each], store_id)]
        if packed:
            again = [self.files[each] for each in packed]
            done = archive_files(self.facility, again, store_id=store_id, principal=self.principal, pace=self.pace)
            failed |= set(done.failed)
        plain = [self.files[each] for each in broken if each not in packed]
        if plain:
            station_id = self.facility.catalog.view(SERVICE).experiment(self.dataset.experiment_id).station_id
            stores = self.facility.stores
            sought = seek(self.dataset, station_id, plain, replicas, stores=stores, target_id=store_id)
            copying = Copying(self.facility, stores[store_id], principal=self.principal, pace=self.pace)
            failed |= set(copying.run(sought).failed)
        return failed


def _is_broken(replicas: Sequence[Replica], store_id: str) -> bool:
    here = [each for each in replicas if each.store_id == store_id]
    return any(each.state is ReplicaState.CORRUPT for each in here) and not any(
        each.state in LIVE for each in here
    )


def _was_in_unit(replicas: Sequence[Replica], store_id: str) -> bool:
    here = [each for each in replicas if each.store_id == store_id and each.state is ReplicaState.CORRUPT]
    return all(split_member(each.key) is not None for each in here)
