"""Requests that end a bluesky scan early: an acquisition sends them, a RunEngine obeys them.

    from lightkeep.acquisition.stop_requests import StopRequests
    requests = StopRequests("2bm:Scan:StopRequest")
    RE.preprocessors.append(requests.obeyed)              # every plan, or one scan of a plan:
    RE(requests.obeyed(bp.scan([camera], angle, 0, 180, 1500)))

    acquisition: its technique has seen enough ── put ──> channel ──> the plan's next checkpoint:
    the plan cleans up, the run is closed as a success, its stop document says why

A request is obeyed by the scan that it is about, or not at all: one that came before the run was opened is
forgotten, and one that rests on more frames than the run has taken is about an earlier scan.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lightkeep.model.errors import ConfigError

if TYPE_CHECKING:
    from bluesky.utils import Msg


class StopRequests:
    """Serves the channel, in the process of the RunEngine. Use as a context manager, or `close` it.

    Parameters
    ----------
    channel: PVAccess name; an acquisition has it as its option `request`.
    frames_per_point: that the detector takes at each point of a scan.
    is_isolated: on ports of its own, loopback only; `epics` says how to get there.

    Raises
    ------
    ConfigError: p4p is not installed.
    """

    def __init__(self, channel: str, *, frames_per_point: int = 1, is_isolated: bool = False) -> None:
        try:
            from p4p.nt import NTScalar
            from p4p.server import Server
            from p4p.server.thread import SharedPV
        except ModuleNotFoundError as error:
            raise ConfigError(
                "requests to stop come by PVAccess, and p4p is not installed",
                remedy="pip install 'lightkeep[epics]'",
            ) from error
        self.channel = channel
        self.newest: dict[str, Any] = {}
        """The request that the next checkpoint looks at; empty: none."""
        self._frames_per_point = frames_per_point
        self._channel = SharedPV(nt=NTScalar("s"), initial="")
        self._channel.put(self._put)
        self._server: Any = Server(providers=[{channel: self._channel}], isolate=is_isolated)
        self.epics: dict[str, str] = dict(self._server.conf())
        """What a client's environment, or an acquisition's option `epics`, has to be."""

    def _put(self, channel: Any, operation: Any) -> None:
        text = str(operation.value().raw.value)
        try:
            found = json.loads(text)
            found = {**found, "reason": str(found["reason"]), "used": int(found.get("used", 0))}
        except (ValueError, KeyError, TypeError) as error:
            operation.done(error=f"not a request to stop: {error!r}")
            return
        self.newest = found
        channel.post(text)
        operation.done()

    def obeyed(self, plan: Iterable[Msg]) -> Generator[Msg, Any, Any]:
        """Run a plan; end it at the checkpoint that follows a request.

        What the plan does to clean up is done, and its value is lost. A plan around this one goes on.
        """
        from bluesky.preprocessors import plan_mutator
        from bluesky.utils import RequestStop

        stops: list[RequestStop] = []
        points = 0

        def ended() -> Generator[Msg]:
            stops.append(RequestStop(_sentence(self.newest)))
            raise stops[0]
            yield  # a generator: what it raises is thrown into the plan, which cleans up

        def told(close: Msg) -> Generator[Msg]:
            yield close._replace(kwargs={**close.kwargs, "reason": str(stops[0])})

        def looked_at(message: Msg) -> tuple[Generator[Msg] | None, None]:
            nonlocal points
            if message.command == "open_run":
                self.newest, points = {}, 0
            elif message.command == "save":
                points += 1
            elif message.command == "checkpoint" and not stops and self._is_meant(points):
                return ended(), None
            elif message.command == "close_run" and stops and not message.kwargs.get("reason"):
                return told(message), None
            return None, None

        try:
            return (yield from plan_mutator(plan, looked_at))  # type: ignore[no-untyped-call]
        except RequestStop as error:
            if error not in stops:
                raise
            return None

    def _is_meant(self, points: int) -> bool:
        """True when a request is there that rests on frames of this run alone."""
        return bool(self.newest) and 0 < self.newest["used"] <= points * self._frames_per_point

    def close(self) -> None:
        """Take the channel away."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sentence(request: dict[str, Any]) -> str:
    of = f" of {request['planned']}" if request.get("planned") else ""
    return f"Lightkeep: enough after {request['used']}{of} projections: {request['reason']}"
