"""Accounts, what they may do, and the secrets that sign them in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update

from lightkeep.catalog import schema
from lightkeep.catalog.transaction import Transaction, same_grant
from lightkeep.model.errors import Conflict, InvalidInput, NotFound
from lightkeep.model.people import Grant, Person, Role, Scope


class PeopleChanges(Transaction):
    """The part of `Change` about people."""

    def add_person(self, person: Person, password_hash: str = "") -> None:
        """Make an account. Conflict when the user name is taken."""
        if person.id != person.id.lower() or person.id in ("", "anonymous", "lightkeep"):
            raise InvalidInput(
                f"{person.id!r} cannot be a user name", remedy="use lower case; some names are ours"
            )
        self._must_be_new(schema.person, person.id, "person")
        self._insert(
            schema.person,
            id=person.id,
            name=person.name,
            email=person.email,
            is_active=person.is_active,
            password_hash=password_hash,
            created_at=self._clock.now(),
        )
        self._record("person.added", person.id, "", {"name": person.name})

    def set_password(self, person_id: str, password_hash: str) -> None:
        """Change a password and end the person's sessions everywhere."""
        self._row(schema.person, person_id, "person")
        self._set(schema.person, person_id, password_hash=password_hash)
        t = schema.token.c
        self._connection.execute(delete(schema.token).where((t.person_id == person_id) & (t.kind == "session")))
        self._record("person.password_set", person_id, "", {})

    def add_grant(self, grant: Grant) -> None:
        """Give a role; twice is once. NotFound when the person, the station or the experiment is not there.

        Given by a person (origin empty) where the proposal system had given it: it is the person's from now on.
        """
        if grant.role is Role.PUBLIC:
            raise InvalidInput("the role public is nobody's: it holds for released experiments")
        self._row(schema.person, grant.person_id, "person")
        self._check_scope(grant)
        origin = self._origin_of(grant)
        if origin and not grant.origin:
            self._connection.execute(update(schema.access_grant).where(same_grant(grant)).values(origin=""))
            self._record("grant.adopted", grant.person_id, _experiment_of(grant), _grant_detail(grant))
        if origin is not None:
            return
        self._insert(
            schema.access_grant,
            person_id=grant.person_id,
            scope=grant.scope.value,
            role=grant.role.value,
            scope_id=grant.scope_id,
            origin=grant.origin,
            created_at=self._clock.now(),
        )
        self._record("grant.added", grant.person_id, _experiment_of(grant), _grant_detail(grant))

    def remove_grant(self, grant: Grant) -> None:
        """Take a role away; it counts from the next request on.

        Raises
        ------
        NotFound: it was not given. Conflict: `grant.origin` names who gave it, and it was somebody else.
        """
        origin = self._origin_of(grant)
        if origin is None:
            raise NotFound(f"{grant.person_id} is not {grant.role} of {grant.scope} {grant.scope_id}".rstrip())
        if grant.origin and origin != grant.origin:
            raise Conflict(f"{grant.person_id} was made {grant.role} by a person, not by the {grant.origin}")
        self._connection.execute(delete(schema.access_grant).where(same_grant(grant)))
        self._record("grant.removed", grant.person_id, _experiment_of(grant), _grant_detail(grant))

    def add_token(
        self, person_id: str, *, token_hash: str, kind: str, label: str = "", expires_at: datetime | None = None
    ) -> None:
        """Keep the hash of a secret that signs a person in: kind `session` or `api`."""
        self._row(schema.person, person_id, "person")
        self._insert(
            schema.token,
            token_hash=token_hash,
            person_id=person_id,
            kind=kind,
            label=label,
            created_at=self._clock.now(),
            expires_at=expires_at,
        )
        self._record("token.added", person_id, "", {"kind": kind, "label": label})

    def remove_token(self, token_hash: str) -> None:
        """Forget a secret: whoever carries it is signed out. Unknown: nothing happens."""
        c = schema.token.c
        row = self._connection.execute(select(c.person_id, c.kind).where(c.token_hash == token_hash)).first()
        if row is None:
            return
        self._connection.execute(delete(schema.token).where(c.token_hash == token_hash))
        self._record("token.removed", row.person_id, "", {"kind": row.kind})


def _experiment_of(grant: Grant) -> str:
    return grant.scope_id if grant.scope is Scope.EXPERIMENT else ""


def _grant_detail(grant: Grant) -> Mapping[str, Any]:
    detail = {"role": grant.role, "scope": grant.scope, "scope_id": grant.scope_id}
    return {**detail, "origin": grant.origin} if grant.origin else detail
