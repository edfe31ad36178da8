"""The SQL predicate and the plain rule are one rule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, StaticPool, create_engine, insert, select

from lightkeep.catalog import columns, schema
from lightkeep.catalog.conditions import allowed
from lightkeep.model.experiments import Experiment
from lightkeep.model.people import ANONYMOUS, SERVICE, Grant, Principal, Role, Scope, Verb
from lightkeep.policy.access import ROLE_VERBS, allows, granted, roles_allowing, verbs, visible

STATIONS = ("A", "B")
NOW = datetime(2026, 11, 22, tzinfo=UTC)
EXPERIMENTS = tuple(
    Experiment(f"{station}-{name}", station, released_at=released_at)
    for station in STATIONS
    for name, released_at in (("kept", None), ("public", NOW), ("embargo", NOW + timedelta(microseconds=1)))
)
PEOPLE = ("lee", "kim", "anonymous", "lightkeep", "o'hara", "%")


@st.composite
def some_grant(draw: st.DrawFn) -> Grant:
    scope = draw(st.sampled_from(Scope))
    places = {
        Scope.FACILITY: ("",),
        Scope.STATION: (*STATIONS, "C", ""),
        Scope.EXPERIMENT: (*(e.id for e in EXPERIMENTS), "A", ""),
    }
    return Grant(
        draw(st.sampled_from(PEOPLE)), draw(st.sampled_from(Role)), scope, draw(st.sampled_from(places[scope]))
    )


AT = columns.from_microseconds(0)
PRINCIPALS = st.sampled_from([*(Principal(name) for name in PEOPLE), ANONYMOUS, SERVICE])


@pytest.fixture(scope="module")
def connection() -> Connection:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    tables = [schema.station, schema.experiment, schema.person, schema.access_grant]
    schema.tables.create_all(engine, tables=tables)
    return engine.connect()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(grants=st.lists(some_grant(), max_size=6, unique=True), principal=PRINCIPALS, verb=st.sampled_from(Verb))
def test_sql_and_plain_python_agree_on_any_grants(
    connection: Connection, grants: list[Grant], principal: Principal, verb: Verb
) -> None:
    with connection.begin() as transaction:
        fill(connection, grants)
        seen = allowed(visible(principal, verb, now=NOW))
        found = set(connection.scalars(select(schema.experiment.c.id).where(seen)))
        transaction.rollback()
    assert found == {e.id for e in EXPERIMENTS if allows(grants, principal, verb, e, now=NOW)}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(grants=st.lists(some_grant(), max_size=6, unique=True), principal=PRINCIPALS, verb=st.sampled_from(Verb))
def test_what_is_granted_is_what_is_visible_without_the_public_part(
    connection: Connection, grants: list[Grant], principal: Principal, verb: Verb
) -> None:
    with connection.begin() as transaction:
        fill(connection, grants)
        found = set(connection.scalars(select(schema.experiment.c.id).where(allowed(granted(principal, verb)))))
        transaction.rollback()
    assert found == {
        e.id
        for e in EXPERIMENTS
        if (d := allows(grants, principal, verb, e, now=NOW)).allow and d.rule != "role:public"
    }


def fill(connection: Connection, grants: list[Grant]) -> None:
    for station in STATIONS:
        connection.execute(insert(schema.station).values(id=station, name="", techniques="[]", created_at=AT))
    for e in EXPERIMENTS:
        connection.execute(
            insert(schema.experiment).values(
                id=e.id, station_id=e.station_id, title="", state=e.state.value, identifiers="{}", searched="",
                created_at=AT, released_at=e.released_at, datasets=0, files=0, size=0, facets=b"",
            )
        )  # fmt: skip
    for grant in grants:
        connection.execute(
            insert(schema.access_grant).values(
                person_id=grant.person_id, role=grant.role.value, scope=grant.scope.value, scope_id=grant.scope_id,
                created_at=AT,
            )
        )  # fmt: skip


def test_each_role_carries_the_verbs_of_the_table() -> None:
    assert verbs(Role.MEMBER) == {Verb.SEE, Verb.READ, Verb.ANNOTATE, Verb.PROCESS}
    assert verbs(Role.PI) - verbs(Role.MEMBER) == {Verb.SHARE, Verb.WRITE}
    assert verbs(Role.STATION_SCIENTIST) == set(Verb) - {Verb.MANAGE, Verb.DESTROY}
    assert verbs(Role.STATION_MANAGER) == set(Verb) - {Verb.DESTROY}
    assert verbs(Role.FACILITY_ADMIN) == set(Verb)
    assert set(ROLE_VERBS) == set(Role)


def test_only_a_facility_admin_may_destroy() -> None:
    assert roles_allowing(Verb.DESTROY) == (Role.FACILITY_ADMIN,)


def test_nobody_is_made_public_by_a_grant() -> None:
    grant = Grant("lee", Role.PUBLIC, Scope.FACILITY)
    assert not allows([grant], Principal("lee"), Verb.SEE, EXPERIMENTS[0], now=NOW)


def test_whoever_may_do_anything_may_also_see() -> None:
    assert all(Verb.SEE in allowed_verbs for allowed_verbs in ROLE_VERBS.values())


def test_a_decision_names_the_role_and_the_place() -> None:
    grant = Grant("lee", Role.PI, Scope.STATION, "A")
    decision = allows([grant], Principal("lee"), Verb.SHARE, EXPERIMENTS[0], now=NOW)
    assert decision.rule == "role:pi"
    assert decision.reason == "lee is pi of station A"
