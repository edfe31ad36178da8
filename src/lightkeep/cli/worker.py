"""`worker`: one more process that works through the queue."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress

import click

from lightkeep import telemetry
from lightkeep.cli.app import Command
from lightkeep.cli.output import say
from lightkeep.cli.session import Session

_LOOK_S = 1.0


@click.command(
    cls=Command,
    short_help="Work through queued runs and ingests.",
    examples=("lightkeep worker", "LIGHTKEEP_WORKER_RUNS=4 lightkeep worker      four runs at once"),
)
@click.pass_obj
def worker(session: Session) -> None:
    """Work through queued runs and ingests, beside a server or without one, until interrupted.

    With `workflow_url` in PostgreSQL any number of workers share the queue, on any number of hosts that see the
    same stores. With SQLite one works at a time and the others wait for its end.
    """
    from lightkeep.workflow import open_workflow
    from lightkeep.workflow.worker import attend

    begin = session.load().telemetry
    telemetry.start("worker", level=begin.log_level, style=begin.log_format, traces=begin.traces)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with session.opened() as work, open_workflow(work.facility, always=True) as orchestrator:
        say("Working; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            attend(work.facility, orchestrator, is_over=_pause)


def _pause() -> bool:
    time.sleep(_LOOK_S)
    return False
