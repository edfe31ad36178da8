"""Mail: by SMTP, or as files in a folder where no server is configured.

Both obey `lightkeep.model.mail.Mailer`. Called from the outbox only.
"""

from __future__ import annotations

import hashlib
import os
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lightkeep.model.clock import Clock
from lightkeep.model.errors import MailError
from lightkeep.model.mail import Mail, Mailer

if TYPE_CHECKING:
    from lightkeep.config import MailConfig

_TIMEOUT_S: Final = 30.0
_FINAL: Final = range(500, 600)
"""Answers of a server that will not change: RFC 5321, 4.2.1."""


def open_mailer(settings: MailConfig, *, folder: Path, clock: Clock) -> Mailer:
    """Return what sends mail under these settings.

    Parameters
    ----------
    folder: where mails go as files when no server is configured.
    """
    return SmtpMailer(settings, clock=clock) if settings.host else FolderMailer(settings, folder, clock=clock)


class SmtpMailer:
    """Hands mails to an SMTP server."""

    def __init__(self, settings: MailConfig, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    def send(self, mail: Mail) -> tuple[str, ...]:
        """See the protocol."""
        message = _message(mail, self._settings.sender, self._clock)
        try:
            with smtplib.SMTP(self._settings.host, self._settings.port, timeout=_TIMEOUT_S) as server:
                if self._settings.starttls:
                    server.starttls(context=ssl.create_default_context())
                refused = server.send_message(message, self._settings.sender, list(mail.to))
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
            if not all(code in _FINAL for code, _ in refused.values()):
                raise MailError(f"the mail server takes no mail for {_first(refused)} now") from error
        except (smtplib.SMTPException, OSError) as error:
            raise MailError(f"the mail server {self._settings.host} did not take the mail: {error}") from error
        return tuple(sorted(address for address, (code, _) in refused.items() if code in _FINAL))


class FolderMailer:
    """Writes each mail as one `.eml` file; the same mail again replaces it."""

    def __init__(self, settings: MailConfig, folder: Path, *, clock: Clock) -> None:
        self._settings = settings
        self._folder = folder
        self._clock = clock

    def send(self, mail: Mail) -> tuple[str, ...]:
        """See the protocol; refuses nobody."""
        name = hashlib.sha256(mail.key.encode()).hexdigest()[:32]
        part, final = self._folder / f".{name}.part", self._folder / f"{name}.eml"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(_message(mail, self._settings.sender, self._clock).as_bytes())
                file.flush()
                os.fsync(file.fileno())
            part.replace(final)
        except OSError as error:
            raise MailError(f"cannot write a mail into {self._folder}: {error.strerror}") from error
        return ()


def message_id(key: str, sender: str) -> str:
    """Return the Message-ID of a mail: the same for the same key, so that no reader shows it twice.

    >>> message_id("notice.n_1", "lightkeep@aps.example")
    '<notice.n_1@aps.example>'
    """
    return f"<{key}@{sender.rpartition('@')[2] or 'localhost'}>"


def _message(mail: Mail, sender: str, clock: Clock) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = " ".join(mail.subject.split())
    message["From"] = sender
    message["To"] = ", ".join(mail.to)
    message["Date"] = format_datetime(clock.now())
    message["Message-ID"] = message_id(mail.key, sender)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday replies
    message.set_content(mail.text)
    return message


def _first(refused: dict[str, tuple[int, bytes]]) -> str:
    return next(iter(refused), "anybody")
