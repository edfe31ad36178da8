"""People are told in time, through a real mail server; what did not reach them, or grew, is told anew."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from lightkeep.config import MailConfig
from lightkeep.lifecycle import outbox
from lightkeep.lifecycle.retention import holds, notices, purge, purge_plan
from lightkeep.mail import FolderMailer, SmtpMailer, message_id
from lightkeep.model.datasets import DatasetKind
from lightkeep.model.errors import Conflict, Forbidden, InvalidInput, MailError, NotFound
from lightkeep.model.mail import Mail
from lightkeep.model.people import SERVICE
from lightkeep.model.retention import NoticeState
from lightkeep.testing.retained import ADMIN, EXPERIMENT, MANAGER, MEMBER, PI, Retained


class Server:
    """A mail server on loopback that takes, refuses or puts off, as a test wants."""

    def __init__(self) -> None:
        self.taken: list[EmailMessage] = []
        self.answers: dict[str, str] = {}
        self.busy = False

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if answer := self.answers.get(address):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.busy:
            return "451 try again later"
        self.taken.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 taken"


@pytest.fixture
def server() -> Iterator[tuple[Server, MailConfig]]:
    handler = Server()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield (
        handler,
        MailConfig(host="127.0.0.1", port=port, sender="lightkeep@aps.example", base_url="https://data.example"),
    )
    controller.stop()


@pytest.fixture
def kept(new_kept, server) -> Retained:
    """Closed 55 days ago: the two months of a store under pressure end in a few days; nobody was told yet."""
    made = new_kept(expired=False)
    made.clock.at += timedelta(days=40)
    made.facility = replace(made.facility, config=replace(made.facility.config, mail=server[1]))
    return made


def told(kept: Retained) -> list[tuple[int, str]]:
    """Announce what is due and send it; return (days, state) of all notices, the oldest first."""
    notices.announce(kept.facility)
    outbox.send_waiting(kept.facility)
    return states(kept)


def states(kept: Retained) -> list[tuple[int, str]]:
    found = kept.facility.catalog.view(SERVICE).notices().items
    return [(each.days, each.state.value) for each in reversed(found)]


def test_people_are_told_thirty_seven_and_one_day_ahead_and_only_once_each(kept, server):
    assert told(kept) == [(30, "sent")]
    assert told(kept) == [(30, "sent")]
    seen = []
    for _ in range(31):
        kept.clock.at += timedelta(days=1)
        seen.append(len(told(kept)))
    assert states(kept) == [(30, "sent"), (7, "sent"), (1, "sent")]
    assert [seen.index(2) + 1, seen.index(3) + 1] == [23, 29]
    assert len(server[0].taken) == 3
    assert len({mail["Message-ID"] for mail in server[0].taken}) == 3
    why = "3 months on hot stores, counted from 2026-01-31; only 2 months"
    assert all(why in mail.get_content() for mail in server[0].taken)


def test_nothing_is_told_before_its_time(new_kept, server):
    early = new_kept(expired=False)
    early.clock.at += timedelta(days=25)
    assert notices.announce(early.facility).notices == ()


def test_the_mail_says_what_when_why_and_how_to_keep_it(kept, server):
    told(kept)
    (mail,) = server[0].taken
    text = mail.get_content()
    assert mail["To"] == "lee@example.org, manuel@example.org"
    assert mail["Subject"].startswith(f"{EXPERIMENT}: data leave store central on 2026-")
    assert mail["Auto-Submitted"] == "auto-generated"
    notice = kept.facility.catalog.view(SERVICE).notices().items[0]
    assert "3 files, 3.5 kB, on store central" in text
    assert f"{notice.expires_at:%d %B %Y}" in text
    assert text.count("three-months@1") == 1
    assert f"lightkeep experiment extend {EXPERIMENT} --days 90" in text
    assert len(re.findall(r"https://data\.example/extend/[\w-]{43}", text)) == 1
    assert "mia@example.org" not in mail.as_string()


def test_told_in_time_means_that_it_can_be_purged_on_the_day_and_not_before(kept):
    told(kept)
    for _ in range(29):
        kept.clock.at += timedelta(days=1)
        told(kept)
        kept.verified()
        kept.trust_clock()
        with pytest.raises(Conflict):
            purge_plan.plan(kept.facility, "central", principal=ADMIN)
    kept.clock.at += timedelta(days=31)  # three months after it was closed
    kept.verified()
    kept.trust_clock()
    plan = purge_plan.plan(kept.facility, "central", principal=ADMIN)
    purge_plan.approve(kept.facility, plan.id, principal=MANAGER)
    assert purge.run(kept.facility, plan.id, principal=ADMIN).items == 3


def test_what_comes_onto_the_list_later_has_days_of_its_own(kept):
    told(kept)
    kept.clock.at += timedelta(days=20)
    kept.dataset("late", {"late.h5": b"late" * 100}, kind=DatasetKind.DERIVED)
    kept.clock.at += timedelta(days=50)
    assert sorted(told(kept)) == [(7, "sent"), (30, "sent"), (30, "sent")]
    kept.clock.at += timedelta(days=2)
    told(kept)
    kept.clock.at += timedelta(days=22)
    told(kept)
    kept.verified()
    kept.trust_clock()
    plan = purge_plan.plan(kept.facility, "central", principal=ADMIN)
    named = {item.dataset_id for item in kept.facility.catalog.view(SERVICE).plan_items(plan.id)}
    assert kept.datasets["late"].id not in named


@pytest.mark.fault
def test_a_server_that_is_away_or_busy_gets_the_mail_later_and_once(kept, server, figure):
    handler, settings = server
    handler.busy = True
    assert told(kept) == [(30, "due")]
    kept.clock.at += timedelta(seconds=30)
    assert told(kept) == [(30, "due")]
    down = replace(kept.facility, config=replace(kept.facility.config, mail=replace(settings, port=1)))
    kept.clock.at += timedelta(minutes=2)
    outbox.send_waiting(down)
    handler.busy = False
    assert told(kept) == [(30, "due")]  # not so soon again
    kept.clock.at += timedelta(minutes=10)
    assert told(kept) == [(30, "sent")]
    assert len(handler.taken) == 1
    figure("F12", injected="the mail server busy, then away", found="1 mail, once; the notice counts from then")


def test_a_sender_that_died_with_a_mail_in_its_hand_is_followed_under_the_same_message_id(kept, server):
    notices.announce(kept.facility)
    (waiting,) = kept.facility.catalog.view(SERVICE).mail_waiting()
    with kept.facility.catalog.change(SERVICE) as tx:
        assert tx.begin_mail(waiting.mail.key, again_at=kept.clock.at + timedelta(minutes=15))
        assert not tx.begin_mail(waiting.mail.key, again_at=kept.clock.at + timedelta(minutes=15))
    outbox.send_waiting(kept.facility)
    assert server[0].taken == []
    kept.clock.at += timedelta(minutes=15)
    outbox.send_waiting(kept.facility)
    assert [mail["Message-ID"] for mail in server[0].taken] == [
        message_id(waiting.mail.key, "lightkeep@aps.example")
    ]


@pytest.mark.parametrize("answer", ["550 no such user", "450 mailbox full"])
def test_one_address_that_is_refused_leaves_the_other(kept, server, answer):
    server[0].answers["manuel@example.org"] = answer
    assert told(kept) == [(30, "sent")]


def test_addresses_that_are_all_refused_are_a_bounce_and_the_clock_starts_anew(kept, server):
    server[0].answers.update({f"{who}@example.org": "550 no such user" for who in ("lee", "manuel")})
    assert told(kept) == [(30, "bounced")]
    kept.clock.at += timedelta(days=1)
    assert told(kept) == [(30, "bounced")]  # not every day
    server[0].answers.clear()
    kept.clock.at += timedelta(days=6)
    assert told(kept) == [(30, "bounced"), (30, "sent")]


def status_message(kept: Retained, *addresses: str, action: str = "failed", headers_only: bool = True) -> bytes:
    """Return what a mail server sends when it gives a mail up (RFC 3464)."""
    notice = kept.facility.catalog.view(SERVICE).notices().items[0]
    name = message_id(f"notice.{notice.id}", "lightkeep@aps.example")
    blocks = "\n".join(f"Final-Recipient: rfc822; {each}\nAction: {action}\nStatus: 5.1.1\n" for each in addresses)
    returned = f"Content-Type: text/rfc822-headers\n\nFrom: lightkeep@aps.example\nMessage-ID: {name}\n"
    if not headers_only:
        returned = f"Content-Type: message/rfc822\n\nFrom: lightkeep@aps.example\nMessage-ID: {name}\n\nbody\n"
    return (
        "From: MAILER-DAEMON@mx.example\nTo: lightkeep@aps.example\nSubject: Undelivered\nMIME-Version: 1.0\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\n\n'
        "--b\nContent-Type: text/plain\n\nSorry.\n\n"
        f"--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example\n\n{blocks}\n"
        f"--b\n{returned}\n--b--\n"
    ).encode()


@pytest.mark.parametrize("headers_only", [True, False])
def test_a_mail_that_comes_back_later_from_everybody_is_a_bounce(kept, headers_only):
    told(kept)
    one = status_message(kept, "lee@example.org", headers_only=headers_only)
    assert outbox.bounced(kept.facility, one, principal=ADMIN)[1] == ("lee@example.org",)
    assert states(kept) == [(30, "sent")]
    both = status_message(kept, "Manuel@Example.org", headers_only=headers_only)
    outbox.bounced(kept.facility, both, principal=ADMIN)
    assert states(kept) == [(30, "bounced")]


def test_a_delay_or_a_strangers_address_is_no_bounce(kept):
    told(kept)
    late = status_message(kept, "lee@example.org", "manuel@example.org", action="delayed")
    assert outbox.bounced(kept.facility, late, principal=ADMIN)[1] == ()
    outbox.bounced(kept.facility, status_message(kept, "x@evil.example"), principal=ADMIN)
    assert states(kept) == [(30, "sent")]
    for junk in (b"", b"hello", b"\xff" * 100, b"Message-ID: <notice.notice_nope@x>\n\n"):
        with pytest.raises((InvalidInput, NotFound)):
            outbox.bounced(kept.facility, junk, principal=ADMIN)
    with pytest.raises(Forbidden):
        outbox.bounced(kept.facility, status_message(kept, "lee@example.org"), principal=PI)


def test_nobody_with_an_address_means_nobody_told_and_nothing_goes(kept):
    from sqlalchemy import update

    from lightkeep.catalog import schema

    with kept.facility.catalog.writer.begin() as connection:
        connection.execute(update(schema.person).values(email="not an address"))
    found = notices.announce(kept.facility)
    assert (found.notices, found.unreachable) == ((), (EXPERIMENT,))


def test_an_extension_takes_the_announcement_back_and_people_are_told_before_it_ends(kept, server):
    told(kept)
    token = re.search(r"/extend/(\S+)", server[0].taken[0].get_content())[1]
    hold = notices.extend_by_token(kept.facility, token)
    assert hold.created_by.startswith("link:")
    assert notices.extend_by_token(kept.facility, token).id == hold.id
    assert states(kept) == [(30, "void")]
    kept.clock.at = hold.until - timedelta(days=31)
    assert told(kept) == [(30, "void")]
    kept.clock.at = hold.until - timedelta(days=30)
    assert told(kept) == [(30, "void"), (30, "sent")]
    newest = kept.facility.catalog.view(SERVICE).notices().items[0]
    assert newest.expires_at == hold.until
    with pytest.raises(NotFound):
        notices.extend_by_token(kept.facility, token + "x")


def test_a_link_of_a_notice_that_is_void_extends_nothing(kept, server):
    told(kept)
    token = re.search(r"/extend/(\S+)", server[0].taken[0].get_content())[1]
    made = holds.extend(kept.facility, EXPERIMENT, until=kept.clock.at + timedelta(days=1), principal=PI)
    holds.release(kept.facility, made.id, principal=PI)
    with pytest.raises(Conflict, match="void"):
        notices.extend_by_token(kept.facility, token)


def test_an_answer_is_for_those_who_may_write(kept):
    told(kept)
    notice = kept.facility.catalog.view(SERVICE).notices().items[0]
    with pytest.raises(Forbidden):
        notices.acknowledge(kept.facility, notice.id, principal=MEMBER)
    done = notices.acknowledge(kept.facility, notice.id, principal=PI)
    assert (done.state, done.acknowledged_by) == (NoticeState.ACKNOWLEDGED, PI.id)


def test_without_a_server_mails_are_files_and_the_same_mail_is_one_file(tmp_path, kept):
    mailer = FolderMailer(MailConfig(), tmp_path / "mail", clock=kept.clock)
    mail = Mail("notice.n_1", ("lee@example.org",), "Two\nlines", "Text with ü and €")
    assert mailer.send(mail) == mailer.send(mail) == ()
    (file,) = (tmp_path / "mail").iterdir()
    read = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert read["Subject"] == "Two lines"
    assert read.get_content().strip() == "Text with ü and €"
    assert file.stat().st_mode & 0o077 == 0
    (tmp_path / "taken").write_text("")
    with pytest.raises(MailError):
        FolderMailer(MailConfig(), tmp_path / "taken", clock=kept.clock).send(mail)


def test_a_server_that_offers_no_encryption_gets_no_mail_when_it_is_demanded(kept, server):
    strict = SmtpMailer(replace(server[1], starttls=True), clock=kept.clock)
    with pytest.raises(MailError):
        strict.send(Mail("k", ("lee@example.org",), "s", "t"))
    assert server[0].taken == []
