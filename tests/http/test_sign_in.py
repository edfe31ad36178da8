"""Passwords, sessions and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from lightkeep.facility import Facility
from lightkeep.lifecycle.people import sign_in
from lightkeep.model.errors import Forbidden, InvalidInput, SignInRequired
from lightkeep.model.people import ANONYMOUS, Principal
from lightkeep.testing.populated import PASSWORD, StillClock, with_people


@pytest.fixture
def clock() -> StillClock:
    """Return a clock that the test moves."""
    return StillClock()


@pytest.fixture
def own(tmp_path: Path, clock: StillClock) -> Iterator[Facility]:
    """Return a facility of the test's own."""
    made = with_people(tmp_path, clock=clock)
    yield made
    made.close()


def _sign_in(own: Facility, user: str, password: str, attempts: sign_in.Attempts | None = None) -> str:
    return sign_in.sign_in(own, user, password, attempts=attempts or sign_in.Attempts(), address="10.0.0.1")


def test_the_right_password_gives_a_token_that_is_the_person(own: Facility) -> None:
    assert sign_in.principal_of(own, _sign_in(own, " PI ", PASSWORD)) == Principal("pi")


@pytest.mark.parametrize(
    ("user", "password"), [("pi", "wrong"), ("nobody", PASSWORD), ("", ""), ("pi", "x" * 5000)]
)
def test_anything_else_gives_one_and_the_same_refusal(own: Facility, user: str, password: str) -> None:
    with pytest.raises(SignInRequired, match="user name or password is wrong"):
        _sign_in(own, user, password)


def test_after_eight_failures_even_the_right_password_waits(own: Facility, clock: StillClock) -> None:
    attempts = sign_in.Attempts()
    for _ in range(attempts.allowed):
        with pytest.raises(SignInRequired, match="wrong"):
            _sign_in(own, "pi", "wrong", attempts)
    with pytest.raises(SignInRequired, match="too many") as refused:
        _sign_in(own, "pi", PASSWORD, attempts)
    assert refused.value.data["retry_after_s"] == attempts.window.total_seconds()
    clock.at += attempts.window
    assert _sign_in(own, "pi", PASSWORD, attempts)


def test_one_persons_failures_do_not_lock_out_another(own: Facility) -> None:
    attempts = sign_in.Attempts()
    for _ in range(attempts.allowed):
        with pytest.raises(SignInRequired):
            _sign_in(own, "pi", "wrong", attempts)
    assert _sign_in(own, "member", PASSWORD, attempts)


def test_a_session_ends_with_its_time(own: Facility, clock: StillClock) -> None:
    token = _sign_in(own, "pi", PASSWORD)
    clock.at += sign_in.SESSION_LENGTH - timedelta(seconds=1)
    assert sign_in.principal_of(own, token) == Principal("pi")
    clock.at += timedelta(seconds=2)
    assert sign_in.principal_of(own, token) == ANONYMOUS


def test_signing_out_ends_it_at_once_and_twice_is_no_error(own: Facility) -> None:
    token = _sign_in(own, "pi", PASSWORD)
    sign_in.sign_out(own, token)
    sign_in.sign_out(own, token)
    assert sign_in.principal_of(own, token) == ANONYMOUS


def test_a_new_password_ends_every_session(own: Facility) -> None:
    token = _sign_in(own, "pi", PASSWORD)
    sign_in.set_password(own, "pi", "quite another one", principal=Principal("pi"), hasher=sign_in.CHEAP)
    assert sign_in.principal_of(own, token) == ANONYMOUS
    assert _sign_in(own, "pi", "quite another one")


def test_nobody_sets_another_persons_password_but_an_administrator(own: Facility) -> None:
    with pytest.raises(Forbidden):
        sign_in.set_password(own, "pi", "quite another one", principal=Principal("member"))
    admin = Principal("facility-admin")
    sign_in.set_password(own, "pi", "quite another one", principal=admin, hasher=sign_in.CHEAP)
    assert _sign_in(own, "pi", "quite another one")


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_a_password_has_ten_characters_or_more(password: str) -> None:
    with pytest.raises(InvalidInput):
        sign_in.hash_password(password)


def test_only_the_hash_of_a_token_is_kept(own: Facility) -> None:
    token = sign_in.new_api_token(own, "pi", label="script", days=1)
    stored = (own.config.root / "catalog.db").read_bytes()
    wal = own.config.root / "catalog.db-wal"
    assert token.encode() not in stored + (wal.read_bytes() if wal.exists() else b"")


@pytest.mark.parametrize("token", ["", "x", "\udcff", "x" * 100_000])
def test_what_is_no_token_is_nobody(own: Facility, token: str) -> None:
    assert sign_in.principal_of(own, token) == ANONYMOUS
