"""What a process says of itself: log lines, and spans of a trace.

    telemetry.start("worker", config.telemetry...)     # once, where a process begins
    with telemetry.span("run", run=run.id): ...

Without a trace collector a span costs a microsecond and leaves nothing. Any module logs by
`logging.getLogger(__name__)`; what belongs to a line goes into `extra={"about": {...}}` and becomes fields.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, ParamSpec, TextIO, TypeVar

from lightkeep.model.errors import ConfigError

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")

_OURS: Final = "lightkeep"
_P = ParamSpec("_P")
_T = TypeVar("_T")


def start(
    service: str, *, level: str = "info", style: str = "text", traces: str = "", stream: TextIO | None = None
) -> None:
    """Let this process's log lines and spans go where the facility wants them. A second call replaces the first.

    Parameters
    ----------
    service: what the process is, e.g. `server` or `worker`; it names each line and each span.
    level: one of `LEVELS`; lines below it are dropped.
    style: one of `FORMATS`; `json` writes one object a line.
    traces: address of an OpenTelemetry collector that takes OTLP over HTTP, e.g. `http://localhost:4318`; empty:
        no traces.
    stream: where lines go; stderr when it is None.

    Raises
    ------
    ConfigError: a word that is none of these, or traces are wanted and the extra `traces` is not installed.
    """
    for key, value, known in (("log_level", level, LEVELS), ("log_format", style, FORMATS)):
        if value not in known:
            raise ConfigError(f"telemetry.{key} is `{value}`", remedy=f"choose one of {', '.join(known)}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json(service) if style == "json" else _Text(service))
    ours = logging.getLogger(_OURS)
    ours.handlers[:] = [handler]
    ours.setLevel(level.upper())
    ours.propagate = False
    if traces:
        _send_traces(service, traces)


@contextmanager
def span(name: str, *, carrier: Mapping[str, str] | None = None, **about: Any) -> Iterator[None]:
    """Time a part of the work as one span of a trace; an exception that passes through marks it as failed.

    Parameters
    ----------
    carrier: headers with the W3C `traceparent` of who asked for this, if there are any.
    about: the span's attributes: text, numbers and truth values.
    """
    tracer = _traced.get("tracer")
    if tracer is None:
        yield
        return
    from opentelemetry.propagate import extract

    context = extract(dict(carrier)) if carrier else None
    with tracer.start_as_current_span(name, context=context, attributes=about):
        yield


def past(name: str, began: float, ended: float, **about: Any) -> None:
    """Add a span for something that happened elsewhere; times in seconds since 1970."""
    if tracer := _traced.get("tracer"):
        made = tracer.start_span(name, attributes=about, start_time=int(began * 1e9))
        made.end(end_time=int(ended * 1e9))


def carrier() -> dict[str, str]:
    """Return the headers by which work that is done later, or elsewhere, joins the present trace."""
    found: dict[str, str] = {}
    if _traced:
        from opentelemetry.propagate import inject

        inject(found)
    return found


def joined(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return the function as another thread is to call it, once: its spans join the present trace."""
    return partial(copy_context().run, function)


def flush() -> None:
    """Send the spans that are waiting: what a process calls last."""
    if provider := _traced.get("provider"):
        provider.shutdown()


_traced: dict[str, Any] = {}


def _send_traces(service: str, address: str) -> None:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            f"traces need the module {error.name}, which is not installed",
            remedy="install lightkeep[traces], or leave telemetry.traces empty",
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": f"lightkeep-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{address.rstrip('/')}/v1/traces")))
    _traced.update(provider=provider, tracer=provider.get_tracer(_OURS))


def _trace_id() -> str:
    if not _traced:
        return ""
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


class _Json(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "process": record.process,
            "from": record.name,
            "message": record.getMessage(),
            **getattr(record, "about", {}),
        }
        if trace_id := _trace_id():
            line["trace_id"] = trace_id
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _Text(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        about = "".join(f"  {name}={value}" for name, value in getattr(record, "about", {}).items())
        text = f"{at} {record.levelname.lower():<7} {self._service}  {record.getMessage()}{about}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text
