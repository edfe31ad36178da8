"""Tell people before anything goes: 30, 7 and 1 days ahead, or as their policy says (P3).

    due ──mail──> sent ──> acknowledged        bounced, void: told anew, and the days are counted anew
                   └──> bounced

Each file has days of its own: what comes onto a list later is announced in a notice of its own. What was announced
is a frozen list under a hash; only what is on it counts as announced.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from lightkeep.catalog.candidates import Expiring
from lightkeep.lifecycle.outbox import PREFIX, is_address
from lightkeep.model.errors import Conflict, NotFound
from lightkeep.model.mail import Mail
from lightkeep.model.people import SERVICE, Grant, Principal, Role, Scope, Verb
from lightkeep.model.quantity import bytes_in_words
from lightkeep.model.retention import Hold, HoldKind, HoldScope, Notice, NoticeState
from lightkeep.model.stores import StoreRecord

if TYPE_CHECKING:
    from lightkeep.facility import Facility

MORE: Final = timedelta(days=90)
"""How much longer the link in the mail keeps everything."""
_AGAIN: Final = timedelta(days=7)
"""After a notice came back, so long until the next try: somebody must correct the address first."""
_EVERY: Final = timedelta(hours=6)
_LOOKED: Final = "notices.looked"
_TOLD: Final = (Role.PI, Role.STATION_MANAGER)


@dataclass(frozen=True, slots=True)
class Announced:
    """What a look at the dates found to say."""

    notices: tuple[str, ...] = ()
    """Ids of the new ones."""
    unreachable: tuple[str, ...] = ()
    """Experiments whose files would go, and nobody with an address is there to be told: nothing goes."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Replicas of one experiment on one store that one notice speaks of."""

    experiment_id: str
    store: StoreRecord
    days: tuple[int, ...]
    policy: str
    last_copy: bool
    text: str
    replicas: dict[str, int]
    """Id -> bytes."""


def listing_of(replica_ids: Iterable[str]) -> str:
    """Return the SHA-256 over the sorted ids of the replicas that a notice announces."""
    return hashlib.sha256("\n".join(sorted(replica_ids)).encode()).hexdigest()


def tick(facility: Facility) -> int:
    """Look at the dates, a few times a day; return how many notices became due."""
    now = facility.clock.now()
    looked = facility.catalog.view(SERVICE).fact(_LOOKED)
    if looked and timedelta(0) <= now - datetime.fromisoformat(looked) < _EVERY:
        return 0
    made = len(announce(facility).notices)
    with facility.catalog.change(SERVICE) as tx:
        tx.set_fact(_LOOKED, now.isoformat())
        tx.forget_listings()
    return made


def announce(facility: Facility) -> Announced:
    """Write every notice that is due now, with its mail in the outbox. Again: nothing."""
    view = facility.catalog.view(SERVICE)
    grants = [each for each in view.grants() if each.role in _TOLD]
    made: list[str] = []
    unreachable: set[str] = set()
    for store in view.stores():
        if not store.is_managed:
            continue
        for batch in _batches(facility, store):
            people = _recipients(facility, batch.experiment_id, grants)
            if not people:
                unreachable.add(batch.experiment_id)
                continue
            made += _tell(facility, batch, people)
        made += _remind(facility, store, grants)
    return Announced(tuple(made), tuple(sorted(unreachable)))


def _batches(facility: Facility, store: StoreRecord) -> list[_Batch]:
    """Return what goes soon from a store and was not announced yet, by experiment and rule."""
    view, now = facility.catalog.view(SERVICE), facility.clock.now()
    groups: dict[tuple[str, tuple[int, ...], bool], list[tuple[Expiring, dict[str, int]]]] = {}
    for dataset in view.expiring(store.tier):
        at = dataset.expiry.pressure_at or dataset.expiry.at
        days = tuple(sorted(set(dataset.rule.notice_days), reverse=True))
        if at is None or not days or now < at - timedelta(days[0]):
            continue
        ends = _held_until(view.holds_over(dataset.dataset_id), store)
        if ends is None or now < ends - timedelta(days[0]):
            continue
        last_copy = dataset.rule.keep[store.tier].last_copy
        found = _unannounced(facility, dataset, store, need_copy=not last_copy)
        if found:
            groups.setdefault((dataset.experiment_id, days, last_copy), []).append((dataset, found))
    return [
        _Batch(
            experiment_id,
            store,
            days,
            members[0][0].expiry.policy,
            last_copy,
            _why(members[0][0], store),
            {name: size for _, found in members for name, size in found.items()},
        )
        for (experiment_id, days, last_copy), members in sorted(groups.items())
    ]


def _why(dataset: Expiring, store: StoreRecord) -> str:
    """Return which rule says that a dataset may go from a store, and when."""
    limit, keep = dataset.expiry, dataset.rule.keep[store.tier]
    if limit.at is None or limit.pressure_at is None or limit.pressure_at >= limit.at:
        return limit.text
    return (
        f"{limit.text}; only {keep.pressure}, until {limit.pressure_at:%Y-%m-%d}, while the store is short of "
        f"room, otherwise until {limit.at:%Y-%m-%d}"
    )


def _held_until(holds: Sequence[Hold], store: StoreRecord) -> datetime | None:
    """Return when the last hold over a dataset ends; None: not by itself."""
    reaching = [
        hold
        for hold in holds
        if hold.scope is not HoldScope.FILE and not (hold.scope is HoldScope.STORE and hold.scope_id != store.id)
    ]
    ends = [hold.until for hold in reaching]
    if not ends:
        return _LONG_AGO
    return None if None in ends else max(end for end in ends if end is not None)


_LONG_AGO: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _unannounced(facility: Facility, dataset: Expiring, store: StoreRecord, *, need_copy: bool) -> dict[str, int]:
    view = facility.catalog.view(SERVICE)
    live = view.live_listings(dataset.experiment_id, store.id)
    bounced = view.last_bounce(dataset.experiment_id, store.id)
    if bounced is not None and facility.clock.now() < bounced + _AGAIN:
        return {}
    found: dict[str, int] = {}
    for page in view.candidates(dataset.number, store.id, need_copy=need_copy):
        known = view.listed(live, [each.replica_id for each in page])
        found |= {each.replica_id: each.size for each in page if each.replica_id not in known}
    return found


def _tell(facility: Facility, batch: _Batch, people: Sequence[str]) -> list[str]:
    """Write the first notice of a list."""
    now = facility.clock.now()
    return [
        _write(
            facility,
            batch.replicas,
            experiment_id=batch.experiment_id,
            store_id=batch.store.id,
            days=batch.days[0],
            expires_at=now + timedelta(batch.days[0]),
            policy=batch.policy,
            why=batch.text,
            last_copy=batch.last_copy,
            people=people,
        )
    ]


def _remind(facility: Facility, store: StoreRecord, grants: Sequence[Grant]) -> list[str]:
    """Write the notices that follow the first of a list, for what is left of it."""
    view, now = facility.catalog.view(SERVICE), facility.clock.now()
    chains: dict[tuple[str, str], list[Notice]] = {}
    offset = 0
    while page := view.notices(store_id=store.id, live=True, limit=1000, offset=offset).items:
        for notice in page:
            chains.setdefault((notice.experiment_id, notice.listing), []).append(notice)
        offset += len(page)
    expiring = view.expiring(store.tier)
    days_of = {each.expiry.policy: each.rule.notice_days for each in expiring}
    texts: dict[tuple[str, str], dict[str, None]] = {}
    for each in expiring:
        texts.setdefault((each.experiment_id, each.expiry.policy), {})[_why(each, store)] = None
    made: list[str] = []
    for (experiment_id, listing), notices in sorted(chains.items()):
        first, told = max(notices, key=lambda each: each.days), {each.days for each in notices}
        wanted = [days for days in days_of.get(first.policy, ()) if days < first.days and days not in told]
        due = [days for days in wanted if now >= first.expires_at - timedelta(days)]
        if not due or any(each.state is NoticeState.DUE for each in notices):
            continue
        left = view.still_there(listing)
        people = _recipients(facility, experiment_id, grants)
        if not left or not people:
            continue
        made.append(
            _write(
                facility,
                left,
                listing=listing,
                experiment_id=experiment_id,
                store_id=store.id,
                days=max(due),
                expires_at=max(first.expires_at, now + timedelta(max(due))),
                policy=first.policy,
                why="; ".join(texts.get((experiment_id, first.policy), ())),
                last_copy=first.last_copy,
                people=people,
            )
        )
    return made


def _write(
    facility: Facility,
    replicas: dict[str, int],
    *,
    experiment_id: str,
    store_id: str,
    days: int,
    expires_at: datetime,
    policy: str,
    why: str,
    last_copy: bool,
    people: Sequence[str],
    listing: str = "",
) -> str:
    notice = Notice(
        id=facility.ids.new("notice"),
        experiment_id=experiment_id,
        store_id=store_id,
        days=days,
        listing=listing or listing_of(replicas),
        files=len(replicas),
        size=sum(replicas.values()),
        expires_at=expires_at,
        recipients=tuple(people),
        policy=policy,
        last_copy=last_copy,
    )
    token = secrets.token_urlsafe(32)
    mail = Mail(f"{PREFIX}{notice.id}", notice.recipients, _subject(notice), _text(facility, notice, token, why))
    with facility.catalog.change(SERVICE) as tx:
        tx.add_notice(notice, members=replicas, token_hash=_digest(token), mail=mail)
    return notice.id


def _recipients(facility: Facility, experiment_id: str, grants: Sequence[Grant]) -> list[str]:
    """Return the addresses of the principal investigators and of the station's managers."""
    view = facility.catalog.view(SERVICE)
    station_id = view.experiment(experiment_id).station_id
    named = {
        each.person_id
        for each in grants
        if (each.scope is Scope.EXPERIMENT and each.scope_id == experiment_id and each.role is Role.PI)
        or (each.scope is Scope.STATION and each.scope_id == station_id)
    }
    people = [view.person(each) for each in sorted(named)]
    return sorted({each.email for each in people if each.is_active and is_address(each.email)})


def _subject(notice: Notice) -> str:
    return f"{notice.experiment_id}: data leave store {notice.store_id} on {notice.expires_at:%Y-%m-%d}"


def _text(facility: Facility, notice: Notice, token: str, why: str) -> str:
    title = facility.catalog.view(SERVICE).experiment(notice.experiment_id).title
    last = (
        "THERE IS NO OTHER COPY: once they are gone, they are gone."
        if notice.last_copy
        else "Verified copies on other stores stay."
    )
    why = why.replace(f" of {notice.policy}", "")  # it is named on that line already
    files = f"{notice.files:,} file{'' if notice.files == 1 else 's'}, {bytes_in_words(notice.size)}"
    return f"""\
Experiment {notice.experiment_id}{f": {title}" if title else ""}

What     {files}, on store {notice.store_id}
When     not before {notice.expires_at:%A, %d %B %Y, %H:%M} UTC
Why      policy {notice.policy}{f": {why}" if why else ""}

{last}

Do you need them longer? This keeps all of the experiment for {MORE.days} days more:

    {base_url(facility)}extend/{token}

or, on the command line:

    lightkeep experiment extend {notice.experiment_id} --days {MORE.days}

If you do nothing, the files go to the trash on that day, and leave it two weeks later or when your policy says so.
Their records, checksums and metadata stay for ever.
"""


def base_url(facility: Facility) -> str:
    """Return the address of the portal, with a slash at its end."""
    http = facility.config.http
    return (facility.config.mail.base_url or f"http://{http.host}:{http.port}").rstrip("/") + "/"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


# ---- answers


def by_token(facility: Facility, token: str) -> Notice:
    """Return the notice whose mail carried a token. NotFound: the link is not, or no longer, good."""
    try:
        return facility.catalog.view(SERVICE).notice_by_token(_digest(token))
    except NotFound as error:
        raise NotFound(
            "this link is not good", remedy="open the link of the latest mail, or sign in and extend there"
        ) from error


def extended_until(facility: Facility, notice: Notice) -> datetime | None:
    """Return until when the experiment of a notice is held now; None: it is not, or without an end."""
    found = facility.catalog.view(SERVICE).holds(scope=HoldScope.EXPERIMENT, scope_id=notice.experiment_id)
    return max((hold.until for hold in found if hold.until), default=None)


def extend_by_token(facility: Facility, token: str) -> Hold:
    """Keep the experiment of a notice for `MORE`, on behalf of whoever got the mail. Again: the same hold.

    Raises
    ------
    NotFound: the link is not good. Conflict: the files have gone already.
    """
    notice = by_token(facility, token)
    who = Principal(f"link:{notice.id}")
    standing = facility.catalog.view(SERVICE).holds(scope=HoldScope.EXPERIMENT, scope_id=notice.experiment_id)
    for hold in standing:
        if hold.created_by == who.id:
            return hold
    if notice.state not in (NoticeState.DUE, NoticeState.SENT, NoticeState.ACKNOWLEDGED):
        raise Conflict(
            f"this notice is {notice.state}: another one follows, or somebody has extended already",
            remedy="sign in to see until when the data stay",
        )
    until = max(notice.expires_at, facility.clock.now()) + MORE
    reason = f"kept for {MORE.days} days more by the link in the mail of {notice.created_at:%Y-%m-%d}"
    made = Hold(
        facility.ids.new("hold"),
        HoldScope.EXPERIMENT,
        notice.experiment_id,
        HoldKind.EXTENSION,
        reason,
        until,
    )
    with facility.catalog.change(who) as tx:
        return tx.add_hold(made)


def acknowledge(facility: Facility, notice_id: str, *, principal: Principal) -> Notice:
    """Say that the files of a notice may go. Needs `write` on the experiment; Conflict when it was not sent."""
    view = facility.catalog.view(principal)
    notice = view.notice(notice_id)
    view.require(Verb.WRITE, experiment_id=notice.experiment_id)
    with facility.catalog.change(principal) as tx:
        tx.set_notice_state(notice_id, NoticeState.ACKNOWLEDGED)
    return view.notice(notice_id)
