"""Sign people in and out, and turn a token back into a principal.

A token is 32 random bytes; the catalogue keeps only its SHA-256. A session is a token in a browser's cookie, an
API token is one in a script's `Authorization: Bearer` header. Nothing is cached: a token that was removed, has
expired or belongs to a closed account stops working with the next request (invariant S3).
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from lightkeep.model.errors import InvalidInput, SignInRequired
from lightkeep.model.people import ANONYMOUS, SERVICE, Principal, Verb

if TYPE_CHECKING:
    from lightkeep.facility import Facility

COOKIE = "lightkeep_session"
"""Name of the cookie that carries a session's token; the portal sets it, both faces read it."""
SESSION_LENGTH = timedelta(days=7)
"""A beam time: nobody is signed out in the middle of a night shift."""
MINIMUM_LENGTH = 10
"""Shortest password, in characters (ASVS 5.0, V6.2 asks for 8 or more)."""
MAXIMUM_LENGTH = 1024
"""Longest password: bounds the work that a stranger can ask for."""

STANDARD = PasswordHasher()  # RFC 9106, low-memory choice: 64 MiB, 3 passes, 4 lanes; about 0.12 s
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""For tests and the demo's throw-away accounts only."""

# Of no password: verified for an unknown user, so that the answer takes as long as for a known one.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$bGlnaHRrZWVwLW5vYm9keQ$FKXGumii+sd7jhRw+bitJo2gvOoIsEfiEGt/NrlhzxM"


@dataclass
class Attempts:
    """Counts failed sign-ins, in this process. One object per server; safe to use from several threads."""

    allowed: int = 8
    """Failures of one user from one address within `window`; 4 times as many of an address, 8 times of a user."""
    window: timedelta = timedelta(minutes=5)
    hashing: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(4))
    """Bounds the memory that hashing takes: 64 MiB each."""
    _failures: dict[str, list[datetime]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, user: str, address: str, *, now: datetime) -> None:
        """Raise SignInRequired while the user name or the address has failed too often."""
        with self._lock:
            self._forget(now)
            for key, allowed in self._keys(user, address):
                failures = self._failures.get(key, [])
                if len(failures) >= allowed:
                    wait = failures[-allowed] + self.window - now
                    raise SignInRequired(
                        "too many failed sign-ins",
                        remedy=f"wait {max(1, round(wait.total_seconds()))} s, then try again",
                        retry_after_s=max(1, round(wait.total_seconds())),
                    )

    def failed(self, user: str, address: str, *, now: datetime) -> None:
        """Count one failure."""
        with self._lock:
            for key, _ in self._keys(user, address):
                self._failures.setdefault(key, []).append(now)

    def _keys(self, user: str, address: str) -> list[tuple[str, int]]:
        pair = (f"user {user} from {address}", self.allowed)
        return [pair, (f"from {address}", 4 * self.allowed), (f"user {user}", 8 * self.allowed)]

    def _forget(self, now: datetime) -> None:
        fresh = {key: [at for at in times if now - at < self.window] for key, times in self._failures.items()}
        self._failures = {key: times for key, times in fresh.items() if times}


def hash_password(password: str, *, hasher: PasswordHasher = STANDARD) -> str:
    """Return the argon2id hash to keep.

    Raises
    ------
    InvalidInput: shorter than `MINIMUM_LENGTH` or longer than `MAXIMUM_LENGTH` characters.
    """
    if not MINIMUM_LENGTH <= len(password) <= MAXIMUM_LENGTH:
        raise InvalidInput(
            f"a password has {MINIMUM_LENGTH} to {MAXIMUM_LENGTH} characters, not {len(password)}",
            remedy="choose a longer one: a few unrelated words are easy to type and hard to guess",
        )
    return hasher.hash(password.encode("utf-8", "surrogatepass"))


def set_password(
    facility: Facility, user: str, password: str, *, principal: Principal, hasher: PasswordHasher = STANDARD
) -> None:
    """Change a password: one's own, or anybody's as an administrator. Ends every session of that person."""
    view = facility.catalog.view(principal)
    if user != principal.id:
        view.require(Verb.MANAGE)
    person = view.person(user)
    hashed = hash_password(password, hasher=hasher)
    with facility.catalog.change(principal) as tx:
        tx.set_password(person.id, hashed)


def sign_in(facility: Facility, user: str, password: str, *, attempts: Attempts, address: str = "") -> str:
    """Return a new session's token.

    The answer to a wrong password, an unknown user and a closed account is the same, and takes as long.

    Raises
    ------
    SignInRequired: wrong user or password, or too many failures: `data["retry_after_s"]` then says
        how long to wait.
    """
    user = user.strip().lower()[:MAXIMUM_LENGTH]
    now = facility.clock.now()
    attempts.check(user, address, now=now)
    known = facility.catalog.password_hash(user)
    with attempts.hashing:
        right = _matches(known or _NOBODY, password[: MAXIMUM_LENGTH + 1])
    if not (right and known and facility.catalog.view(SERVICE).person(user).is_active):
        attempts.failed(user, address, now=now)
        raise SignInRequired(
            "user name or password is wrong", remedy="check both; an administrator can set a new one"
        )
    return _new_token(facility, user, kind="session", label="portal", length=SESSION_LENGTH)


def principal_of(facility: Facility, token: str) -> Principal:
    """Return whose token it is; ANONYMOUS when it is empty, unknown, expired, or the account is closed."""
    if not token or len(token) > MAXIMUM_LENGTH:
        return ANONYMOUS
    person = facility.catalog.person_by_token(_digest(token))
    return Principal(person.id) if person is not None and person.is_active else ANONYMOUS


def sign_out(facility: Facility, token: str) -> None:
    """End a session, or revoke an API token, at once. Idempotent."""
    principal = principal_of(facility, token)
    if not principal.is_anonymous:
        with facility.catalog.change(principal) as tx:
            tx.remove_token(_digest(token))


def new_api_token(facility: Facility, user: str, *, label: str, days: int = 90) -> str:
    """Return a token for scripts; it is shown once and acts as the person until it expires or is revoked."""
    if not 1 <= days <= 3650:
        raise InvalidInput(
            f"an API token lives 1 to 3650 days, not {days}", remedy="choose a number in that range"
        )
    return _new_token(facility, user, kind="api", label=label[:100], length=timedelta(days=days))


def _new_token(facility: Facility, user: str, *, kind: str, label: str, length: timedelta) -> str:
    token = secrets.token_urlsafe(32)
    expires_at = facility.clock.now() + length
    with facility.catalog.change(SERVICE) as tx:
        tx.add_token(user, token_hash=_digest(token), kind=kind, label=label, expires_at=expires_at)
    return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _matches(hashed: str, password: str) -> bool:
    try:
        return STANDARD.verify(hashed, password.encode("utf-8", "surrogatepass"))
    except (VerifyMismatchError, InvalidHashError):
        return False
