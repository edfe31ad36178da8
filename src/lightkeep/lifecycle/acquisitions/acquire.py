"""Acquisitions: from where, and how, data come in while they are measured.

    define ──> defined ── start ──> running ── stop ──> stopped ── start ──> running ...
                                       └── an error that trying again does not mend ──> failed

`running` is what is wanted. The worker of the facility, or `lightkeep acquire run` on the beamline's own computer,
takes such an acquisition over for as long as it renews a lease; see `acquire_run`. Who may tell the facility's
account to read a folder or to connect to a detector manages the station; who may write raw data starts and stops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightkeep.acquisition.options import Frames, checked
from lightkeep.facility import Facility
from lightkeep.lifecycle.acquisitions import live
from lightkeep.lifecycle.people.set_up import check_name
from lightkeep.model.acquisition import Acquisition, AcquisitionState, SourceKind
from lightkeep.model.errors import Conflict
from lightkeep.model.experiments import ExperimentState
from lightkeep.model.people import Principal, Verb


def define(
    facility: Facility,
    name: str,
    *,
    experiment_id: str,
    kind: SourceKind,
    options: Mapping[str, Any],
    principal: Principal,
    host: str = "",
) -> Acquisition:
    """Define a source of data of an experiment; it does not run yet.

    Parameters
    ----------
    options: of the kind, see `lightkeep.acquisition.options`.
    host: only a worker on this host runs it; any when empty.

    Raises
    ------
    NotFound, Forbidden, SignInRequired: the principal may not see the experiment, or not manage its station.
    InvalidInput: an option is wrong. Conflict: the experiment has one of this name.
    """
    check_name(name, "an acquisition")
    view = facility.catalog.view(principal)
    experiment = view.experiment(experiment_id)
    view.require(Verb.MANAGE, station_id=experiment.station_id)
    wanted = checked(kind, options)
    if isinstance(wanted, Frames) and wanted.live:
        live.check_live(wanted.live, wanted.params)
    made = Acquisition(
        facility.ids.new("acq"), experiment.id, name, kind, wanted.model_dump(exclude_defaults=True), host
    )
    with facility.catalog.change(principal) as tx:
        return tx.add_acquisition(made)


def start(facility: Facility, acquisition_id: str, *, principal: Principal) -> Acquisition:
    """Have it run; running already: no change.

    Raises
    ------
    NotFound, Forbidden, SignInRequired: the principal may not see it, or not write raw data there.
    Conflict: the experiment is not open.
    """
    view = facility.catalog.view(principal)
    found = view.acquisition(acquisition_id)
    view.require(Verb.WRITE, experiment_id=found.experiment_id)
    experiment = view.experiment(found.experiment_id)
    if experiment.state is not ExperimentState.OPEN:
        raise Conflict(
            f"experiment {experiment.id} is {experiment.state}: it takes no raw data",
            remedy="have a station manager open it",
        )
    return _move(facility, found, AcquisitionState.RUNNING, principal)


def stop(facility: Facility, acquisition_id: str, *, principal: Principal) -> Acquisition:
    """Have it end: what is there is still taken in, and its datasets are completed. Not running: no change.

    Raises
    ------
    NotFound, Forbidden, SignInRequired: the principal may not see it, or not write raw data there.
    """
    view = facility.catalog.view(principal)
    found = view.acquisition(acquisition_id)
    view.require(Verb.WRITE, experiment_id=found.experiment_id)
    if found.state is not AcquisitionState.RUNNING:
        return found
    return _move(facility, found, AcquisitionState.STOPPED, principal)


def _move(facility: Facility, found: Acquisition, state: AcquisitionState, principal: Principal) -> Acquisition:
    with facility.catalog.change(principal) as tx:
        tx.set_acquisition_state(found.id, state)
    return facility.catalog.view(principal).acquisition(found.id)
