"""Reads. Each answers with what the principal may see, as if nothing else existed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    TextClause,
    and_,
    case,
    false,
    func,
    or_,
    select,
    true,
)

from lightkeep.catalog import facets, rows, schema
from lightkeep.catalog.acquisitions import AcquisitionViews
from lightkeep.catalog.candidates import CandidateViews
from lightkeep.catalog.cases import CaseViews
from lightkeep.catalog.conditions import allowed, matches
from lightkeep.catalog.copies import CopyViews
from lightkeep.catalog.experiments import ExperimentViews
from lightkeep.catalog.facts import FactViews
from lightkeep.catalog.holds import HoldViews
from lightkeep.catalog.notices import NoticeViews
from lightkeep.catalog.page import Page
from lightkeep.catalog.plans import PlanViews
from lightkeep.catalog.policies import PolicyViews
from lightkeep.catalog.query import Query
from lightkeep.catalog.text import encode_path, words
from lightkeep.catalog.usage import UsageViews
from lightkeep.catalog.view_base import ViewBase, row_limit, row_offset
from lightkeep.catalog.whereabouts import WhereaboutsViews
from lightkeep.catalog.workers import WorkerViews
from lightkeep.catalog.workflows import WorkflowViews
from lightkeep.model.datasets import Dataset, DatasetKind, File, SkippedFile
from lightkeep.model.decision import Decision
from lightkeep.model.errors import Forbidden, InvalidInput, NotFound, SignInRequired
from lightkeep.model.events import Event
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import Grant, Person, Scope, Verb
from lightkeep.model.runs import Run, RunState
from lightkeep.model.stores import Replica, StoreRecord
from lightkeep.policy import access

_FEW = 20_000  # datasets that are sorted within 0.1 s
_ORDERS = ("created_at", "completed_at", "name", "size")
_e, _d, _f, _r = schema.experiment, schema.dataset, schema.file, schema.replica


class View(
    ExperimentViews,
    HoldViews,
    FactViews,
    PlanViews,
    NoticeViews,
    PolicyViews,
    CaseViews,
    CandidateViews,
    CopyViews,
    UsageViews,
    WhereaboutsViews,
    AcquisitionViews,
    WorkerViews,
    WorkflowViews,
    ViewBase,
):
    """What one principal sees. Each method is one consistent read with a fixed number of statements."""

    # ---- may I?

    def can(
        self, verb: Verb, *, experiment_id: str = "", dataset_id: str = "", station_id: str = "", run_id: str = ""
    ) -> Decision:
        """Decide whether the principal may do this to the thing named; to the facility when none is."""
        who = self._principal.id
        if station_id:
            place = f"station {station_id}"
            may = true() if verb is Verb.SEE else allowed(access.granted_on_station(self._principal, verb))
            question = select(_yes(may)).where(schema.station.c.id == station_id)
        elif experiment_id or dataset_id or run_id:
            place, question = self._experiment_question(verb, experiment_id, dataset_id, run_id)
        else:
            place = "the facility"
            question = select(_yes(allowed(access.granted_on_facility(self._principal, verb))))
        with self._read() as connection:
            answer = connection.execute(question).scalar()
        if answer is None:
            return Decision(False, f"{place} does not exist", UNSEEN)
        if answer:
            return Decision(True, f"{who} may {verb} {place}", f"verb:{verb}")
        roles = ", ".join(access.roles_allowing(verb))
        return Decision(
            False, f"{who} may not {verb} {place}; that takes one of the roles {roles}", f"verb:{verb}"
        )

    def require(
        self, verb: Verb, *, experiment_id: str = "", dataset_id: str = "", station_id: str = "", run_id: str = ""
    ) -> None:
        """Return when `can` says yes.

        Raises
        ------
        NotFound: the thing does not exist, or this principal may not see it.
        SignInRequired: nobody is signed in, and the thing is public but not this verb.
        Forbidden: it is seen, but this may not be done to it.
        """
        decision = self.can(
            verb, experiment_id=experiment_id, dataset_id=dataset_id, station_id=station_id, run_id=run_id
        )
        if decision:
            return
        if decision.rule == UNSEEN:
            raise NotFound(decision.reason)
        if self._principal.is_anonymous:
            raise SignInRequired(f"only somebody signed in may {verb} this", remedy="sign in")
        raise Forbidden(
            decision.reason, remedy="ask the principal investigator or the station's staff for the role"
        )

    # ---- places

    def stations(self) -> list[Station]:
        """Every station of the facility, by id: that they exist is no secret."""
        return self._all(select(schema.station).order_by(schema.station.c.id), rows.station_of)

    def station(self, id: str) -> Station:  # noqa: A002
        """One station. NotFound."""
        return self._one(
            select(schema.station).where(schema.station.c.id == id), rows.station_of, f"station {id!r}"
        )

    def experiments(
        self, *, station_id: str = "", text: str = "", limit: int = 50, offset: int = 0
    ) -> Page[Experiment]:
        """Experiments, newest first; `text`: words (or beginnings of words) of id, title and identifiers."""
        found = select(_e).where(self._see)
        if station_id:
            found = found.where(_e.c.station_id == station_id)
        for word in words(text):
            found = found.where((" " + _e.c.searched).like(f"% {word}%"))
        return self._page(found, (_e.c.created_at.desc(), _e.c.id), rows.experiment_of, limit, offset)

    def experiment(self, id: str) -> Experiment:  # noqa: A002
        """One experiment. NotFound."""
        return self._one(select(_e).where(_e.c.id == id, self._see), rows.experiment_of, f"experiment {id!r}")

    def mine(self, experiment_ids: Iterable[str]) -> set[str]:
        """Return those where one has a role: of a public one, others see the data and not what its team does."""
        ids, has_role = sorted(set(experiment_ids)), allowed(access.granted(self._principal, Verb.SEE))
        with self._read() as connection:
            return {
                row.id
                for start in range(0, len(ids), 1_000)
                for row in connection.execute(
                    select(_e.c.id).where(_e.c.id.in_(ids[start : start + 1_000]), has_role)
                )
            }

    # ---- datasets

    def datasets(
        self,
        query: Query = Query(),  # noqa: B008 (frozen)
        *,
        experiment_id: str = "",
        kind: DatasetKind | None = None,
        limit: int = 50,
        offset: int = 0,
        order: str = "-created_at",
    ) -> Page[Dataset]:
        """Datasets that a query finds; complete ones only, unless it names a state.

        Raises
        ------
        InvalidInput: order is not created_at, completed_at, name or size, with `-` before it for falling.
        """
        column = order.removeprefix("-")
        if column not in _ORDERS:
            raise InvalidInput(f"datasets are ordered by {', '.join(_ORDERS)}, not by {order!r}", order=order)
        keys = (_d.c[column], _d.c.number)
        with self._read() as connection:
            reach = self._reach(connection, experiment_id)
            found = self._found(query, reach, experiment_id)
            total = reach
            if kind is not None:
                found = found.where(_d.c.kind == kind.value)
            if query or kind is not None:
                total = connection.execute(select(func.count()).select_from(found.subquery())).scalar_one()
            page = found.order_by(*(key.desc() for key in keys) if order.startswith("-") else keys)
            listed = connection.execute(page.limit(row_limit(limit)).offset(row_offset(offset))).mappings().all()
            return Page(self._with_parents(connection, listed), total)

    def facets(self, query: Query = Query(), *, experiment_id: str = "") -> facets.Facets:  # noqa: B008 (frozen)
        """How many of the datasets that a query finds are of each station, technique, kind, format and month.

        Values by falling count, then by name.
        """
        predicate = access.visible(self._principal, Verb.SEE, now=self._now)
        with self._read() as connection:
            if not query:
                return facets.kept(connection, predicate, experiment_id)
            return facets.grouped(
                connection,
                self._found(query, self._reach(connection, experiment_id), experiment_id),
                self._dialect,
            )

    def dataset(self, id: str) -> Dataset:  # noqa: A002
        """One dataset, in any state. NotFound."""
        found = self._dataset_where(_d.c.id == id)
        if found is None:
            raise NotFound(f"dataset {id!r} does not exist")
        return found

    def dataset_named(self, experiment_id: str, name: str) -> Dataset | None:
        """The experiment's dataset of that name, in any state, or None."""
        return self._dataset_where(and_(_d.c.experiment_id == experiment_id, _d.c.name == name))

    def named(self, name: str, *, limit: int = 5) -> list[Dataset]:
        """Datasets of that name in all experiments, in any state, newest first."""
        statement = self._datasets().where(_d.c.name == name).order_by(_d.c.number.desc()).limit(limit)
        with self._read() as connection:
            return self._with_parents(connection, connection.execute(statement).mappings().all())

    def children(self, dataset_id: str, *, run_id: str = "") -> list[Dataset]:
        """Datasets that were derived from it, by that run if one is named, newest first. NotFound."""
        self.dataset(dataset_id)
        derived = select(schema.dataset_parent.c.dataset_id).where(schema.dataset_parent.c.parent_id == dataset_id)
        statement = self._datasets().where(_d.c.id.in_(derived)).order_by(_d.c.number.desc())
        if run_id:
            statement = statement.where(_d.c.run_id == run_id)
        with self._read() as connection:
            return self._with_parents(connection, connection.execute(statement).mappings().all())

    def count_children(self, dataset_id: str, *, prefix: str) -> int:
        """How many of the datasets derived from it have a name that begins so, in any state."""
        c = schema.dataset_parent.c
        named = select(func.count()).join_from(schema.dataset_parent, _d, _d.c.id == c.dataset_id)
        named = named.where(c.parent_id == dataset_id, _d.c.name.startswith(prefix, autoescape=True))
        with self._read() as connection:
            self._must_see(connection, dataset_id)
            return int(connection.execute(named).scalar_one())

    # ---- files

    def files(self, dataset_id: str, *, limit: int = 1000, offset: int = 0, prefix: str = "") -> Page[File]:
        """The manifest, or what of it begins with prefix, in the order of the paths' bytes. NotFound."""
        found = self._current_files(dataset_id)
        if prefix:
            begin = encode_path(prefix)
            found = found.where(_f.c.path >= begin, _f.c.path < _after(begin))
        with self._read() as connection:
            self._must_see(connection, dataset_id)
            total = connection.execute(select(func.count()).select_from(found.subquery())).scalar_one()
            page = found.order_by(_f.c.path).limit(row_limit(limit)).offset(row_offset(offset))
            return Page([rows.file_of(row) for row in connection.execute(page).mappings()], total)

    def file(self, dataset_id: str, path: str) -> File:
        """One entry of a manifest: the newest version at that path. NotFound."""
        found = self._current_files(dataset_id).where(_f.c.path == encode_path(path))
        with self._read() as connection:
            self._must_see(connection, dataset_id)
            row = connection.execute(found).mappings().first()
        if row is None:
            raise NotFound(f"dataset {dataset_id} has no file {path!r}")
        return rows.file_of(row)

    def replicas(self, of: str | Sequence[str]) -> list[Replica]:
        """Replicas of a dataset's files (its id), or of some files (their ids), by the files' paths."""
        statement = (
            select(_r)
            .join_from(_r, _f, _f.c.id == _r.c.file_id)
            .join(_d, _d.c.number == _f.c.dataset_number)
            .join(_e, _e.c.id == _d.c.experiment_id)
            .where(self._see)
            .order_by(_f.c.path, _f.c.version, _r.c.id)
        )
        if isinstance(of, str):
            return self._all(statement.where(_d.c.id == of), rows.replica_of)
        ids = list(of)
        with self._read() as connection:
            return [
                rows.replica_of(row)
                for start in range(0, len(ids), 1_000)
                for row in connection.execute(statement.where(_f.c.id.in_(ids[start : start + 1_000]))).mappings()
            ]

    def skipped(self, dataset_id: str) -> list[SkippedFile]:
        """Names under the source that were recorded but not kept. NotFound."""
        c = schema.skipped_file.c
        with self._read() as connection:
            self._must_see(connection, dataset_id)
            found = select(schema.skipped_file).where(c.dataset_id == dataset_id).order_by(c.path)
            return [rows.skipped_of(row) for row in connection.execute(found).mappings()]

    def stores(self) -> list[StoreRecord]:
        """Every store, by id, for people who are signed in."""
        return self._all(self._stores().order_by(schema.store.c.id), rows.store_of)

    def store(self, id: str) -> StoreRecord:  # noqa: A002
        """One store. NotFound."""
        return self._one(self._stores().where(schema.store.c.id == id), rows.store_of, f"store {id!r}")

    # ---- runs

    def runs(
        self,
        *,
        experiment_id: str = "",
        dataset_id: str = "",
        state: RunState | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Page[Run]:
        """Runs, newest first."""
        c = schema.run.c
        found = self._runs()
        if experiment_id:
            found = found.where(c.experiment_id == experiment_id)
        if dataset_id:
            found = found.where(c.dataset_id == dataset_id)
        if state is not None:
            found = found.where(c.state == state.value)
        return self._page(found, (c.created_at.desc(), c.id.desc()), rows.run_of, limit, offset)

    def run(self, id: str) -> Run:  # noqa: A002
        """One run. NotFound."""
        return self._one(self._runs().where(schema.run.c.id == id), rows.run_of, f"run {id!r}")

    # ---- people and the trail

    def events(
        self, *, experiment_id: str = "", subject: str = "", after: int = 0, limit: int = 100
    ) -> list[Event]:
        """Events after a sequence number, oldest first: of experiments where the principal has a role.

        Facility managers see those of no experiment as well. The numbers between tell that something else
        happened, not what.
        """
        c = schema.event.c
        seen = c.experiment_id.in_(select(_e.c.id).where(allowed(access.granted(self._principal, Verb.SEE))))
        everywhere = and_(c.experiment_id == "", allowed(access.granted_on_facility(self._principal, Verb.MANAGE)))
        found = select(schema.event).where(or_(seen, everywhere), c.seq > row_offset(after))
        if experiment_id:
            found = found.where(c.experiment_id == experiment_id)
        if subject:
            found = found.where(c.subject == subject)
        return self._all(found.order_by(c.seq).limit(row_limit(limit)), rows.event_of)

    def people(self) -> list[Person]:
        """Oneself and those with a role on experiments where one has a role; all, for who may share something."""
        return self._all(self._people().order_by(schema.person.c.id), rows.person_of)

    def person(self, id: str) -> Person:  # noqa: A002
        """One person among `people`. NotFound."""
        return self._one(self._people().where(schema.person.c.id == id), rows.person_of, f"person {id!r}")

    def grants(self, experiment_id: str = "") -> list[Grant]:
        """Roles on an experiment; without one: one's own, those on all one's experiments, and all for managers."""
        c = schema.access_grant.c
        found = (
            select(schema.access_grant)
            .where(self._grants_seen())
            .order_by(c.scope, c.scope_id, c.person_id, c.role)
        )
        if experiment_id:
            found = found.where(c.scope == Scope.EXPERIMENT.value, c.scope_id == experiment_id)
        return self._all(found, rows.grant_of)

    # ---- how

    def _datasets(self) -> Select[Any]:
        return select(_d).join_from(_d, _e, _e.c.id == _d.c.experiment_id).where(self._see)

    def _dataset_where(self, condition: ColumnElement[bool]) -> Dataset | None:
        with self._read() as connection:
            found = connection.execute(self._datasets().where(condition)).mappings().all()
            return next(iter(self._with_parents(connection, found)), None)

    def _with_parents(self, connection: Connection, found: Sequence[RowMapping]) -> list[Dataset]:
        c = schema.dataset_parent.c
        parents: dict[str, list[str]] = {row["id"]: [] for row in found}
        derived = [row["id"] for row in found if row["kind"] != DatasetKind.RAW]
        if derived:
            rows_ = connection.execute(
                select(c.dataset_id, c.parent_id)
                .where(c.dataset_id.in_(derived))
                .order_by(c.dataset_id, c.position)
            )
            for row in rows_:
                parents[row.dataset_id].append(row.parent_id)
        return [rows.dataset_of(row, tuple(parents[row["id"]])) for row in found]

    def _reach(self, connection: Connection, experiment_id: str) -> int:
        """Return how many complete datasets the principal sees, from the counters."""
        kept = select(func.coalesce(func.sum(_e.c.datasets), 0)).where(self._see)
        return int(
            connection.execute(kept.where(_e.c.id == experiment_id) if experiment_id else kept).scalar_one()
        )

    def _found(self, query: Query, reach: int, experiment_id: str) -> Select[Any]:
        """Return the datasets that a query finds, with their experiments.

        SQLite keeps no statistics and would walk all datasets by date: right for who sees many of them, a second
        too long for who sees a few. Theirs are read experiment by experiment.
        """
        is_few = reach < _FEW
        found = self._datasets().where(matches(query, self._dialect, hide_state=is_few))
        if experiment_id:
            return found.where(_d.c.experiment_id == experiment_id)
        return found.where(_d.c.experiment_id.in_(select(_e.c.id).where(self._see))) if is_few else found

    def _current_files(self, dataset_id: str) -> Select[Any]:
        newer = _f.alias("newer")
        superseded = select(newer.c.id).where(
            newer.c.dataset_number == _f.c.dataset_number,
            newer.c.path == _f.c.path,
            newer.c.version > _f.c.version,
        )
        joined = select(_f, _d.c.id.label("dataset_id")).join_from(_f, _d, _d.c.number == _f.c.dataset_number)
        return joined.where(_d.c.id == dataset_id, ~superseded.exists())

    def _must_see(self, connection: Connection, dataset_id: str) -> None:
        if connection.execute(self._datasets().where(_d.c.id == dataset_id)).first() is None:
            raise NotFound(f"dataset {dataset_id!r} does not exist")

    def _runs(self) -> Select[Any]:
        return select(schema.run).join_from(schema.run, _e, _e.c.id == schema.run.c.experiment_id).where(self._see)

    def _stores(self) -> Select[Any]:
        return select(schema.store).where(false() if self._principal.is_anonymous else true())

    def _people(self) -> Select[Any]:
        g = schema.access_grant.c
        team = select(g.person_id).where(self._grants_seen(), g.scope == Scope.EXPERIMENT.value)
        mine = select(g.person_id).where(
            g.person_id == self._principal.id, g.role.in_(access.roles_allowing(Verb.SHARE))
        )
        p = schema.person.c
        everybody = true() if self._principal.is_service else mine.exists()
        return select(schema.person).where(or_(p.id == self._principal.id, p.id.in_(team), everybody))

    def _grants_seen(self) -> ColumnElement[bool]:
        g = schema.access_grant.c
        mine = select(_e.c.id).where(allowed(access.granted(self._principal, Verb.SEE)))
        return or_(
            g.person_id == self._principal.id,
            and_(g.scope == Scope.EXPERIMENT.value, g.scope_id.in_(mine)),
            allowed(access.granted_on_facility(self._principal, Verb.MANAGE)),
        )

    def _experiment_question(
        self, verb: Verb, experiment_id: str, dataset_id: str, run_id: str
    ) -> tuple[str, Select[Any]]:
        may = _yes(allowed(access.visible(self._principal, verb, now=self._now)))
        if run_id:
            joined = select(may).join_from(schema.run, _e, _e.c.id == schema.run.c.experiment_id)
            return f"run {run_id}", joined.where(schema.run.c.id == run_id, self._see)
        if dataset_id:
            joined = select(may).join_from(_d, _e, _e.c.id == _d.c.experiment_id)
            return f"dataset {dataset_id}", joined.where(_d.c.id == dataset_id, self._see)
        return f"experiment {experiment_id}", select(may).select_from(_e).where(
            _e.c.id == experiment_id, self._see
        )


UNSEEN = "not-found"
"""The rule of a Decision about what does not exist, or may not be seen: the two are one answer."""


def _yes(condition: ColumnElement[bool] | TextClause) -> ColumnElement[int]:
    return case((and_(true(), condition), 1), else_=0)


def _after(prefix: bytes) -> bytes:
    """Return the least bytes that are greater than everything with the prefix; no path holds 0xff 256 times."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\xff" * 256
