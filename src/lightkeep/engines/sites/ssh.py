"""A login node: its sshd for the staging area, its Slurm for the queue.

One connection is opened and shared by all calls (ssh's ControlMaster). ssh's own settings apply beside ours, so
that a jump host or a certificate in `~/.ssh/config` works. The host's key must be known: none is accepted unseen.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from lightkeep.engines.sites.packing import sha256
from lightkeep.engines.sites.parts import Entry, JobIs, SiteAway, SiteJob
from lightkeep.engines.sites.site import RemoteSite, Settings
from lightkeep.engines.slurm import seconds_of
from lightkeep.engines.slurm_commands import Answer, Job, JobSpec, Slurm
from lightkeep.model.errors import ConfigError, NotFound, RunFailed

_T = TypeVar("_T")
_CHUNK = 16 << 20
_ALIVE_S = 5
"""A cut link is noticed after three times this."""
_SOCKET_BYTES = 90
"""Longest path of a shared connection's socket; the kernel allows 108, ssh adds a suffix while it makes it."""
_SSH_FAILED = 255
_NO_FILE = 44
_STATES = {
    "COMPLETED": JobIs.DONE,
    "CANCELLED": JobIs.CANCELLED,
    "NODE_FAIL": JobIs.LOST,
    "PREEMPTED": JobIs.LOST,
    "BOOT_FAIL": JobIs.LOST,
    "REVOKED": JobIs.LOST,
}


class Login:
    """Commands on a host.

    Parameters
    ----------
    host: `user@host`, or a name of ssh's own configuration.
    port: 0: ssh's choice.
    key: file with the private key; empty: ssh's choice.
    known_hosts: file with the host's key; empty: ssh's own.
    sockets: folder for the shared connection's socket; empty: `~/.cache/lightkeep`.
    timeout_s: how long one command may take.
    """

    def __init__(
        self,
        host: str,
        *,
        port: int = 0,
        key: str = "",
        known_hosts: str = "",
        sockets: str = "",
        timeout_s: float = 120.0,
    ) -> None:
        if host.startswith("-") or not host:
            raise ConfigError(f"`{host}` is not a host", remedy='write host = "user@host" in [engines.NAME]')
        self.host = host
        self._timeout_s = timeout_s
        folder = Path(sockets).expanduser() if sockets else Path.home() / ".cache" / "lightkeep"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "10",
            "ServerAliveInterval": str(_ALIVE_S),
            "ServerAliveCountMax": "3",
        }
        if len(str(folder)) + 41 < _SOCKET_BYTES:
            options |= {"ControlMaster": "auto", "ControlPath": f"{folder}/%C", "ControlPersist": "60"}
        if known_hosts:
            options["UserKnownHostsFile"] = str(Path(known_hosts).expanduser())
        if key:
            options |= {"IdentityFile": str(Path(key).expanduser()), "IdentitiesOnly": "yes"}
        self._command = ["ssh", *(f"-o{name}={value}" for name, value in options.items())]
        if port:
            self._command += ["-p", str(port)]

    def call(self, command: str, content: bytes = b"") -> tuple[int, bytes, str]:
        """Run a line of the remote shell; return its exit status, what it wrote, and what it complained about.

        Raises
        ------
        SiteAway: the host cannot be reached, or did not end in time.
        ConfigError: the host refuses us, is not who it should be, or there is no ssh here.
        """
        try:
            done = subprocess.run(  # noqa: S603 -- no shell here
                [*self._command, "--", self.host, command],
                input=content,
                capture_output=True,
                timeout=self._timeout_s,
                check=False,
            )
        except FileNotFoundError as error:
            raise ConfigError("there is no `ssh` on this machine", remedy="install openssh-client") from error
        except subprocess.TimeoutExpired as error:
            raise SiteAway(f"{self.host} did not answer in {self._timeout_s:.0f} s", is_transient=True) from error
        words = done.stderr.decode("utf-8", "replace").strip()
        if done.returncode == _SSH_FAILED:
            raise _refusal(self.host, words)
        return done.returncode, done.stdout, words

    def run(self, command: Sequence[str], stdin: str) -> Answer:
        """Run a command: the runner that Slurm's commands need."""
        status, out, err = self.call(shlex.join(command), stdin.encode())
        return Answer(status, out.decode("utf-8", "replace"), err)

    def close(self) -> None:
        """End the shared connection; the next call opens a new one."""
        subprocess.run([*self._command, "-Oexit", "--", self.host], capture_output=True, check=False)  # noqa: S603


def _refusal(host: str, words: str) -> Exception:
    last = words.splitlines()[-1] if words else "no connection"
    if "Permission denied" in words:
        return ConfigError(f"{host} refuses the key: {last}", remedy="check `host` and `key` of this engine")
    if "Host key verification failed" in words or "HOST IDENTIFICATION HAS CHANGED" in words:
        return ConfigError(
            f"{host} shows a host key that is not known: {last}",
            remedy="ask its administrators for the key, and add it to `known_hosts`",
        )
    return SiteAway(f"{host} cannot be reached: {last}", is_transient=True)


class Shell(Protocol):
    """A shell on a host."""

    host: str
    """For messages."""

    def call(self, command: str, content: bytes = b"") -> tuple[int, bytes, str]:
        """Run a line; return its exit status, what it wrote, and what it complained about."""
        ...


class SshArea:
    """A folder on the host, or on a file system that it shares with its nodes."""

    def __init__(self, login: Shell, root: str, *, chunk: int = _CHUNK) -> None:
        if not root.startswith("/"):
            raise ConfigError(
                f"staging folder `{root}` is not absolute", remedy="write the path at the site, from /"
            )
        self.root = root.rstrip("/")
        self.chunk = chunk
        self._login = login

    def prepare(self, folder: str) -> None:
        """Make a folder for its owner only."""
        self._must(f"umask 077; mkdir -p {self._at(folder)}")

    def listing(self, folder: str) -> dict[str, Entry]:
        """Return the files in a folder."""
        out = self._must(
            f"cd {self._at(folder)} 2>/dev/null || exit 0; date +%s; "
            "find . -maxdepth 1 -type f -printf '%f %s %T@\\n'"
        )
        lines = out.decode().splitlines()
        now = float(lines[0]) if lines else 0.0
        split = [line.rsplit(" ", 2) for line in lines[1:]]
        return {name: Entry(int(size), now - float(at)) for name, size, at in split if not name.startswith(".")}

    def put(self, name: str, content: bytes) -> None:
        """Write a file: hashed there and made durable before it gets its name."""
        path = f"{self.root}/{name}"
        head, _, last = path.rpartition("/")
        part = shlex.quote(f"{head}/.{last}.part.") + "$$"
        line = shlex.quote(sha256(content))
        self._must(
            f"umask 077; cat > {part} && echo {line}' *'{part} | sha256sum -c --status && sync {part} && "
            f"mv {part} {shlex.quote(path)} || {{ rm -f {part}; exit 1; }}",
            content,
        )

    def get(self, name: str) -> bytes:
        """Return a file's content."""
        path = self._at(name)
        status, out, words = self._login.call(f"test -e {path} || exit {_NO_FILE}; cat {path}")
        if status == _NO_FILE:
            raise NotFound(f"{self._login.host} has no {self.root}/{name}")
        if status:
            raise RunFailed(f"{self._login.host}: {words}", remedy="look at the staging folder there")
        return out

    def remove(self, names: Sequence[str]) -> None:
        """Remove files and folders; the names travel by stdin, so that their number does not matter."""
        for name in names:
            if name.startswith("/") or ".." in name.split("/") or not name.strip("/."):
                raise RunFailed(f"{name!r} is not a name below the staging area")
        if names:
            listed = "".join(f"./{name}\0" for name in names)
            self._must(f"cd {shlex.quote(self.root)} && xargs -0 rm -rf --", listed.encode())

    def _at(self, name: str) -> str:
        return shlex.quote(f"{self.root}/{name}")

    def _must(self, command: str, content: bytes = b"") -> bytes:
        status, out, words = self._login.call(command, content)
        if status:
            raise RunFailed(
                f"{self._login.host}: {words or f'exit status {status}'}",
                remedy=f"look at {self.root} there: its room and its permissions",
            )
        return out


class SlurmQueue:
    """The Slurm of a login node."""

    def __init__(self, slurm: Slurm, spec: JobSpec, *, setup: Sequence[str] = ()) -> None:
        self._slurm = slurm
        self._spec = spec
        self._setup = tuple(setup)

    def submit(
        self, name: str, command: Sequence[str], *, folder: str, environment: Mapping[str, str] | None = None
    ) -> str:
        """Hand a job in, unless one of that name is known."""
        if found := self.find(name):
            return found
        script = script_of(command, setup=self._setup, environment=environment or {})
        return self._heard(lambda: self._slurm.submit(script, replace(self._spec, name=name, log=f"{folder}/log")))

    def look(self, job_id: str) -> SiteJob:
        """Return where a job is, in Slurm's words. One that Slurm has forgotten may be done: `out.json` tells."""
        jobs = self._heard(lambda: self._slurm.jobs(job_id))
        if not jobs:
            return SiteJob(job_id, JobIs.DONE, "Slurm has forgotten it")
        return site_job(jobs[-1])

    def find(self, name: str) -> str:
        """Return the id of the newest job of a name."""
        jobs = self._heard(lambda: self._slurm.find(name))
        return jobs[-1].array_id if jobs else ""

    def cancel(self, job_id: str) -> None:
        """Stop a job."""
        self._heard(lambda: self._slurm.cancel(job_id))

    def wait_s(self) -> float | None:
        """Return what Slurm expects: `sbatch --test-only`, by the cluster's own clock."""
        at = self._heard(lambda: self._slurm.expected_start(self._spec))
        if at is None:
            return None
        now = self._heard(lambda: self._slurm.run(["date", "+%Y-%m-%dT%H:%M:%S"], "")).out.strip()
        return max(0.0, (at - datetime.fromisoformat(now)).total_seconds())

    def _heard(self, call: Callable[[], _T]) -> _T:
        """Return a call's answer; a Slurm that does not answer is a site that is away."""
        try:
            return call()
        except SiteAway:
            raise
        except RunFailed as error:
            if error.data.get("is_transient"):
                raise SiteAway(error.message, remedy=error.remedy, is_transient=True) from error
            raise


def site_job(job: Job) -> SiteJob:
    """Return a job of Slurm as a site's."""
    words = " ".join(each for each in (job.state, job.reason, job.nodes) if each)
    if job.is_waiting:
        return SiteJob(job.array_id, JobIs.HELD if "Held" in job.reason else JobIs.WAITING, words)
    return SiteJob(job.array_id, _STATES.get(job.state, JobIs.FAILED) if job.is_over else JobIs.RUNNING, words)


def script_of(command: Sequence[str], *, setup: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the shell script of a job."""
    given = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    return "\n".join(["#!/bin/sh", *given, *setup, f"exec {shlex.join(command)}"]) + "\n"


class SshSite(RemoteSite):
    """A cluster behind a login node.

    Parameters
    ----------
    host: `user@host`, or a name of ssh's own configuration; port, key, known_hosts, sockets: as for `Login`.
    staging: absolute path of a folder there that the nodes have too.
    partition, qos, account, walltime, cpus, memory_mb, container, python, setup, extra: as for `SlurmEngine`.
    processes, poll_s, patience_s, keep_days, rate: as in `Settings`.
    """

    name = "ssh"

    def __init__(
        self,
        *,
        host: str = "",
        staging: str = "",
        port: int = 0,
        key: str = "",
        known_hosts: str = "",
        sockets: str = "",
        partition: str = "",
        qos: str = "",
        account: str = "",
        walltime: str = "",
        cpus: int = 0,
        memory_mb: int = 0,
        container: str = "",
        python: str = "python3",
        setup: Sequence[str] = (),
        extra: Sequence[str] = (),
        processes: int = 0,
        poll_s: float = 2.0,
        patience_s: float = 86_400.0,
        keep_days: float = 7.0,
        rate: float = 0.0,
    ) -> None:
        self.login = Login(host, port=port, key=key, known_hosts=known_hosts, sockets=sockets)
        spec = JobSpec(
            name="lightkeep",
            log="/dev/null",
            partition=partition,
            qos=qos,
            account=account,
            walltime_s=seconds_of(walltime),
            cpus=cpus,
            memory_mb=memory_mb,
            extra=tuple(extra),
        )
        settings = Settings(
            python=[*shlex.split(container), *shlex.split(python)],
            processes=processes,
            cores=cpus,
            poll_s=poll_s,
            patience_s=patience_s,
            keep_days=keep_days,
            rate=rate,
        )
        queue = SlurmQueue(Slurm(self.login.run), spec, setup=setup)
        super().__init__(SshArea(self.login, staging), queue, settings=settings)
