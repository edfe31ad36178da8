"""Who may do what. One table of roles, one SQL condition, and the same rule in plain Python to check it against.

Grants reach from the facility to its stations to their experiments. They only add: nothing denies, so the order
of grants never matters. What a person may not see does not exist for them, in any list, count, search or facet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lightkeep.model.decision import Decision
from lightkeep.model.experiments import Experiment
from lightkeep.model.people import Grant, Principal, Role, Scope, Verb

_COLLABORATOR = frozenset({Verb.SEE, Verb.READ})
_MEMBER = _COLLABORATOR | {Verb.ANNOTATE, Verb.PROCESS}
_SCIENTIST = _MEMBER | {Verb.SHARE, Verb.WRITE}

ROLE_VERBS: Mapping[Role, frozenset[Verb]] = {
    Role.PUBLIC: _COLLABORATOR,  # of released experiments only
    Role.COLLABORATOR: _COLLABORATOR,
    Role.MEMBER: _MEMBER,
    Role.PI: _SCIENTIST,
    Role.STATION_SCIENTIST: _SCIENTIST,
    Role.STATION_MANAGER: _SCIENTIST | {Verb.MANAGE},
    Role.FACILITY_ADMIN: frozenset(Verb),
}


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition for a WHERE clause, with its parameters by name."""

    sql: str
    """Speaks of `experiment.id`, `experiment.station_id` and `experiment.released_at`, or of nothing."""
    parameters: Mapping[str, str | datetime] = field(default_factory=dict)


def verbs(role: Role) -> frozenset[Verb]:
    """Return what a role may do."""
    return ROLE_VERBS[role]


def roles_allowing(verb: Verb) -> tuple[Role, ...]:
    """Return the roles that a grant may carry and that include the verb, in the order of the table."""
    return tuple(role for role, allowed in ROLE_VERBS.items() if verb in allowed and role is not Role.PUBLIC)


def visible(principal: Principal, verb: Verb, *, now: datetime) -> Predicate:
    """Return the SQL condition that holds for the experiments where the principal may do the verb.

    The three sub-selects do not depend on the row, so a database evaluates each once per statement. An embargo
    ends by itself: what is public is compared with `now`, no nightly job flips a flag.
    """
    by_grant = granted(principal, verb)
    if principal.is_service or verb not in ROLE_VERBS[Role.PUBLIC]:
        return by_grant
    sql = f"({by_grant.sql} OR experiment.released_at <= :access_now)"
    return Predicate(sql, {**by_grant.parameters, "access_now": now})


def granted(principal: Principal, verb: Verb) -> Predicate:
    """Return the condition of `visible` without what is public: for the team and the trail of an experiment."""
    if principal.is_service:
        return Predicate("1 = 1")
    if principal.is_anonymous:
        return Predicate("1 = 0")
    sql = (
        f"(experiment.id IN ({_scopes(verb, Scope.EXPERIMENT)})"
        f" OR experiment.station_id IN ({_scopes(verb, Scope.STATION)})"
        f" OR EXISTS ({_scopes(verb, Scope.FACILITY)}))"
    )
    return Predicate(sql, {"access_person": principal.id})


def granted_on_facility(principal: Principal, verb: Verb) -> Predicate:
    """Return the condition, the same for every row, that the principal may do the verb on the facility."""
    if principal.is_service:
        return Predicate("1 = 1")
    return Predicate(f"EXISTS ({_scopes(verb, Scope.FACILITY)})", {"access_person": principal.id})


def granted_on_station(principal: Principal, verb: Verb) -> Predicate:
    """Return the condition on `station.id` that the principal may do the verb on the whole station."""
    if principal.is_service:
        return Predicate("1 = 1")
    sql = f"(station.id IN ({_scopes(verb, Scope.STATION)}) OR EXISTS ({_scopes(verb, Scope.FACILITY)}))"
    return Predicate(sql, {"access_person": principal.id})


def allows(
    grants: Iterable[Grant], principal: Principal, verb: Verb, experiment: Experiment, *, now: datetime
) -> Decision:
    """Decide the same as `visible` for one experiment, in plain Python, and say by which rule.

    Parameters
    ----------
    grants: any grants; those of other persons and elsewhere are passed over.
    """
    if principal.is_service:
        return Decision(True, "Lightkeep itself may do everything", "service")
    for grant in grants:
        if _reaches(grant, principal, experiment) and grant.role in roles_allowing(verb):
            place = f"{grant.scope} {grant.scope_id}".rstrip()
            return Decision(True, f"{principal.id} is {grant.role} of {place}", f"role:{grant.role}")
    if experiment.is_public(now) and verb in ROLE_VERBS[Role.PUBLIC]:
        return Decision(True, f"experiment {experiment.id} is released to the public", "role:public")
    return Decision(False, f"no role of {principal.id} on experiment {experiment.id} includes {verb}", "no-grant")


def _scopes(verb: Verb, scope: Scope) -> str:
    roles = ", ".join(f"'{role}'" for role in roles_allowing(verb))
    columns = f"access_grant.scope = '{scope}' AND access_grant.role IN ({roles})"
    person = "access_grant.person_id = :access_person"
    return f"SELECT access_grant.scope_id FROM access_grant WHERE {person} AND {columns}"  # noqa: S608 (our own enums)


def _reaches(grant: Grant, principal: Principal, experiment: Experiment) -> bool:
    if grant.person_id != principal.id or principal.is_anonymous:
        return False
    places = {
        Scope.FACILITY: grant.scope_id,
        Scope.STATION: experiment.station_id,
        Scope.EXPERIMENT: experiment.id,
    }
    return grant.scope_id == places[grant.scope]
