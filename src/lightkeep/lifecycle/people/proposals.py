"""Experiments from a proposal or ESAF: station, name, window, identifiers, people and their roles.

`proposal_source.fetch` reads the record from a file or a REST service; here it becomes an experiment, and is kept
in step with it. Every change is a step that is named before it is done, all of them in one transaction. Grants
carry the origin `proposal`: only those are ever taken away again, and a membership that ended counts from the next
request on.

Who is who: an account is the record's person when it has the same e-mail address, or the same user name and no
other address. In doubt nobody is granted anything, and the step says so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from lightkeep.lifecycle.people import proposal_source
from lightkeep.lifecycle.people.set_up import check_name
from lightkeep.model.errors import InvalidInput, NotFound
from lightkeep.model.experiments import Experiment, ExperimentState, Station
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope, Verb
from lightkeep.model.proposals import Member, Proposal

if TYPE_CHECKING:
    from lightkeep.catalog.changes import Change
    from lightkeep.facility import Facility

ORIGIN: Final = "proposal"
"""Origin of the grants that follow the proposal system."""
_GERMAN: Final = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "å": "aa", "æ": "ae", "ł": "l"}
)
_ROLES: Final = (Role.PI, Role.MEMBER)


class Act(StrEnum):
    """What a step does."""

    ADD_STATION = "add station"
    ADD_EXPERIMENT = "add experiment"
    REVISE = "revise experiment"
    ADD_PERSON = "add person"
    GRANT = "grant"
    REVOKE = "revoke"
    LEAVE = "leave out"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a synchronisation does, or did."""

    act: Act
    subject: str
    """Station, experiment or person."""
    text: str
    """One sentence."""
    what: Any = None
    """The noun to be written; for `revise` the fields."""


@dataclass(frozen=True, slots=True)
class Synced:
    """What a synchronisation found to do."""

    experiment_id: str
    steps: tuple[Step, ...]
    """In the order in which they were done; empty: everything was as it should be."""
    is_done: bool
    """False: only looked at."""


def sync(facility: Facility, proposal: Proposal, *, principal: Principal, dry_run: bool = False) -> Synced:
    """Make the experiment of a proposal, or bring it up to date. Idempotent; one transaction.

    Needs `write` and `share` on the station; `manage` on the facility where a station or an account is made. Pass
    `SERVICE` for a record of the facility's own source, after asking whether this person may start it.

    Raises
    ------
    InvalidInput: the record cannot make an experiment. Forbidden, NotFound: not allowed.
    """
    _check(proposal)
    steps, experiment_id = _steps(facility, proposal)
    _require(facility, proposal, steps, principal)
    if steps and not dry_run:
        with facility.catalog.change(principal) as tx:
            for step in steps:
                _do(tx, step)
    return Synced(experiment_id, tuple(steps), is_done=not dry_run)


def experiment_name(proposal: Proposal, *, now: datetime) -> str:
    """Return `<yyyy-mm>-<PIlastname>-<number>`, in letters that any folder takes.

    >>> from datetime import UTC, datetime
    >>> pi = Member("Müller-Lüdenscheidt", is_pi=True)
    >>> experiment_name(Proposal("81234", "2-BM", (pi,)), now=datetime(2026, 11, 22, tzinfo=UTC))
    '2026-11-mueller-luedenscheidt-81234'
    """
    at = proposal.starts_at or now
    pi = next((each for each in proposal.people if each.is_pi), None)
    last = plain_name(pi.last_name) if pi else ""
    return f"{at:%Y-%m}-{last or 'pi'}-{plain_name(proposal.number)}"[:64].rstrip("-.")


def plain_name(text: str) -> str:
    """Return a name in lower-case ASCII letters and digits; empty when none of it can be written so.

    >>> plain_name("Ångström"), plain_name("O'Brien Jr."), plain_name("李")
    ('aangstroem', 'obrien-jr', '')
    """
    letters = unicodedata.normalize("NFC", text.strip().lower()).translate(_GERMAN)
    letters = unicodedata.normalize("NFKD", letters).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", letters.replace("'", "")).strip("-")


def _check(proposal: Proposal) -> None:
    what = f"proposal {proposal.number or '(without a number)'}"
    if not plain_name(proposal.number):
        raise InvalidInput(f"{what}: it needs a number")
    if not proposal.station_id:
        raise InvalidInput(f"{what} names no station", remedy="give one: --station 2-BM-A")
    check_name(proposal.station_id, "a station")
    if sum(each.is_pi for each in proposal.people) == 0:
        raise InvalidInput(f"{what} names no principal investigator", remedy="correct it where it was made")
    if proposal.starts_at and proposal.ends_at and proposal.ends_at <= proposal.starts_at:
        raise InvalidInput(f"{what} ends before it starts", remedy="correct it where it was made")


def _require(facility: Facility, proposal: Proposal, steps: Sequence[Step], principal: Principal) -> None:
    view = facility.catalog.view(principal)
    if any(step.act in (Act.ADD_STATION, Act.ADD_PERSON) for step in steps):
        view.require(Verb.MANAGE)
        return
    for verb in (Verb.WRITE, Verb.SHARE):
        view.require(verb, station_id=proposal.station_id)


def _steps(facility: Facility, proposal: Proposal) -> tuple[list[Step], str]:
    view = facility.catalog.view(SERVICE)
    now = facility.clock.now()
    steps: list[Step] = []
    if proposal.station_id not in {each.id for each in view.stations()}:
        station = Station(proposal.station_id, proposal.station_name, proposal.techniques)
        steps.append(Step(Act.ADD_STATION, station.id, f"add station {station.id}", station))
    known = _known(facility, proposal, now)
    identifiers = {"proposal": proposal.number, **(proposal.identifiers or {})}
    if known is None:
        name = experiment_name(proposal, now=now)
        check_name(name, "an experiment")
        is_planned = proposal.starts_at is not None and proposal.starts_at > now
        made = Experiment(
            name,
            proposal.station_id,
            proposal.title,
            ExperimentState.PLANNED if is_planned else ExperimentState.OPEN,
            proposal.starts_at,
            proposal.ends_at,
            identifiers,
        )
        steps.append(Step(Act.ADD_EXPERIMENT, name, f"add {made.state} experiment {name}: {made.title}", made))
        present: list[Grant] = []
    else:
        name = known.id
        steps += _revision(known, proposal, identifiers)
        present = [grant for grant in view.grants(name) if grant.scope is Scope.EXPERIMENT]
    steps += _people_steps(view.people(), proposal, name, present)
    return steps, name


def _known(facility: Facility, proposal: Proposal, now: datetime) -> Experiment | None:
    """Return the experiment that was made from this beam time earlier, whatever it is called.

    By its ESAF where it has one, else by number, station and the month of its beginning.
    """
    view = facility.catalog.view(SERVICE)
    esaf = (proposal.identifiers or {}).get("esaf", "")
    mine = [
        each
        for each in view.experiments(station_id=proposal.station_id, text=esaf or proposal.number, limit=1000)
        if each.identifiers.get("proposal") == proposal.number
    ]
    if esaf and (found := next((each for each in mine if each.identifiers.get("esaf") == esaf), None)):
        return found
    month = f"{proposal.starts_at or now:%Y-%m}"
    mine = [each for each in mine if not (esaf and each.identifiers.get("esaf"))]
    in_month = [each for each in mine if (each.starts_at and f"{each.starts_at:%Y-%m}" == month)]
    undated = [each for each in mine if each.starts_at is None]
    found = next(iter(in_month or undated), None)
    name = experiment_name(proposal, now=now)
    if found is None:
        try:
            other = view.experiment(name)
        except NotFound:
            return None
        if other.station_id != proposal.station_id or other.identifiers.get("proposal", proposal.number) != (
            proposal.number
        ):
            raise InvalidInput(f"experiment {name} exists and is another one", remedy="rename one of the two")
        return other
    return found


def _revision(known: Experiment, proposal: Proposal, identifiers: Mapping[str, str]) -> Iterator[Step]:
    """Title and identifiers follow the proposal; the window too, until the experiment is closed."""
    given: dict[str, Any] = {"title": proposal.title or None}
    if known.state in (ExperimentState.PLANNED, ExperimentState.OPEN):
        given |= {"starts_at": proposal.starts_at, "ends_at": proposal.ends_at}
    new = {name: value for name, value in given.items() if value is not None and value != getattr(known, name)}
    more = {scheme: value for scheme, value in identifiers.items() if known.identifiers.get(scheme) != value}
    if more:
        new["identifiers"] = more
    if new:
        yield Step(Act.REVISE, known.id, f"revise {', '.join(sorted(new))} of {known.id}", new)


def _people_steps(
    accounts: Iterable[Person], proposal: Proposal, experiment_id: str, present: Sequence[Grant]
) -> Iterator[Step]:
    book = _Book(accounts)
    wanted: dict[str, Role] = {}
    for member in proposal.people:
        found = book.find(member)
        if isinstance(found, str):
            yield Step(Act.LEAVE, member.name, f"leave out {member.name}: {found}")
            continue
        person, is_new = found
        if is_new:
            yield Step(
                Act.ADD_PERSON, person.id, f"add {person.name} ({person.id}), who cannot sign in yet", person
            )
        if member.is_pi or wanted.get(person.id) is not Role.PI:
            wanted[person.id] = Role.PI if member.is_pi else Role.MEMBER
    have = {(grant.person_id, grant.role) for grant in present}
    for person_id, role in wanted.items():
        if (person_id, role) not in have:
            made = Grant(person_id, role, Scope.EXPERIMENT, experiment_id, origin=ORIGIN)
            yield Step(Act.GRANT, person_id, f"make {person_id} {role} of {experiment_id}", made)
    for grant in present:
        if grant.origin == ORIGIN and wanted.get(grant.person_id) is not grant.role:
            text = f"{grant.person_id} is no longer {grant.role} of {experiment_id}"
            yield Step(Act.REVOKE, grant.person_id, text, replace(grant, created_at=None))


class _Book:
    """Which account is whose, with those that this synchronisation will make."""

    def __init__(self, accounts: Iterable[Person]) -> None:
        self._by_id = {each.id: each for each in accounts}
        self._by_email: dict[str, list[Person]] = {}
        for each in self._by_id.values():
            if each.email:
                self._by_email.setdefault(_address(each.email), []).append(each)

    def find(self, member: Member) -> tuple[Person, bool] | str:
        """Return the account and whether it is to be made; a sentence when nobody can tell who it is."""
        address, user = _address(member.email), member.user.strip().lower()
        same = self._by_email.get(address, []) if address else []
        if len(same) > 1:
            return f"{len(same)} accounts have the address {address}"
        if same:
            return (same[0], False) if same[0].is_active else f"the account {same[0].id} is closed"
        if user and user in self._by_id:
            person = self._by_id[user]
            if person.email and address and _address(person.email) != address:
                return f"the account {user} has another e-mail address"
            return (person, False) if person.is_active else f"the account {user} is closed"
        if not user and not address:
            return "neither an e-mail address nor a user name says who it is"
        return self._new(member, user, address)

    def _new(self, member: Member, user: str, address: str) -> tuple[Person, bool] | str:
        name = (
            user
            or plain_name(f"{member.last_name} {member.first_name[:1]}")
            or plain_name(address.partition("@")[0])
        )
        name = name[:60]
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name) or name in ("anonymous", "lightkeep"):
            return f"{name!r} cannot be a user name"
        free = next(each for n in range(1, 1000) if (each := name if n == 1 else f"{name}-{n}") not in self._by_id)
        made = Person(free, member.name or free, member.email.strip())
        self._by_id[free] = made
        if address:
            self._by_email[address] = [made]
        return made, True


def _address(email: str) -> str:
    return email.strip().casefold()


def _do(tx: Change, step: Step) -> None:
    if step.act is Act.ADD_STATION:
        tx.add_station(step.what)
    elif step.act is Act.ADD_EXPERIMENT:
        tx.add_experiment(step.what)
    elif step.act is Act.REVISE:
        tx.revise_experiment(step.subject, **step.what)
    elif step.act is Act.ADD_PERSON:
        tx.add_person(step.what)
    elif step.act is Act.GRANT:
        tx.add_grant(step.what)
    elif step.act is Act.REVOKE:
        tx.remove_grant(step.what)


def from_source(
    facility: Facility,
    *,
    principal: Principal,
    place: str = "",
    number: str = "",
    experiment_id: str = "",
    station_id: str = "",
    dry_run: bool = False,
) -> list[Synced]:
    """Read proposals and make, or bring up to date, their experiments.

    Parameters
    ----------
    place: a file or an address; empty: the facility's own source (setting `proposals.source`), whose records may
        make accounts for anybody who has `write` and `share` on the station.
    number: the proposal; empty: that of `experiment_id`, or all that the place has.
    """
    settings = facility.config.proposals
    source = place or settings.source
    if not source:
        raise InvalidInput(
            "where are the proposals?", remedy="give --from FILE or URL, or the setting proposals.source"
        )
    is_ours = source == settings.source
    view = facility.catalog.view(principal)
    if experiment_id:
        known = view.experiment(experiment_id)
        number, station_id = number or known.identifiers.get("proposal", ""), known.station_id
        if not number:
            raise InvalidInput(f"experiment {experiment_id} was made without a proposal", remedy="give --proposal")
    token = proposal_source.token_of(settings.token_file) if is_ours else ""
    found = proposal_source.fetch(source, number, token=token, station_id=station_id)
    if experiment_id and len(found) > 1:
        esaf = known.identifiers.get("esaf", "")
        month = f"{known.starts_at:%Y-%m}" if known.starts_at else ""
        found = [each for each in found if _is_visit(each, esaf, month)]
    done = []
    for each in found:
        who = principal
        if is_ours:
            for verb in (Verb.WRITE, Verb.SHARE):
                view.require(verb, station_id=each.station_id)
            who = SERVICE
        done.append(sync(facility, each, principal=who, dry_run=dry_run))
    return done


def _is_visit(proposal: Proposal, esaf: str, month: str) -> bool:
    if esaf:
        return (proposal.identifiers or {}).get("esaf") == esaf
    return bool(proposal.starts_at and f"{proposal.starts_at:%Y-%m}" == month)
