"""A facility, a source, and an ingest that is traced, counted and killed at chosen system calls."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lightkeep.catalog import Catalog, View, parse
from lightkeep.config import Config
from lightkeep.facility import create_facility
from lightkeep.model.clock import SystemClock, SystemIds
from lightkeep.model.datasets import Dataset, DatasetState
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Person
from lightkeep.model.stores import ReplicaState
from lightkeep.storage.posix import PosixStore

MUTATING = (
    "openat,write,pwrite64,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,ftruncate,"
    "fsync,fdatasync,syncfs,fallocate,flock"
)


@dataclass
class Bench:
    """One facility with one source, and the process that ingests it."""

    root: Path
    source: Path
    victim: subprocess.Popen[str]
    threads: int = 1

    def ingest(self) -> int:
        """Ingest in a process of its own; return its exit code."""
        os.kill(self._begin(), signal.SIGCONT)
        return self._end()

    def traced(self, *, trace: str = MUTATING, inject: str = "") -> tuple[int, list[str]]:
        """Ingest under strace; return the exit code (negative: the signal that killed it) and the calls traced."""
        pid = self._begin()
        log = self.root / "trace"
        options = ["-e", f"inject={inject}"] if inject else []
        command = ["strace", "-f", "-qq", "-e", f"trace={trace}", *options, "-o", str(log), "-p", str(pid)]
        with subprocess.Popen(command) as tracer:
            while f"TracerPid:\t{tracer.pid}\n" not in Path(f"/proc/{pid}/status").read_text():
                assert tracer.poll() is None, "strace may not trace here"
            os.kill(pid, signal.SIGCONT)
            code = self._end()
        return code, re.findall(r"^\d+ +(\w+)\(", self._log(), re.MULTILINE)

    def returned(self, call: str) -> list[int]:
        """Return what each of a system call's times answered, in the last run traced."""
        return [int(n) for n in re.findall(rf"^\d+ +{call}\(.*\) = (\d+)$", self._log(), re.MULTILINE)]

    def _log(self) -> str:
        return (self.root / "trace").read_text(errors="replace")

    def _begin(self) -> int:
        order = {"root": str(self.root), "source": str(self.source), "threads": self.threads}
        self.victim.stdin.write(json.dumps(order) + "\n")
        self.victim.stdin.flush()
        return int(self.victim.stdout.readline())

    def _end(self) -> int:
        return os.waitstatus_to_exitcode(int(self.victim.stdout.readline()))

    def error(self) -> str:
        """Return the error that the last ingest ended with: `code: message; remedy`."""
        return (self.root / "error").read_text()

    def counts(self) -> dict[str, int]:
        """Run once to the end; return how often each mutating call was made by the thread that made it most.

        strace counts for each thread. The main thread writes the store, another the catalogue; what both do (open
        files, and SQLite's housekeeping when it closes) is killed in the one that comes first.
        """
        code, _ = self.traced()
        assert code == 0
        made = collections.Counter(re.findall(r"^(\d+) +(\w+)\(", self._log(), re.MULTILINE))
        return {call: max(n for (_, each), n in made.items() if each == call) for _, call in made}

    def fresh(self) -> None:
        """Begin again with an empty store and catalogue."""
        shutil.rmtree(self.root)
        shutil.copytree(self.root.with_name("template"), self.root)

    def catalog(self) -> Catalog:
        """The catalogue, opened anew."""
        return Catalog.open(f"sqlite:///{self.root / 'catalog.db'}", clock=SystemClock(), ids=SystemIds())

    def wrong(self) -> list[str]:
        """Return what must never be seen, at any time: rows without their bytes, a broken trail."""
        catalog = self.catalog()
        problems = catalog.verify_events()
        view = catalog.view(SERVICE)
        store = PosixStore(view.store("central"))
        for dataset in self._datasets(view):
            files = {file.id: file for file in view.files(dataset.id).items}
            replicas = view.replicas(dataset.id)
            if {replica.file_id for replica in replicas} != set(files):
                problems.append("a file without a replica")
            for replica in replicas:
                file = files[replica.file_id]
                path = Path(store.record.location, replica.key)
                digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"
                if digest != file.sha256 or replica.state is not ReplicaState.VERIFIED:
                    problems.append(f"{file.path} is not what its row says")
            if dataset.state is DatasetState.COMPLETE:
                problems += self._missing({file.path: file.sha256 for file in files.values()})
        catalog.close()
        return problems

    def unfinished(self) -> list[str]:
        """Return what a clean run must have put right."""
        catalog = self.catalog()
        view = catalog.view(SERVICE)
        datasets = self._datasets(view)
        problems = [] if [d.state for d in datasets] == [DatasetState.COMPLETE] else [f"datasets: {datasets}"]
        store = PosixStore(view.store("central"))
        objects = sorted(each.key for each in store.list())
        rows = sorted(replica.key for dataset in datasets for replica in view.replicas(dataset.id))
        if objects != rows or len(set(rows)) != len(rows):
            problems.append(f"store and catalogue differ: {set(objects) ^ set(rows)}")
        if os.listdir(Path(store.record.location, ".incoming")):
            problems.append("parts are left")
        catalog.close()
        return problems

    def source_status(self) -> list[tuple[str, int, int, int]]:
        """Return what shows that nobody touched the source: inode, modification and change times of all in it."""
        found = [(path, path.lstat()) for path in [self.source, *sorted(self.source.rglob("*"))]]
        return [(str(path), status.st_ino, status.st_mtime_ns, status.st_ctime_ns) for path, status in found]

    def _datasets(self, view: View) -> list[Dataset]:
        return [each for query in ("", "state:receiving") for each in view.datasets(parse(query)).items]

    def _missing(self, manifest: dict[str, str]) -> list[str]:
        return [] if manifest == contents(self.source) else ["a complete dataset is not its source"]


def contents(folder: Path) -> dict[str, str]:
    """Return path -> SHA-256 of every regular file below a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """A facility in memory (a kill needs no disk); to ingest: 31 small files, a big one, a link, a pipe."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: run scripts/install-services")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        place = Path(folder)
        source = place / "scan"
        for number in range(31):
            path = source / f"part{number % 3}" / f"frame{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(100 * number))
        (source / "big.raw").write_bytes(os.urandom((9 << 20) + 17))
        (source / "link").symlink_to("/etc/hostname")
        os.mkfifo(source / "pipe")
        facility = create_facility(Config(place / "facility"), admin=Person("ada", "Ada"))
        with facility.catalog.change(SERVICE) as tx:
            tx.add_station(Station("2-BM"))
            tx.add_experiment(Experiment("e1", "2-BM"))
        facility.close()
        shutil.copytree(place / "facility", place / "template")
        command = [sys.executable, str(Path(__file__).with_name("victim.py"))]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as victim:
            yield Bench(place / "facility", source, victim)
            victim.stdin.close()
