"""Mail: what is sent, and who sends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Mail:
    """One message to one or more people."""

    key: str
    """Idempotency key: a mail of the same key is sent once, and its Message-ID is made from it."""
    to: tuple[str, ...]
    subject: str
    text: str
    """Plain text."""


class Mailer(Protocol):
    """Sends mail. Called from the outbox only, so that a crash neither loses nor doubles a message."""

    def send(self, mail: Mail) -> tuple[str, ...]:
        """Send; return the addresses that were refused for good. MUST raise MailError when it may work later."""
        ...
