"""Server-sent events: what changes, as it changes, to whoever may see it.

Every look at the catalogue is made on behalf of the person again: who may no longer see a thing, or has signed
out, hears no more of it (S1, S3). A client that comes back with `Last-Event-ID` goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import anyio
from fastapi.responses import StreamingResponse
from starlette.requests import Request

from lightkeep.model.errors import LightkeepError

_PERIOD_S = 0.3
_KEEP_ALIVE_S = 15.0


@dataclass(frozen=True)
class Message:
    """One event of a stream."""

    id: str
    """What `Last-Event-ID` says when the client comes back."""
    event: str
    data: Any
    """JSON-safe."""

    def encode(self) -> bytes:
        """Return the message as it travels."""
        data = json.dumps(self.data, separators=(",", ":"))
        return f"id: {self.id}\nevent: {self.event}\ndata: {data}\n\n".encode()


Look = Callable[[str], tuple[list[Message], bool]]
"""Given the last id sent, returns the messages after it, and whether there can be more."""


def stream(request: Request, look: Look) -> StreamingResponse:
    """Return the answer that sends what `look` finds until it says that there will be no more."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_messages(request, look), media_type="text/event-stream", headers=headers)


async def _messages(request: Request, look: Look) -> AsyncIterator[bytes]:
    last = request.headers.get("last-event-id", "")[:100]
    sent_at = time.monotonic()
    yield b"retry: 2000\n\n"
    while not await request.is_disconnected():
        try:
            found, goes_on = await anyio.to_thread.run_sync(look, last)
        except LightkeepError:
            yield Message(last, "gone", {}).encode()
            return
        for message in found:
            last = message.id
            yield message.encode()
        if not goes_on:
            return
        if found:
            sent_at = time.monotonic()
        elif time.monotonic() - sent_at > _KEEP_ALIVE_S:
            sent_at = time.monotonic()
            yield b": still here\n\n"
        await anyio.sleep(_PERIOD_S)
