"""A facility that a real `lightkeep serve` serves, and what kills its processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightkeep.config import WorkerConfig
from lightkeep.facility import Facility, create_facility
from lightkeep.lifecycle.people.sign_in import new_api_token
from lightkeep.model.people import Person

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "workflow"), str(TESTS / "plugin")]
from house import ADA, EXPERIMENT, config, frames, furnish, scan  # noqa: E402
from two_workers import add_user, databases, until  # noqa: E402

__all__ = ["ADA", "EXPERIMENT", "LEASE_S", "Served", "frames", "opened", "scan", "until"]
LEASE_S = 6.0


@dataclass
class Served:
    """A facility, and the server that serves it now."""

    facility: Facility
    gates: Path
    port: int
    token: str
    server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start `lightkeep serve`, and wait until it answers."""
        settings = self.facility.config
        environment = os.environ | {
            "PYTHONPATH": str(TESTS / "plugin"),
            "LIGHTKEEP_ROOT": str(settings.root),
            "LIGHTKEEP_CATALOG_URL": settings.catalog_url,
            "LIGHTKEEP_WORKFLOW_URL": settings.workflow_url,
            "LIGHTKEEP_WORKER_LEASE_S": str(LEASE_S),
            "LIGHTKEEP_ENGINE_NAME": "processes",
            "LIGHTKEEP_ENGINE_WORKERS": "1",
        }
        words = [sys.executable, "-m", "lightkeep", "serve", "--port", str(self.port)]
        self.server = subprocess.Popen(words, env=environment, cwd=settings.root)
        until(self.answers)

    def answers(self) -> bool:
        """Return whether the server is up."""
        assert self.server is not None
        assert self.server.poll() is None
        with suppress(OSError):
            return bool(self.ask("/runs"))
        return False

    def ask(self, path: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the API; with content, post it."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/v1{path}", data, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))

    def process(self, module: str) -> int:
        """Return one of the server's processes, by the module that it runs; 0: there is none."""
        assert self.server is not None
        found = [self.server.pid]
        for pid in found:  # grows as it is walked
            with suppress(OSError):
                tasks = Path(f"/proc/{pid}/task").iterdir()
                found += [int(each) for task in tasks for each in (task / "children").read_text().split()]
        for pid in found[1:]:
            with suppress(OSError):
                if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return 0

    def kill(self, what: str) -> None:
        """Kill -9 a process: the server, which is then started again, its worker, or one of the worker's own."""
        if what == "server":
            assert self.server is not None
            self.server.kill()
            self.server.wait()
            self.start()
        else:
            os.kill(self.process(what), signal.SIGKILL)

    def computed(self) -> Counter[int]:
        """Return how often each row was begun."""
        path = self.gates / "computed"
        return Counter(int(line) for line in path.read_text().split()) if path.exists() else Counter()


@contextmanager
def opened(tmp_path: Path, *, is_embedded: bool) -> Iterator[Served]:
    """Make one on SQLite or on PostgreSQL; its server is gone afterwards."""
    usual = replace(config(tmp_path / "facility", "processes"), worker=WorkerConfig(lease_s=LEASE_S))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "gates").mkdir()
    with (
        nullcontext(usual) if is_embedded else databases(usual, "served") as settings,
        create_facility(settings, admin=Person("ada", "Ada")) as facility,
    ):
        furnish(facility)
        add_user(facility)
        made = Served(facility, tmp_path / "gates", port, new_api_token(facility, "ada", label="test"))
        try:
            yield made
        finally:
            if made.server is not None:
                made.server.send_signal(signal.SIGINT)
                made.server.wait(60)
