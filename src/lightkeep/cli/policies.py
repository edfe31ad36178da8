"""`policy` and `explain`: how long what is kept, and why this is still here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lightkeep.cli.app import Command, Group
from lightkeep.cli.output import count, emit, folded, plain, say, size, table
from lightkeep.cli.session import Session
from lightkeep.model.errors import InvalidInput

if TYPE_CHECKING:
    from lightkeep.lifecycle.retention.explain import Answer, Explanation
    from lightkeep.lifecycle.retention.policies import Simulated

_EXAMPLES = (
    "lightkeep policy check retention.toml     is it right?",
    "lightkeep policy simulate retention.toml --at 2027-01-01",
    "lightkeep policy set retention.toml       from now on it decides",
)
_SHORTEST = timedelta(days=1)


@click.group(cls=Group, examples=_EXAMPLES)
def policy() -> None:
    """How long which data stay where. Without a policy everything is kept."""


def _read(file: Path | None, is_default: bool) -> str:
    from lightkeep.policy.document import default_text

    if (file is None) is not is_default:
        raise InvalidInput("name one policy", remedy="give a FILE, or --default for the packaged one")
    if file is None:
        return default_text()
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InvalidInput(f"cannot read {file}: {why}", remedy="name a text file") from error


_file = click.argument("file", required=False, type=click.Path(readable=False, path_type=Path))
_default = click.option("--default", "is_default", is_flag=True, help="The packaged policy: 3 months on central.")


@policy.command("check", examples=("lightkeep policy check retention.toml",))
@_file
@_default
@click.pass_obj
def check(session: Session, file: Path | None, is_default: bool) -> None:
    """Read FILE and say what is wrong with it, or what may not be meant. Nothing is adopted."""
    from lightkeep.lifecycle.retention import policies

    found = policies.check(_read(file, is_default))

    def human() -> None:
        rows = [
            (rule.name, tier, keep.span or "for ever", keep.pressure or "", keep.min_copies, _yes(keep.durable))
            for rule in found.policy.rules
            for tier, keep in rule.keep.items()
        ]
        table(["rule!", "tier", "kept", "under pressure", "copies elsewhere>", "durable"], rows)
        say("A tier that a rule does not name is kept for ever.")
        for finding in found.findings:
            say(f"Look at this: {finding}")

    emit(session, {"policy": found.policy.id, "rules": found.policy.rules, "findings": found.findings}, human)


def _yes(flag: bool) -> str:
    return "yes" if flag else ""


@policy.command("set", examples=("lightkeep policy set retention.toml", "lightkeep policy set --default"))
@_file
@_default
@click.pass_obj
def adopt(session: Session, file: Path | None, is_default: bool) -> None:
    """Adopt FILE as the next version of its policy. It decides from now on; the versions before stay readable."""
    from lightkeep.lifecycle.retention import policies

    text = _read(file, is_default)
    with session.opened() as work:
        version = policies.adopt(work.facility, text, principal=work.principal)
    emit(session, {**plain(version), "stamp": version.stamp}, lambda: say(f"Adopted {version.stamp}"))


@policy.command("list", examples=("lightkeep policy list",))
@click.pass_obj
def show_all(session: Session) -> None:
    """List the policies with all their versions, the newest first."""
    with session.opened() as work:
        page = work.view.policy_versions(limit=1000)

    def human() -> None:
        rows = [(v.stamp, v.author, f"{v.created_at:%Y-%m-%d %H:%M}" if v.created_at else "") for v in page.items]
        table(["policy!", "adopted by", "at"], rows)
        if not page.total:
            say("No policy: everything is kept for ever. lightkeep policy set --default adopts the packaged one.")

    emit(session, page, human)


@policy.command("show", examples=("lightkeep policy show central-3-months", "lightkeep policy show p --version 2"))
@click.argument("policy_id", metavar="POLICY")
@click.option("--version", default=0, type=click.IntRange(0), help="Not the newest version, but this one.")
@click.pass_obj
def show(session: Session, policy_id: str, version: int) -> None:
    """Print the text of a policy."""
    with session.opened() as work:
        found = work.view.policy_version(policy_id, version)
    emit(session, found, lambda: say(found.text))


@policy.command("assign", examples=("lightkeep policy assign 2026-11-lee-81234 keep-long",))
@click.argument("experiment")
@click.argument("policy_id", metavar="[POLICY]", default="")
@click.pass_obj
def assign(session: Session, experiment: str, policy_id: str) -> None:
    """Give an experiment a policy of its own; without POLICY it follows that of its station again."""
    from lightkeep.lifecycle.retention import policies

    with session.opened() as work:
        policies.assign(work.facility, experiment, policy_id, principal=work.principal)
    followed = f"policy {policy_id}" if policy_id else "the policy of its station"
    emit(
        session,
        {"experiment": experiment, "policy": policy_id},
        lambda: say(f"Experiment {experiment} follows {followed}"),
    )


@policy.command(
    "simulate",
    examples=(
        "lightkeep policy simulate --at 2027-01-01",
        "lightkeep policy simulate --default --at 2027-01-01",
        "lightkeep policy simulate new.toml --at 2027-01-01    before it is adopted",
    ),
)
@_file
@_default
@click.option("--at", type=click.DateTime(["%Y-%m-%d"]), help="The day; today when it is left out.")
@click.option(
    "--limit", default=50, type=click.IntRange(1, 10_000), show_default=True, help="At most so many lines."
)
@click.pass_obj
def simulate(session: Session, file: Path | None, is_default: bool, at: datetime | None, limit: int) -> None:
    """Show how much would go from each store by a day, by experiment. Nothing is deleted."""
    from lightkeep.lifecycle.retention import policies

    given = [policies.check(_read(file, is_default)).policy] if file or is_default else None
    with session.opened() as work:
        day = at.replace(tzinfo=UTC) if at else work.facility.clock.now() + _SHORTEST
        found = policies.simulate(work.facility, at=day, principal=work.principal, policies=given)
    emit(
        session,
        {"at": found.at, "stores": found.by_store(), "effects": found.effects},
        lambda: _print_simulated(found, limit),
    )


def _print_simulated(found: Simulated, limit: int) -> None:
    say(f"By {found.at:%Y-%m-%d}, if nothing else changes:")
    names = ("size", "goes", "under_pressure", "held", "lacks_copies")
    heads = [f"{word}>!" for word in ("lies there", "goes", "under pressure", "held", "too few copies")]
    rows = [(store, *(size(sums[name]) for name in names)) for store, sums in found.by_store().items()]
    table(["store!", *heads], rows)
    most = sorted(found.effects, key=lambda each: (-each.goes - each.under_pressure, each.experiment_id))
    rows = [
        (e.experiment_id, e.store_id, e.rule or "none", *(size(getattr(e, name)) for name in names[1:]))
        for e in most[:limit]
    ]
    say()
    table(["experiment!", "store", "rule", "goes>", "pressure>", "held>", "too few>"], rows)


@click.command("explain", cls=Command, examples=("lightkeep explain tooth", "lightkeep explain tooth --file a.h5"))
@click.argument("dataset")
@click.option("--file", "path", default="", help="Only this file of it.")
@click.option("-v", "--verbose", is_flag=True, help="Also the conditions that are met.")
@click.pass_obj
def explain(session: Session, dataset: str, path: str, verbose: bool) -> None:
    """Say where a dataset is, until when, and why: each condition, and the date on which it turns true."""
    from lightkeep.lifecycle.retention import explain as verb

    with session.opened() as work:
        found = verb.explain(work.facility, work.dataset(dataset).id, principal=work.principal, path=path)
    emit(session, found, lambda: _print_explained(found, verbose))


policy.add_command(
    Command(
        "explain",
        params=explain.params[:-1],
        callback=explain.callback,
        help=explain.help,
        examples=("lightkeep policy explain tooth",),
    )
)


def _print_explained(found: Explanation, verbose: bool) -> None:
    folded(f"{found.dataset_id} {found.name} of {found.experiment_id}: {found.text}")
    follows = f"{found.policy}, rule {found.rule or 'none'}" if found.policy else "none: everything is kept"
    clock = f"{found.clock_at:%Y-%m-%d}" if found.clock_at else "not yet: the experiment is not closed"
    say(f"policy: {follows}")
    say(f"clock started: {clock}")
    for place in found.places:
        say()
        read = f", read back {place.verified_at:%Y-%m-%d}" if place.verified_at else ""
        say(f"{place.store_id} ({place.tier}): {count(place.files, 'file')}, {size(place.size)}{read}")
        if place.trashed:
            until = f" until {place.destroy_after:%Y-%m-%d}" if place.destroy_after else ""
            say(f"  {count(place.trashed, 'file')} in the trash, can be undone{until}")
        if place.deleted:
            say(f"  {count(place.deleted, 'file')} deleted here")
        for answer in place.answers:
            _print_answer(answer, verbose)


def _print_answer(answer: Answer, verbose: bool) -> None:
    from lightkeep.policy.purge import BY_PLANNING

    folded(f"  {count(answer.files, 'file')}: {answer.text}", hanging=4)
    shown = [each for each in answer.conditions if verbose or not each.met]
    width = max((len(f"{each.id} {each.name}") for each in shown), default=0)
    for each in shown:
        mark = "✓" if each.met else "·" if each.id in BY_PLANNING else "✕"  # a plan and its approval meet those
        turns = f"; turns true on {each.turns_true_at:%Y-%m-%d}" if each.turns_true_at else ""
        name = f"{each.id} {each.name}"
        folded(f"  {mark} {name:<{width}}  {each.text}{turns}", hanging=width + 6)
