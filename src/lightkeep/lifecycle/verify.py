"""Read every byte of a dataset back from its stores, past the cache, and compare it with the manifest.

Nothing is repaired or deleted here: a replica that differs is marked corrupt, and everybody can see it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightkeep.facility import Facility
from lightkeep.lifecycle.manifest import all_files
from lightkeep.model.datasets import Dataset, File
from lightkeep.model.errors import NotFound, StorageError, StoreUnavailable
from lightkeep.model.people import Principal, Verb
from lightkeep.model.stores import Proof, Replica, ReplicaState
from lightkeep.model.techniques import Report

_CHECKED = (ReplicaState.PRESENT, ReplicaState.VERIFIED, ReplicaState.SUSPECT)
_GROUP = 1000  # replicas whose outcome is written in one transaction


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification found."""

    checked: int
    """Replicas read in full and found equal."""
    corrupt: tuple[str, ...] = ()
    """Paths with a replica that is absent, or differs from the manifest."""
    suspect: tuple[str, ...] = ()
    """Paths with a replica that the medium could not read this time; verify again decides."""
    unproven: tuple[str, ...] = ()
    """Paths found equal where the bytes may have come from this machine's memory: not counted as verified."""
    unavailable: tuple[str, ...] = ()
    """Stores that could not be asked: nothing is known, nothing is marked."""


def verify(
    facility: Facility, dataset_id: str, *, principal: Principal, report: Report | None = None
) -> VerifyReport:
    """Re-read each replica of a dataset and record when that was, and what it proved (invariants V1, V3).

    A replica that differs becomes corrupt; one that comes back equal becomes verified, also when it was suspect.
    Raises NotFound or Forbidden when the principal may not see or read the dataset.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.READ, dataset_id=dataset_id)
    dataset = view.dataset(dataset_id)
    files = {file.id: file for file in all_files(view, dataset_id)}
    work = _Verification(facility, principal, dataset, report)
    replicas = [r for r in view.replicas(dataset_id) if r.state in _CHECKED and r.file_id in files]
    for start in range(0, len(replicas), _GROUP):
        work.check([(r, files[r.file_id]) for r in replicas[start : start + _GROUP]])
    return VerifyReport(
        checked=work.checked,
        corrupt=tuple(work.corrupt),
        suspect=tuple(work.suspect),
        unproven=tuple(work.unproven),
        unavailable=tuple(sorted(work.unavailable)),
    )


class _Verification:
    """One call of `verify`."""

    def __init__(self, facility: Facility, principal: Principal, dataset: Dataset, report: Report | None) -> None:
        self.facility = facility
        self.principal = principal
        self.dataset = dataset
        self.report = report
        self.checked = 0
        self.bytes = 0
        self.corrupt: list[str] = []
        self.suspect: list[str] = []
        self.unproven: list[str] = []
        self.unavailable: set[str] = set()

    def check(self, pairs: list[tuple[Replica, File]]) -> None:
        """Read one group of replicas and write down what was found, in one transaction."""
        good: dict[Proof, list[Replica]] = {}
        suspect: list[Replica] = []
        bad: dict[Proof, list[Replica]] = {}
        for replica, file in pairs:
            state, proof = self._read(replica, file)
            if state is ReplicaState.VERIFIED:
                good.setdefault(proof, []).append(replica)
            if state in (ReplicaState.SUSPECT, ReplicaState.CORRUPT) and replica.state is not ReplicaState.SUSPECT:
                suspect.append(replica)
            if state is ReplicaState.CORRUPT:
                bad.setdefault(proof, []).append(replica)
            self.bytes += file.size
            if self.report is not None:
                self.report(min(1.0, self.bytes / max(self.dataset.size, 1)), f"read back {file.path}")
        with self.facility.catalog.change(self.principal) as tx:
            for proof, replicas in good.items():
                tx.set_replicas(
                    replicas, state=ReplicaState.VERIFIED, verified_at=self.facility.clock.now(), proof=proof
                )
            tx.set_replicas(suspect, state=ReplicaState.SUSPECT)
            for proof, replicas in bad.items():
                tx.set_replicas(replicas, state=ReplicaState.CORRUPT, proof=proof)

    def _read(self, replica: Replica, file: File) -> tuple[ReplicaState, Proof]:
        """Return what was learned and how: verified, suspect, corrupt; present means nothing new."""
        store = self.facility.stores[replica.store_id]
        try:
            found = store.verify(replica.key)
        except StoreUnavailable:
            self.unavailable.add(replica.store_id)
            return ReplicaState.PRESENT, replica.proof
        except NotFound:
            self.corrupt.append(file.path)
            return ReplicaState.CORRUPT, Proof.DIRECT
        except StorageError:
            self.suspect.append(file.path)
            return ReplicaState.SUSPECT, Proof.UNPROVEN
        if (found.sha256, found.size) != (file.sha256, file.size):
            self.corrupt.append(file.path)
            return ReplicaState.CORRUPT, found.proof
        self.checked += 1
        if found.proof is Proof.UNPROVEN:
            self.unproven.append(file.path)
            return ReplicaState.PRESENT, found.proof
        return ReplicaState.VERIFIED, found.proof
