"""Log lines and traces, read where they arrive."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from lightkeep import telemetry
from lightkeep.model.errors import ConfigError


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    ours = logging.getLogger("lightkeep")
    before = (list(ours.handlers), ours.level, ours.propagate)
    yield
    ours.handlers[:], ours.level, ours.propagate = before


def test_a_line_of_json_has_its_fields() -> None:
    lines = io.StringIO()
    telemetry.start("worker", level="info", style="json", stream=lines)
    logging.getLogger("lightkeep.workflow.worker").info("upkeep", extra={"about": {"scrub": 3}})
    logging.getLogger("lightkeep.workflow.worker").debug("not wanted")
    (line,) = lines.getvalue().splitlines()
    read = json.loads(line)
    assert (read["level"], read["service"], read["message"], read["scrub"]) == ("info", "worker", "upkeep", 3)
    assert read["from"] == "lightkeep.workflow.worker"
    assert read["at"].endswith("+00:00")


def test_a_newline_in_a_message_does_not_begin_a_line_of_json() -> None:
    lines = io.StringIO()
    telemetry.start("server", style="json", stream=lines)
    logging.getLogger("lightkeep.http").warning('a\n{"level": "error"}')
    assert len(lines.getvalue().splitlines()) == 1


def test_a_line_of_text_is_for_people() -> None:
    lines = io.StringIO()
    telemetry.start("server", stream=lines)
    logging.getLogger("lightkeep.http").info("request", extra={"about": {"status": 200}})
    assert lines.getvalue().endswith(" info    server  request  status=200\n")


@pytest.mark.parametrize(("key", "value"), [("level", "loud"), ("style", "xml")])
def test_an_unknown_word_is_refused_with_those_that_there_are(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"`{value}`") as caught:
        telemetry.start("server", **{key: value})
    assert "choose one of" in caught.value.remedy


_TRACED = """
import logging, sys
from lightkeep import telemetry
telemetry.start("worker", style="json", traces=sys.argv[1])
try:
    with telemetry.span("run", carrier={"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}, run="run_1"):
        with telemetry.span("reconstruct", rows=8):
            logging.getLogger("lightkeep.x").warning("half-way")
        raise ValueError("the disk is gone")
except ValueError:
    pass
telemetry.flush()
"""


def test_spans_arrive_at_a_collector_as_one_trace_and_log_lines_name_it() -> None:
    with _collector() as (address, taken):
        done = subprocess.run([sys.executable, "-c", _TRACED, address], capture_output=True, text=True, check=True)
    spans = {span.name: span for request in taken for span in _spans(request)}
    run, inner = spans["run"], spans["reconstruct"]
    assert run.trace_id == inner.trace_id == b"\xab" * 16
    assert run.parent_span_id == b"\xcd" * 8
    assert inner.parent_span_id == run.span_id
    assert {each.key: each.value.string_value for each in run.attributes}["run"] == "run_1"
    assert run.status.code == Status.STATUS_CODE_ERROR
    assert "the disk is gone" in run.status.message
    line = json.loads(done.stderr.splitlines()[0])
    assert line["trace_id"] == "ab" * 16


def test_without_a_collector_nothing_is_imported_for_spans() -> None:
    code = (
        "import sys; from lightkeep import telemetry\n"
        "telemetry.start('server')\n"
        "with telemetry.span('x', a=1): pass\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        assert [a.value.string_value for a in resource.resource.attributes if a.key == "service.name"] == [
            "lightkeep-worker"
        ]
        for scope in resource.scope_spans:
            yield from scope.spans


@contextmanager
def _collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    taken: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            taken.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not to the test's output."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from house import ADA, EXPERIMENT, build, config, scan
from lightkeep import telemetry
from lightkeep.facility import open_facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import request
from lightkeep.workflow import open_workflow
telemetry.start("worker", traces=sys.argv[1])
root = Path(sys.argv[3])
if sys.argv[4] == "ask":
    facility = build(root / "facility")
    headers = {"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}
    with facility, telemetry.span("request", carrier=headers), open_workflow(facility, work=False) as work:
        data = ingest(facility, scan(root / "a.h5"), experiment_id=EXPERIMENT, principal=ADA, quiet_s=0).dataset
        print(work.submit_run(request(facility, data.id, "gated", {"piece": 2}, principal=ADA).id))
else:
    with open_facility(config(root / "facility")) as facility, open_workflow(facility) as work:
        work.wait(sys.argv[4], timeout_s=60)
telemetry.flush()
"""


def test_a_run_that_another_process_does_continues_the_trace_of_the_request(tmp_path: Path) -> None:
    plugin = str(Path(__file__).parent / "plugin")
    with _collector() as (address, taken):
        words = [sys.executable, "-c", _RUN, address, plugin, str(tmp_path)]
        asked = subprocess.run([*words, "ask"], capture_output=True, text=True, check=True)
        subprocess.run([*words, asked.stdout.strip()], capture_output=True, text=True, check=True)
    spans = {span.name: span for request in taken for span in _spans(request)}
    assert {span.trace_id for span in spans.values() if span.name != "workflow"} == {b"\xab" * 16}
    above = {
        name: next((n for n, s in spans.items() if s.span_id == span.parent_span_id), "")
        for name, span in spans.items()
    }
    assert above == {
        "request": "",
        "run": "request",
        "plan": "run",
        "compute": "run",
        "piece-00000": "compute",
        "piece-00001": "compute",
        "store result": "run",
        "ingest group": "store result",
    }
    piece = spans["piece-00001"]
    assert 0 < piece.end_time_unix_nano - piece.start_time_unix_nano < 60e9
