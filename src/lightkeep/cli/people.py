"""`person`: accounts for the portal, and tokens for scripts."""

from __future__ import annotations

import sys

import click

from lightkeep.cli.app import Group
from lightkeep.cli.output import emit, say, table
from lightkeep.cli.session import Session
from lightkeep.model.errors import InvalidInput
from lightkeep.model.people import Grant, Person, Role, Scope, Verb


@click.group(cls=Group, examples=('lightkeep person add maria --name "Maria Lee" --password',))
def person() -> None:
    """Add people, set passwords, make tokens."""


def _password(ask: bool, from_stdin: bool) -> str:
    """Return a password typed twice or read from the first line of the input; empty when neither is wanted."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    if not ask:
        return ""
    if not sys.stdin.isatty():
        raise InvalidInput("no terminal to type a password at", remedy="pipe it in and add --password-stdin")
    typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return typed


@person.command("add", examples=('lightkeep person add maria --name "Maria Lee" --password',))
@click.argument("user")
@click.option("--name", default="", help="The name as shown to others.")
@click.option("--email", default="", help="Where notices go.")
@click.option("--admin", is_flag=True, help="Make this person an administrator of the facility.")
@click.option("--password", "ask", is_flag=True, help="Ask for a password for the portal.")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of the input.")
@click.pass_obj
def add(session: Session, user: str, name: str, email: str, admin: bool, ask: bool, password_stdin: bool) -> None:
    """Make an account. USER is the name to sign in with, and the user on this machine."""
    from lightkeep.lifecycle.people import set_up, sign_in

    with session.opened() as work:
        wants = ask or password_stdin
        hashed = sign_in.hash_password(_password(ask, password_stdin)) if wants else ""
        made = Person(user, name or user, email)
        set_up.add_person(work.facility, made, principal=work.principal, password_hash=hashed)
        if admin:
            role = Grant(user, Role.FACILITY_ADMIN, Scope.FACILITY)
            set_up.grant(work.facility, role, principal=work.principal)
    hint = "" if wants else f"; lets nobody in until: lightkeep person password {user}"
    emit(session, made, lambda: say(f"Added {made.name} ({user}){hint}"))


@person.command("list", examples=("lightkeep person list",))
@click.pass_obj
def show_all(session: Session) -> None:
    """List the people."""
    with session.opened() as work:
        work.view.require(Verb.MANAGE)
        people = work.view.people()
    rows = [(p.id, p.name, p.email, "" if p.is_active else "closed") for p in people]
    emit(
        session,
        {"items": people, "total": len(people)},
        lambda: table(["user!", "name", "e-mail", "account"], rows),
    )


@person.command("password", examples=("lightkeep person password maria",))
@click.argument("user")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of the input.")
@click.pass_obj
def password(session: Session, user: str, password_stdin: bool) -> None:
    """Set a person's password for the portal: your own, or as an administrator anybody's."""
    from lightkeep.lifecycle.people import sign_in

    with session.opened() as work:
        typed = _password(True, password_stdin)
        sign_in.set_password(work.facility, user, typed, principal=work.principal)
    emit(session, {"user": user}, lambda: say(f"Set the password of {user}"))


@person.command("token", examples=("lightkeep person token maria --label beamline-script",))
@click.argument("user")
@click.option("--label", default="command line", show_default=True, help="What the token is for.")
@click.option(
    "--days", default=90, show_default=True, type=click.IntRange(1, 3650), help="How long it is good for."
)
@click.pass_obj
def token(session: Session, user: str, label: str, days: int) -> None:
    """Make a token: scripts call the HTTP API as this person with it. It is shown once."""
    from lightkeep.lifecycle.people import sign_in

    with session.opened() as work:
        if user != work.principal.id:
            work.view.require(Verb.MANAGE)
        made = sign_in.new_api_token(work.facility, user, label=label, days=days)
    emit(session, {"user": user, "label": label, "token": made, "days": days}, lambda: say(made))
