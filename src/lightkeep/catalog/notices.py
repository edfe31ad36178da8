"""What people are told before anything goes, and the outbox that their mails wait in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import RowMapping, and_, delete, func, select, update

from lightkeep.catalog import schema
from lightkeep.catalog.page import Page
from lightkeep.catalog.text import to_json
from lightkeep.catalog.transaction import Transaction, parts
from lightkeep.catalog.view_base import ViewBase
from lightkeep.model.errors import Conflict
from lightkeep.model.mail import Mail
from lightkeep.model.retention import Notice, NoticeState
from lightkeep.model.stores import ReplicaState

_n, _o, _l = schema.notice.c, schema.outbox.c, schema.listing.c
_e = schema.experiment
LIVE: Final = (NoticeState.DUE, NoticeState.SENT, NoticeState.ACKNOWLEDGED)
"""States of a notice that still counts, or will."""
_AFTER: Final = {
    NoticeState.DUE: (NoticeState.SENT, NoticeState.BOUNCED, NoticeState.VOID),
    NoticeState.SENT: (NoticeState.BOUNCED, NoticeState.ACKNOWLEDGED, NoticeState.VOID),
    NoticeState.ACKNOWLEDGED: (NoticeState.VOID,),
    NoticeState.BOUNCED: (),
    NoticeState.VOID: (),
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A mail in the outbox."""

    mail: Mail
    notice_id: str
    attempts: int
    """How often it was tried."""


class NoticeChanges(Transaction):
    """The part of `Change` about notices and mail."""

    def add_notice(self, notice: Notice, *, members: Iterable[str], token_hash: str, mail: Mail) -> None:
        """Announce a list of replicas: the notice, its list and its mail, all or none. State due until it is sent.

        Parameters
        ----------
        members: ids of the replicas that `notice.listing` was made of.
        token_hash: SHA-256 in hex of the secret in the mail's link.
        """
        self._row(schema.experiment, notice.experiment_id, "experiment")
        self._row(schema.store, notice.store_id, "store")
        self._must_be_new(schema.notice, notice.id, "notice")
        listing = bytes.fromhex(notice.listing)
        known = self._connection.execute(select(_l.replica_id).where(_l.hash == listing).limit(1)).first()
        if known is None:
            named = [(listing, replica_id) for replica_id in members]
            self._dialect.insert(self._connection, "listing", ("hash", "replica_id"), named)
        names = [column.name for column in schema.notice.columns if column.name != "token_hash"]
        values: dict[str, Any] = {name: getattr(notice, name) for name in names}
        values.update(
            recipients=to_json(notice.recipients),
            state=NoticeState.DUE.value,
            created_at=self._clock.now(),
            sent_at=None,
            acknowledged_by="",
            acknowledged_at=None,
        )
        self._insert(schema.notice, token_hash=token_hash, **values)
        detail = {
            "store": notice.store_id, "days": notice.days, "listing": notice.listing, "files": notice.files,
            "bytes": notice.size, "expires_at": notice.expires_at.isoformat(), "policy": notice.policy,
        }  # fmt: skip
        self._record("notice.due", notice.id, notice.experiment_id, detail)
        self.queue_mail(mail, notice_id=notice.id)

    def set_notice_state(self, notice_id: str, state: NoticeState, *, why: str = "") -> None:
        """Move a notice on. Conflict when the state may not follow the present one."""
        row = self._row(schema.notice, notice_id, "notice")
        now = NoticeState(row["state"])
        if state not in _AFTER[now]:
            raise Conflict(f"notice {notice_id} is {now} and cannot become {state}")
        values: dict[str, Any] = {"state": state.value}
        if state is NoticeState.SENT:
            values["sent_at"] = self._clock.now()
        if state is NoticeState.ACKNOWLEDGED:
            values.update(acknowledged_by=self._principal.id, acknowledged_at=self._clock.now())
        self._set(schema.notice, notice_id, **values)
        self._record(f"notice.{state}", notice_id, row["experiment_id"], {"from": now, "why": why})

    def notice(self, notice_id: str) -> Notice:
        """Return a notice as this transaction sees it. NotFound."""
        return notice_of(self._row(schema.notice, notice_id, "notice"))

    def lose_recipients(self, notice_id: str, addresses: Sequence[str]) -> list[str]:
        """Note that addresses did not take a notice's mail; return all that did not, in lower case."""
        mine = _o.notice_id == notice_id
        row = self._connection.execute(select(_o.error).where(mine)).first()
        known = {each.strip().lower() for each in row.error.split(",") if "@" in each} if row else set()
        lost = sorted(known | set(addresses))
        self._connection.execute(update(schema.outbox).where(mine).values(error=", ".join(lost)))
        return lost

    def forget_listings(self) -> None:
        """Drop the lists that no notice speaks of any more but void and bounced ones."""
        live = select(_n.listing).where(_n.state.in_([state.value for state in LIVE]))
        kept = {bytes.fromhex(row.listing) for row in self._connection.execute(live)}
        for row in self._connection.execute(select(_l.hash).distinct()).all():
            if bytes(row.hash) not in kept:
                self._connection.execute(delete(schema.listing).where(_l.hash == row.hash))

    # ---- the outbox (W2): a mail is written down in the transaction of what it tells, and sent afterwards

    def queue_mail(self, mail: Mail, *, notice_id: str = "") -> None:
        """Put a mail into the outbox; one of the same key is there once."""
        if self._connection.execute(select(_o.key).where(_o.key == mail.key)).first() is not None:
            return
        now = self._clock.now()
        self._insert(
            schema.outbox,
            key=mail.key,
            recipients=to_json(mail.to),
            subject=mail.subject,
            text=mail.text,
            notice_id=notice_id,
            state="waiting",
            attempts=0,
            next_at=now,
            sent_at=None,
            error="",
            created_at=now,
        )

    def begin_mail(self, key: str, *, again_at: datetime) -> bool:
        """Take a waiting mail to send it; False when somebody else has, or had, it.

        Parameters
        ----------
        again_at: when another may try, should we die with it in our hands.
        """
        now = self._clock.now()
        mine = and_(_o.key == key, _o.state.in_(["waiting", "sending"]), _o.next_at <= now)
        taken = update(schema.outbox).where(mine)
        done = self._connection.execute(taken.values(state="sending", attempts=_o.attempts + 1, next_at=again_at))
        return bool(done.rowcount)

    def end_mail(self, key: str, *, refused: Sequence[str]) -> None:
        """Write down that a mail was handed over; `refused`: addresses that the server would not take."""
        values = {"state": "sent", "sent_at": self._clock.now(), "error": ", ".join(refused), "text": ""}
        self._connection.execute(update(schema.outbox).where(_o.key == key).values(values))

    def put_mail_back(self, key: str, *, error: str, next_at: datetime) -> None:
        """Let a mail wait for its next attempt."""
        values = {"state": "waiting", "error": error[:1000], "next_at": next_at}
        self._connection.execute(update(schema.outbox).where(_o.key == key).values(values))

    def drop_mail_of(self, notice_id: str) -> None:
        """Take a notice's mail out of the outbox when it was not sent yet: it is not true any more."""
        mine = and_(_o.notice_id == notice_id, _o.state == "waiting")
        self._connection.execute(update(schema.outbox).where(mine).values(state="dropped", text=""))


class NoticeViews(ViewBase):
    """The part of `View` about notices. The outbox is the service's own."""

    def notices(
        self, *, experiment_id: str = "", store_id: str = "", live: bool = False, limit: int = 50, offset: int = 0
    ) -> Page[Notice]:
        """Notices to experiments that one sees, newest first; `live`: only those that still count."""
        found = select(*_COLUMNS).join_from(schema.notice, _e, _e.c.id == _n.experiment_id).where(self._see)
        if experiment_id:
            found = found.where(_n.experiment_id == experiment_id)
        if store_id:
            found = found.where(_n.store_id == store_id)
        if live:
            found = found.where(_n.state.in_([state.value for state in LIVE]))
        return self._page(found, (_n.created_at.desc(), _n.id.desc()), notice_of, limit, offset)

    def notice(self, id: str) -> Notice:  # noqa: A002
        """One notice. NotFound."""
        found = select(*_COLUMNS).join_from(schema.notice, _e, _e.c.id == _n.experiment_id)
        return self._one(found.where(_n.id == id, self._see), notice_of, f"notice {id!r}")

    def notice_by_token(self, token_hash: str) -> Notice:
        """Return the notice whose mail carried a secret: for who holds it. NotFound."""
        found = select(*_COLUMNS).where(_n.token_hash == token_hash, _n.token_hash != "")
        return self._one(found, notice_of, "a notice of that link")

    def live_listings(self, experiment_id: str, store_id: str) -> list[str]:
        """Return the listings of an experiment on a store that notices still speak of."""
        live = _n.state.in_([state.value for state in LIVE])
        found = select(_n.listing).where(_n.experiment_id == experiment_id, _n.store_id == store_id, live)
        with self._read() as connection:
            return sorted({row.listing for row in connection.execute(found)})

    def last_bounce(self, experiment_id: str, store_id: str) -> datetime | None:
        """Return when a notice of an experiment on a store came back last; None when none has."""
        here = (_n.experiment_id == experiment_id) & (_n.store_id == store_id)
        found = select(func.max(_n.created_at)).where(here, _n.state == NoticeState.BOUNCED.value)
        with self._read() as connection:
            return connection.execute(found).scalar()

    def listed(self, listings: Sequence[str], replica_ids: Sequence[str]) -> set[str]:
        """Return those of some replicas that are on one of some listings."""
        hashes = [bytes.fromhex(each) for each in listings]
        with self._read() as connection:
            return {
                row.replica_id
                for part in parts(replica_ids if hashes else [])
                for row in connection.execute(
                    select(_l.replica_id).where(_l.hash.in_(hashes), _l.replica_id.in_(list(part)))
                )
            }

    def still_there(self, listing: str) -> dict[str, int]:
        """Return id -> bytes of the replicas on a listing that are verified still."""
        r, f, d, n = schema.replica.c, schema.file.c, schema.dataset.c, schema.notice.c
        of = select(n.experiment_id).where(n.listing == listing)
        joined = (
            select(r.id, f.size)
            .join_from(schema.dataset, schema.file, f.dataset_number == d.number)
            .join(schema.replica, r.file_id == f.id)
            .join(schema.listing, and_(_l.replica_id == r.id, _l.hash == bytes.fromhex(listing)))
        )
        with self._read() as connection:
            found = joined.where(d.experiment_id.in_(of), r.state == ReplicaState.VERIFIED.value)
            return {row.id: row.size for row in connection.execute(found)}

    def mail_waiting(self, *, limit: int = 100) -> list[Waiting]:
        """Mails whose time to be sent has come, the oldest first."""
        found = select(schema.outbox).where(_o.state.in_(["waiting", "sending"]), _o.next_at <= self._now)
        return self._all(found.order_by(_o.next_at, _o.key).limit(limit), _waiting_of)

    def mail_by_notice(self, notice_id: str) -> tuple[str, str] | None:
        """Return (state, last error) of a notice's mail, or None."""
        with self._read() as connection:
            row = connection.execute(select(_o.state, _o.error).where(_o.notice_id == notice_id)).first()
        return None if row is None else (row.state, row.error)


_COLUMNS: Final = [column for column in schema.notice.c if column.name != "token_hash"]


def notice_of(row: RowMapping) -> Notice:
    """Return the notice of a row; its secret's hash stays behind."""
    values = {name: row[name] for name in row if name != "token_hash"}
    values["recipients"] = tuple(json.loads(row["recipients"]))
    return Notice(**{**values, "state": NoticeState(row["state"])})


def _waiting_of(row: RowMapping) -> Waiting:
    mail = Mail(row["key"], tuple(json.loads(row["recipients"])), row["subject"], row["text"])
    return Waiting(mail, row["notice_id"], row["attempts"])
