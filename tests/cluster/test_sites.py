"""A cluster at another facility: a real sshd and a real Slurm in a network namespace of their own.

    this namespace  10.231.n.1 ── veth ── 10.231.n.2  sshd, slurmctld, two slurmd, munged

The link is cut by taking this end of it down. Inside, only loopback and that link exist. Entered by nsenter: with
`ip netns exec`, slurmd misses its cgroups.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lightkeep.engines.sites.parts import JobIs
from lightkeep.engines.sites.ssh import SshSite
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import process, request
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.engines import Engine, Task
from lightkeep.model.errors import BadFile, ConfigError, RunCancelled, RunFailed
from lightkeep.model.people import SERVICE
from lightkeep.testing.suites.engine import HERE, EngineSuite
from lightkeep.testing.suites.site import (
    ROW,
    begin_again,
    is_doubled,
    numbers_of,
    rows_to_double,
    small_scan,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from house import ADA, EXPERIMENT, build

pytestmark = pytest.mark.cluster
WITH_SLURM = Path(__file__).parents[2] / "scripts" / "with-slurm"


def sh(*command: object) -> str:
    """Run a command that must succeed; return what it printed."""
    return subprocess.run([str(each) for each in command], check=True, capture_output=True, text=True).stdout


@dataclass
class Far:
    """The other facility."""

    folder: Path
    namespace: str
    link: str
    address: str

    def cut(self) -> None:
        sh("ip", "link", "set", self.link, "down")

    def heal(self) -> None:
        sh("ip", "link", "set", self.link, "up")

    @property
    def staging(self) -> Path:
        return self.folder / "staging"

    def options(self, **more: Any) -> dict[str, Any]:
        return {
            "host": f"root@{self.address}",
            "port": 2222,
            "key": str(self.folder / "id"),
            "known_hosts": str(self.folder / "known_hosts"),
            "sockets": str(self.folder / "s"),
            "staging": str(self.staging),
            "python": sys.executable,
            "processes": 1,
            "cpus": 1,
            "poll_s": 0.2,
            **more,
        }

    def slurm(self, *command: str) -> str:
        """Run one of Slurm's commands at the site itself."""
        environment = {**os.environ, "SLURM_CONF": (self.folder / "conf").read_text().strip()}
        inside = ["nsenter", f"--net=/run/netns/{self.namespace}", *command]
        return subprocess.run(inside, check=True, capture_output=True, text=True, env=environment).stdout


@pytest.fixture(scope="module")
def far() -> Iterator[Far]:
    number = os.getpid() % 250
    name, link = f"lk{os.getpid()}", f"lkv{os.getpid()}"
    folder = Path(f"/tmp/lks{os.getpid()}")
    folder.mkdir(mode=0o700)
    made = Far(folder, name, link, f"10.231.{number}.2")
    sh("ip", "netns", "add", name)
    sh("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
    sh("ip", "addr", "add", f"10.231.{number}.1/30", "dev", link)
    sh("ip", "link", "set", link, "up")
    for command in (f"addr add {made.address}/30 dev eth0", "link set eth0 up", "link set lo up"):
        sh("ip", "-n", name, *command.split())
    server = start(made)
    try:
        yield made
    finally:
        with_pid = folder / "sshd.pid"
        if with_pid.exists():
            os.kill(int(with_pid.read_text()), 15)
        server.wait(timeout=60)
        sh("ip", "netns", "del", name)
        shutil.rmtree(folder, ignore_errors=True)


def start(far: Far) -> subprocess.Popen[bytes]:
    """Start Slurm and sshd in the namespace; return once sshd answers."""
    for name in ("id", "host"):
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", far.folder / name)
    shutil.copy(far.folder / "id.pub", far.folder / "authorized")
    host_key = (far.folder / "host.pub").read_text()
    (far.folder / "known_hosts").write_text(f"[{far.address}]:2222 {host_key}")
    Path("/run/sshd").mkdir(exist_ok=True)
    lines = [
        f"ListenAddress {far.address}",
        "Port 2222",
        f"HostKey {far.folder}/host",
        f"AuthorizedKeysFile {far.folder}/authorized",
        f"PidFile {far.folder}/sshd.pid",
        "PasswordAuthentication no",
        "UsePAM no",
        "StrictModes no",
    ]
    (far.folder / "sshd_config").write_text("\n".join(lines) + "\n")
    begin = (
        f'echo "$SLURM_CONF" > {far.folder}/conf; '
        f'exec /usr/sbin/sshd -D -f {far.folder}/sshd_config -o "SetEnv=SLURM_CONF=$SLURM_CONF"'
    )
    command = ["nsenter", f"--net=/run/netns/{far.namespace}", str(WITH_SLURM), "sh", "-c", begin]
    with (far.folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    until((far.folder / "sshd.pid").exists)
    return server


def until(claim: Callable[[], Any], *, timeout_s: float = 60.0) -> Any:
    """Wait until a claim holds; return its value."""
    deadline = time.monotonic() + timeout_s
    while not (found := claim()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


@pytest.fixture
def site(far: Far) -> SshSite:
    shutil.rmtree(far.staging, ignore_errors=True)
    return SshSite(**far.options())


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    return rows_to_double(tmp_path)


class TestSsh(EngineSuite):
    """What every engine must do, over the link."""

    @pytest.fixture(autouse=True)
    def reach(self, far: Far) -> None:
        self.far = far

    def make(self) -> Engine:
        return SshSite(**self.far.options(processes=2))

    def test_a_cancel_between_tasks_stops_the_rest(self, tmp_path: Path) -> None:
        """Results of a site arrive together: what stops is the handing out of them."""
        cancel, seen = threading.Event(), []
        with pytest.raises(RunCancelled):
            self.make().map(
                [Task(f"{HERE}:square", {"value": n}) for n in range(9)],
                done=lambda n, _result: (seen.append(n), cancel.set()),
                cancel=cancel,
            )
        assert seen == [0]


def jobs(far: Far, name: str) -> list[str]:
    """Return the state of every job of a name, as Slurm at the site tells it."""
    return far.slurm("squeue", "-h", "-t", "all", "-o", "%T", "-n", name).split()


def test_a_run_there_is_right_and_is_one_job(far: Far, site: SshSite, tasks: list[Task], tmp_path: Path) -> None:
    begun = time.monotonic()
    assert site.map(tasks, key="run_1", folder=tmp_path / "map") == [task.reads[0] for task in tasks]
    assert is_doubled(tasks)
    assert jobs(far, "lightkeep-run_1-1") == ["COMPLETED"]
    told = site.spent(tmp_path / "map")
    assert told["moved_bytes"] > 3 * ROW
    assert 0 < told["transfer_s"] + told["compute_s"] <= time.monotonic() - begun
    assert list((far.staging / "runs").iterdir()) == []


def test_nothing_travels_twice(site: SshSite, tasks: list[Task], tmp_path: Path) -> None:
    site.map(tasks, key="run_a", folder=tmp_path / "a")
    begin_again(Path(tasks[0].works_in))
    site.map(tasks, key="run_b", folder=tmp_path / "b")
    first, second = (site.spent(tmp_path / name)["moved_bytes"] for name in "ab")
    assert first - second > 2 * ROW - 20_000
    assert is_doubled(tasks)


def test_a_cut_link_is_waited_out_and_the_job_is_one(far: Far, tasks: list[Task], tmp_path: Path) -> None:
    site = SshSite(**far.options(setup=["sleep 6"]))
    name = "lightkeep-run_cut-1"

    thread = threading.Thread(target=cut_for, args=(far, name, 20))
    thread.start()
    try:
        site.map(tasks, key="run_cut", folder=tmp_path / "map")
    finally:
        thread.join()
    assert is_doubled(tasks)
    assert jobs(far, name) == ["COMPLETED"]


def test_a_link_cut_while_files_travel_costs_only_time(far: Far, site: SshSite, tmp_path: Path) -> None:
    tasks = rows_to_double(tmp_path, count=8)

    def trouble() -> None:
        until(lambda: (far.staging / "objects").is_dir() and any((far.staging / "objects").iterdir()))
        far.cut()
        time.sleep(3)
        far.heal()

    thread = threading.Thread(target=trouble)
    thread.start()
    try:
        site.map(tasks, key="run_there", folder=tmp_path / "map")
    finally:
        thread.join()
    assert is_doubled(tasks)
    assert jobs(far, "lightkeep-run_there-1") == ["COMPLETED"]


def test_who_was_killed_finds_the_job_by_its_name(far: Far, tasks: list[Task], tmp_path: Path) -> None:
    class Killed(BaseException):
        """Stands for a kill: nothing catches it."""

    class Stop:
        def is_set(self) -> bool:
            if jobs(far, "lightkeep-run_kill-1"):
                raise Killed
            return False

    with pytest.raises(Killed):
        SshSite(**far.options()).map(tasks, key="run_kill", folder=tmp_path / "map", cancel=Stop())
    state = tmp_path / "map" / "site.json"
    known = json.loads(state.read_text())
    state.write_text(json.dumps(known | {"job_id": ""}))  # as if killed before the id was written down
    SshSite(**far.options()).map(tasks, key="run_kill", folder=tmp_path / "map")
    assert is_doubled(tasks)
    assert jobs(far, "lightkeep-run_kill-1") == ["COMPLETED"]


def test_a_cancel_reaches_the_job(far: Far, site: SshSite, tmp_path: Path) -> None:
    cancel, path = threading.Event(), tmp_path / "pids"
    task = Task(f"{HERE}:touch_and_wait", {"path": str(path), "wait_s": 60})
    thread = threading.Thread(target=lambda: (until(path.exists), cancel.set()))
    thread.start()
    with pytest.raises(RunCancelled):
        site.map([task], cancel=cancel, key="run_stop", folder=tmp_path / "map")
    thread.join()
    until(lambda: jobs(far, "lightkeep-run_stop-1") == ["CANCELLED"])


def test_errors_arrive_as_they_were_raised(site: SshSite) -> None:
    with pytest.raises(BadFile, match="cut short"):
        site.map([Task(f"{HERE}:refuse")])


def test_what_sbatch_refuses_is_told_in_its_words(far: Far, tasks: list[Task]) -> None:
    with pytest.raises(RunFailed, match=r"(?i)invalid partition"):
        SshSite(**far.options(partition="nosuch")).map(tasks)


def test_the_queue_tells_how_long_a_job_would_wait(far: Far, site: SshSite) -> None:
    assert site.expected_wait_s() is not None
    assert site.expected_wait_s() < 30
    blocker = far.slurm("sbatch", "--parsable", "-N2", "--exclusive", "--wrap=sleep 300", "-t5", "-o/dev/null")
    until(lambda: "R" in far.slurm("squeue", "-h", "-o%t", "-j", blocker.strip()))
    waits = site.expected_wait_s()
    far.slurm("scancel", blocker.strip())
    assert waits is not None
    assert waits > 100


def test_a_job_that_slurm_has_forgotten_is_judged_by_what_it_left(far: Far, site: SshSite) -> None:
    assert site.queue.look("999999").state is JobIs.DONE


def test_a_host_whose_key_is_not_known_is_not_trusted(far: Far, tmp_path: Path) -> None:
    (tmp_path / "none").write_text("")
    with pytest.raises(ConfigError, match="host key"):
        SshSite(**far.options(known_hosts=str(tmp_path / "none"), sockets=str(far.folder / "t"))).expected_wait_s()


def test_a_reconstruction_there_with_the_link_cut_gives_the_same_bytes_as_here(far: Far, tmp_path: Path) -> None:
    with build(tmp_path / "facility") as made:
        engines = {"university": {"kind": "ssh", **far.options(setup=["sleep 5"])}}
        facility = replace(made, config=replace(made.config, engines=engines))
        scan = small_scan(tmp_path / "tooth.h5")
        raw = ingest(facility, scan, experiment_id=EXPERIMENT, principal=ADA, quiet_s=0).dataset
        results = []
        for engine in ("inline", "university"):
            run = request(facility, raw.id, "tomography", principal=ADA, engine=engine)
            thread = threading.Thread(target=cut_for, args=(far, f"lightkeep-{run.id}-compute-1", 20))
            if engine == "university":
                thread.start()
            result = process(facility, run.id)
            results.append(numbers_of(local_path(facility, result.id, result.main_file)))
        thread.join()
        told = facility.catalog.view(SERVICE).run(run.id).placement["truth"]
    assert results[0] == results[1] != b""
    assert jobs(far, f"lightkeep-{run.id}-compute-1") == ["COMPLETED"]
    assert told["moved_bytes"] > raw.size


def cut_for(far: Far, name: str, seconds: float) -> None:
    """Cut the link as soon as a job runs, and heal it later."""
    until(lambda: "RUNNING" in jobs(far, name))
    far.cut()
    time.sleep(seconds)
    far.heal()
