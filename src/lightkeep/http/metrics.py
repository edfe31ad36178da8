"""What a monitoring system reads: the facility's gauges, and what the server itself is doing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lightkeep import telemetry
from lightkeep.http.desk import AtDesk, Who
from lightkeep.lifecycle.health import metrics
from lightkeep.lifecycle.health.metrics import Gauge

router = APIRouter(tags=["metrics"])

_LOG = logging.getLogger(__name__)
SERVER = CollectorRegistry()
ProcessCollector(registry=SERVER)
PlatformCollector(registry=SERVER)
_REQUESTS = Counter(
    "lightkeep_http_requests", "Requests answered.", ("method", "route", "status"), registry=SERVER
)
_SECONDS = Histogram(
    "lightkeep_http_request_seconds",
    "Seconds from a request to the begin of its answer.",
    ("route",),
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
    registry=SERVER,
)


@router.get("/metrics", response_class=Response)
def read(desk: AtDesk, who: Who) -> Response:
    """Prometheus's text format; counts of data and runs are of what the person may see."""
    gauges = metrics.measure(desk.facility, principal=who)
    facility = CollectorRegistry()
    facility.register(_Measured(gauges))
    return Response(generate_latest(facility) + generate_latest(SERVER), media_type=CONTENT_TYPE_LATEST)


class Meter:
    """ASGI middleware: counts and times every request, logs it, and makes it a span of its caller's trace."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, answered = time.perf_counter(), [500, 0.0]

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered[:] = [message["status"], time.perf_counter() - begin]
            await send(message)

        try:
            with telemetry.span(f"{scope['method']} request", carrier=Headers(scope=scope), path=scope["path"]):
                await self._app(scope, receive, noted)
        finally:
            _note(scope, int(answered[0]), answered[1] or time.perf_counter() - begin)


def _note(scope: Scope, status: int, seconds: float) -> None:
    route = _template(scope)
    _REQUESTS.labels(scope["method"] if scope["method"] in _METHODS else "other", route, str(status)).inc()
    _SECONDS.labels(route).observe(seconds)
    level = logging.ERROR if status >= 500 else logging.DEBUG if route.startswith("/static") else logging.INFO
    about = {"method": scope["method"], "path": scope["path"], "status": status, "seconds": round(seconds, 4)}
    _LOG.log(level, "request", extra={"about": about})


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _template(scope: Scope) -> str:
    """Return the route's own text, never the address: that would be a label for each dataset there is."""
    route = getattr(scope.get("route"), "path", None)
    if route is None:
        return "/static" if scope["path"].startswith("/static/") else "other"
    return f"{scope.get('root_path', '')}{route}"


class _Measured(Collector):
    def __init__(self, gauges: Sequence[Gauge]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for each in self._gauges:
            family = GaugeMetricFamily(each.name, each.help, labels=each.labels)
            for labels, value in each.values.items():
                family.add_metric(labels, value)
            yield family

    def describe(self) -> Iterable[Metric]:
        return ()
