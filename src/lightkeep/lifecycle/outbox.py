"""Send what waits in the outbox: once, whatever dies meanwhile; later, when the server does not answer (W2)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import Message
from typing import TYPE_CHECKING, Final

from lightkeep.catalog.notices import Waiting
from lightkeep.mail import open_mailer
from lightkeep.model.errors import InvalidInput, MailError
from lightkeep.model.mail import Mail, Mailer
from lightkeep.model.people import SERVICE, Principal, Role, Scope, Verb
from lightkeep.model.retention import NoticeState

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_IN_HAND: Final = timedelta(minutes=15)
"""Whoever took a mail and was silent for so long has died; the next one sends it, under the same Message-ID."""
_FIRST: Final = timedelta(minutes=1)
_LONGEST: Final = timedelta(hours=6)
PREFIX: Final = "notice."
"""What the keys of notices' mails begin with."""


def send_waiting(facility: Facility, *, mailer: Mailer | None = None) -> int:
    """Send the mails whose time has come; return how many were handed over.

    Parameters
    ----------
    mailer: the configured one when None.
    """
    mailer = mailer or open_mailer(
        facility.config.mail, folder=facility.config.root / "mail", clock=facility.clock
    )
    waiting = facility.catalog.view(SERVICE).mail_waiting()
    return sum(_send(facility, each, mailer) for each in waiting)


def tell_admins(facility: Facility, key: str, *, subject: str, text: str) -> None:
    """Put a mail to the administrators into the outbox; one of the same key goes once. Nobody to tell: nothing."""
    view = facility.catalog.view(SERVICE)
    named = {
        each.person_id
        for each in view.grants()
        if each.scope is Scope.FACILITY and each.role is Role.FACILITY_ADMIN
    }
    people = [view.person(each) for each in sorted(named)]
    to = tuple(sorted({each.email for each in people if each.is_active and is_address(each.email)}))
    if to:
        with facility.catalog.change(SERVICE) as tx:
            tx.queue_mail(Mail(key, to, subject, text))


def is_address(text: str) -> bool:
    """Return whether a text looks like an address that a mail server takes."""
    name, at, domain = text.rpartition("@")
    is_plain = text.isascii() and text.isprintable() and not set(text) & set(" ,;<>'" + '"')
    return bool(name and at and domain) and is_plain


def _send(facility: Facility, waiting: Waiting, mailer: Mailer) -> bool:
    key, now = waiting.mail.key, facility.clock.now()
    with facility.catalog.change(SERVICE) as tx:
        if not tx.begin_mail(key, again_at=now + _IN_HAND):
            return False
    try:
        refused = mailer.send(waiting.mail)
    except MailError as error:
        again = min(_FIRST * 2 ** min(waiting.attempts, 20), _LONGEST)
        with facility.catalog.change(SERVICE) as tx:
            tx.put_mail_back(key, error=error.message, next_at=facility.clock.now() + again)
        return False
    with facility.catalog.change(SERVICE) as tx:
        tx.end_mail(key, refused=refused)
        if waiting.notice_id and tx.notice(waiting.notice_id).state is NoticeState.DUE:
            reached = set(waiting.mail.to) - set(refused)
            state = NoticeState.SENT if reached else NoticeState.BOUNCED
            tx.set_notice_state(waiting.notice_id, state, why=", ".join(refused))
    return True


def bounced(facility: Facility, content: bytes, *, principal: Principal) -> tuple[str, tuple[str, ...]]:
    """Take in a delivery status message (RFC 3464); return the notice that it is about and who was not reached.

    A notice that reached nobody in the end is bounced: its clock begins anew with the next one.

    Raises
    ------
    Forbidden: the principal does not manage the facility.
    InvalidInput: it is no delivery status message, or about no notice of ours.
    """
    facility.catalog.view(principal).require(Verb.MANAGE)
    message = message_from_bytes(content, policy=policy.default)
    failed = {address.lower() for address in _failed(message)}
    notice_id = next(_about(message), "")
    if not notice_id:
        raise InvalidInput(
            "this mail is about no notice of this facility", remedy="give a whole delivery status message"
        )
    facility.catalog.view(SERVICE).notice(notice_id)
    if not failed:
        return notice_id, ()
    with facility.catalog.change(principal) as tx:
        notice = tx.notice(notice_id)
        lost = tx.lose_recipients(notice_id, sorted(failed & {each.lower() for each in notice.recipients}))
        is_lost = {each.lower() for each in notice.recipients} <= set(lost)
        if is_lost and notice.state in (NoticeState.DUE, NoticeState.SENT):
            tx.set_notice_state(notice_id, NoticeState.BOUNCED, why=", ".join(lost))
    return notice_id, tuple(sorted(failed))


def _failed(message: Message) -> Iterator[str]:
    """Yield the addresses that a status message gives up."""
    for part in message.walk():
        if part.get_content_type() != "message/delivery-status":
            continue
        for block in part.walk():
            recipient = str(block.get("Final-Recipient") or block.get("Original-Recipient") or "")
            if str(block.get("Action", "")).strip().lower() == "failed" and ";" in recipient:
                yield recipient.partition(";")[2].strip().strip("<>")


def _about(message: Message) -> Iterator[str]:
    """Yield the notices whose mails a status message carries or names."""
    named = [
        str(part.get(name, "")) for part in message.walk() for name in ("Message-ID", "In-Reply-To", "References")
    ]
    returned = [
        str(part.get_payload()) for part in message.walk() if part.get_content_type() == "text/rfc822-headers"
    ]
    for text in (*named, *returned):
        for word in text.replace("<", " ").replace(">", " ").split():
            if word.startswith(PREFIX) and "@" in word:
                yield word.partition("@")[0].removeprefix(PREFIX)
