"""NERSC's Superfacility API, through NERSC's own client (`sfapi-client`, extra `nersc`).

    files    utilities/upload, utilities/download; the rest of what a folder needs by utilities/command
    jobs     compute/jobs: a batch script in; squeue's and then sacct's word of it out
    tasks    a submission and a command are begun, and asked for until they have ended

The client would try again by itself, also to submit: here each call is made once, and `RemoteSite` tries again,
after it looked whether the job is there. The API has no idempotency key.
"""

from __future__ import annotations

import io
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import tenacity
from authlib.integrations.base_client import OAuthError
from pydantic import ValidationError
from sfapi_client import Client
from sfapi_client.compute import CommandTask, CommandTaskResult, Compute, TaskStatus
from sfapi_client.exceptions import ClientKeyError, SfApiError
from sfapi_client.jobs import JobCommand
from sfapi_client.paths import RemotePath

from lightkeep.engines.sites.packing import sha256
from lightkeep.engines.sites.parts import JobIs, SiteAway, SiteJob
from lightkeep.engines.sites.site import RemoteSite, Settings
from lightkeep.engines.sites.ssh import SshArea, script_of, site_job
from lightkeep.engines.slurm import seconds_of
from lightkeep.engines.slurm_commands import Job, JobSpec
from lightkeep.model.errors import ConfigError, LightkeepError, NotFound, RunFailed

_T = TypeVar("_T")
URL = "https://api.nersc.gov/api/v1.2"
TOKEN_URL = "https://oidc.nersc.gov/c2id/token"  # noqa: S105 -- an address
_CHUNK = 4 << 20
_BUSY = {408, 409, 425, 429, 500, 502, 503, 504}
_SETTLE_S = 10.0
"""How long a submission whose answer was lost may take to be seen in the queue."""
_EXIT = "lightkeep-exit="
_ONCE = {"stop": tenacity.stop_after_attempt(1), "reraise": True}
_AT_ONCE = 50
"""Names in one command line."""


class _Once(Client):  # type: ignore[misc]
    """The client, without its own tries: they cannot be cancelled, and would submit a job again."""

    get = Client.get.retry_with(**_ONCE)
    post = Client.post.retry_with(**_ONCE)
    put = Client.put.retry_with(**_ONCE)
    delete = Client.delete.retry_with(**_ONCE)


class Sfapi:
    """One machine behind the API.

    Parameters
    ----------
    key: file with the client's id and private key as the API's web page gives it, readable by its owner only.
    machine: e.g. `perlmutter`.
    url, token_url: of the API with its version, and of where tokens come from.
    task_s: how long one task of the API may take.
    """

    def __init__(
        self, key: str, machine: str, *, url: str = URL, token_url: str = TOKEN_URL, task_s: float = 300.0
    ) -> None:
        for each in (url, token_url):
            parts = urlsplit(each)
            if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
                raise ConfigError(
                    f"`{each}` is not an https address", remedy="a token must not travel in the open"
                )
        if not key:
            raise ConfigError("the Superfacility API needs `key`", remedy="set it in [engines.NAME]: a file")
        self.host = f"{machine} at {url}"
        self.machine = machine
        self._key = Path(key).expanduser()
        self._urls = {"api_base_url": url.rstrip("/"), "token_url": token_url}
        self._task_s = task_s
        self._compute: Compute | None = None

    def ask(self, call: Callable[[Compute], _T]) -> _T:
        """Return a call's answer.

        Raises
        ------
        SiteAway: no answer, or one that says that it is busy. NotFound: 404. ConfigError: the key is refused.
        RunFailed: refused, in the API's words.
        """
        try:
            try:
                return call(self._machine())
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.UNAUTHORIZED:
                    raise
                self._compute = None  # the token was withdrawn before its time: with a new one, once
                return call(self._machine())
        except httpx.HTTPStatusError as error:
            raise self._problem(error.response) from error
        except httpx.TransportError as error:
            words = f"{self.host} does not answer: {error or type(error).__name__}"
            raise SiteAway(words, is_transient=True) from error
        except (OAuthError, ClientKeyError) as error:
            words = error.message if isinstance(error, ClientKeyError) else str(error)
            raise ConfigError(
                f"{self.host} gives no token: {words}", remedy="renew the key of this client, or mend its mode"
            ) from error
        except SfApiError as error:
            raise RunFailed(f"{self.host}: {error.message}", remedy="correct this engine") from error
        except (ValidationError, ValueError) as error:
            raise RunFailed(f"{self.host} answered what the API's client does not know: {error}") from error

    def _machine(self) -> Compute:
        if self._compute is None:
            self._compute = _Once(key=self._key, **self._urls).compute(self.machine)
        return self._compute

    def _problem(self, answer: httpx.Response) -> LightkeepError:
        words = f"{self.host} answered {answer.status_code}: {answer.text[:200].strip()}"
        status, after = answer.status_code, answer.headers.get("Retry-After", "")
        if status in _BUSY:
            known: dict[str, Any] = {"retry_after_s": float(after)} if after.isdecimal() else {}
            return SiteAway(words, is_transient=True, **known)
        if status == httpx.codes.NOT_FOUND:
            return NotFound(words)
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return ConfigError(words, remedy="renew the key of this client; it holds for one network only")
        return RunFailed(words, remedy="correct what this engine asks for in [engines.NAME]")

    def task(self, begin: Callable[[Compute], str]) -> CommandTaskResult:
        """Begin a task, which `begin` returns the id of; return its result when it has ended.

        Raises
        ------
        SiteAway: it did not end in time. RunFailed: it ended badly.
        """
        task_id = self.ask(begin)
        deadline, pause = time.monotonic() + self._task_s, 0.05

        def update(compute: Compute) -> CommandTask:
            return CommandTask(compute=compute, id=task_id).update()

        while (task := self.ask(update)).status in (None, TaskStatus.NEW):
            if time.monotonic() > deadline:
                self.ask(lambda compute: compute.client.delete(f"tasks/{task_id}"))
                raise SiteAway(f"{self.host}: a task did not end in {self._task_s:.0f} s", is_transient=True)
            time.sleep(pause)
            pause = min(pause * 1.5, 2.0)
        result = task.result or CommandTaskResult()
        if task.status is not TaskStatus.COMPLETED or result.status == "error":
            raise RunFailed(f"{self.host}: {result.error or result.output or task.status}", remedy="look there")
        return result

    def call(self, command: str, content: bytes = b"") -> tuple[int, bytes, str]:
        """Run a line of bash on a login node; return its exit status, and what it wrote, both ways.

        `content`, if any, is its stdin: text without a zero byte.
        """
        given = f"printf %s {shlex.quote(content.decode())} | " if content else ""
        line = f"{given}bash -c {shlex.quote(command)} 2>&1; printf '\\n%s%d' {_EXIT} $?"
        result = self.task(lambda compute: str(compute.run_task(f"bash -c {shlex.quote(line)}").id))
        out, found, status = str(result.output or "").rpartition(_EXIT)
        if not found or not status.strip().isdecimal():
            raise SiteAway(f"{self.host}: a command was cut short: {status[:200]}", is_transient=True)
        out = out.removesuffix("\n")
        return int(status), out.encode(), out.strip()


class SfapiArea(SshArea):
    """A folder on a file system of the site."""

    def __init__(self, api: Sfapi, root: str) -> None:
        super().__init__(api, root, chunk=_CHUNK)
        self._api = api

    def put(self, name: str, content: bytes) -> None:
        """Write a file: hashed there before it gets its name."""
        head, _, last = f"{self.root}/{name}".rpartition("/")
        part = f"{head}/.{last}.{uuid4().hex}"

        def send(compute: Compute) -> None:
            path = f"utilities/upload/{compute.name}/{part}"
            told = compute.client.put(path, files={"file": io.BytesIO(content)}).json()
            if told["status"] != "OK":
                raise SfApiError(told.get("error"))

        self._api.ask(send)
        line, kept, to = shlex.quote(sha256(content)), shlex.quote(part), shlex.quote(f"{head}/{last}")
        status, _, words = self._api.call(
            f"echo {line}' *'{kept} | sha256sum -c --status && mv {kept} {to} || {{ rm -f {kept}; exit 1; }}"
        )
        if status:
            raise SiteAway(
                f"{self._api.host} stored other bytes than were sent: {name} {words}", is_transient=True
            )

    def get(self, name: str) -> bytes:
        """Return a file's content."""
        path = f"{self.root}/{name}"
        folder, _, last = name.rpartition("/")
        if last not in self.listing(folder):
            raise NotFound(f"{self._api.host} has no {path}")

        def fetch(compute: Compute) -> bytes:
            stream = RemotePath(path=path, compute=compute, perms="-").download(binary=True)
            return bytes(stream.read())

        return self._api.ask(fetch)

    def remove(self, names: Sequence[str]) -> None:
        """Remove files and folders."""
        for name in names:
            if name.startswith("/") or ".." in name.split("/") or not name.strip("/."):
                raise RunFailed(f"{name!r} is not a name below the staging area")
        for first in range(0, len(names), _AT_ONCE):
            listed = shlex.join(f"./{name}" for name in names[first : first + _AT_ONCE])
            self._must(f"cd {shlex.quote(self.root)} && rm -rf -- {listed}")


class SfapiQueue:
    """The machine's Slurm, through the API.

    Parameters
    ----------
    settle_s: how long a submission whose answer was lost may take to be seen.
    """

    def __init__(
        self, api: Sfapi, spec: JobSpec, *, setup: Sequence[str] = (), settle_s: float = _SETTLE_S
    ) -> None:
        self._api = api
        self._spec = spec
        self._setup = tuple(setup)
        self._settle_s = settle_s

    def submit(
        self, name: str, command: Sequence[str], *, folder: str, environment: Mapping[str, str] | None = None
    ) -> str:
        """Hand a job in, unless one of that name is known."""
        if found := self.find(name):
            return found
        asked = replace(self._spec, name=name, log=f"{folder}/log").options()
        first, _, rest = script_of(command, setup=self._setup, environment=environment or {}).partition("\n")
        script = "\n".join([first, *(f"#SBATCH {each}" for each in asked), rest])

        def begin(compute: Compute) -> str:
            told = compute.client.post(f"compute/jobs/{compute.name}", {"job": script, "isPath": False}).json()
            if told["status"] != "OK":
                raise SfApiError(f"refused the job: {told.get('error')}")
            return str(told["task_id"])

        try:
            result = self._api.task(begin)
        except SiteAway as error:
            # It may have been handed in: it is looked for when it can be seen.
            error.data["retry_after_s"] = max(self._settle_s, error.data.get("retry_after_s", 0.0))
            raise
        return str((result.model_extra or {})["jobid"])

    def look(self, job_id: str) -> SiteJob:
        """Return where a job is: squeue's word, then sacct's."""
        for kind in (JobCommand.squeue, JobCommand.sacct):
            if jobs := self._jobs(kind, jobids=[job_id]):
                return site_job(_job(jobs[-1]))
        return SiteJob(job_id, JobIs.DONE, "the site has forgotten it")

    def find(self, name: str) -> str:
        """Return the id of the newest job of a name."""
        user = self._api.ask(lambda compute: compute.client.user().name)
        found: list[str] = []
        for kind in (JobCommand.squeue, JobCommand.sacct):
            jobs = self._jobs(kind, user=user)
            found += [job.jobid for job in jobs if name in (getattr(job, "name", ""), getattr(job, "jobname", ""))]
        return max((each for each in found if each.isdecimal()), key=int, default="")

    def _jobs(self, kind: JobCommand, **which: Any) -> list[Any]:
        return self._api.ask(lambda compute: list(compute.jobs(command=kind, **which)))

    def cancel(self, job_id: str) -> None:
        """Stop a job."""
        try:
            self._api.ask(lambda compute: compute.client.delete(f"compute/jobs/{compute.name}/{job_id}"))
        except NotFound:
            return

    def wait_s(self) -> float | None:
        """Return None: the API tells no queue's length. A machine that is out of service raises SiteAway."""
        status = self._api.ask(lambda compute: compute.client.resources.status(self._api.machine))
        if status.status == "unavailable":
            raise SiteAway(f"{self._api.machine} is down: {'; '.join(status.notes or ())}", is_transient=True)
        return None


def _job(told: Any) -> Job:
    state = told.state.value if told.state is not None else "PENDING"
    nodes = getattr(told, "nodelist", "") or ""
    return Job(told.jobid, told.jobid, 0, state, getattr(told, "reason", "") or "", nodes)


class SfapiSite(RemoteSite):
    """A machine behind NERSC's Superfacility API.

    Parameters
    ----------
    key, machine, url, token_url, task_s: as for `Sfapi`.
    staging: absolute path of a folder there that the nodes have too.
    qos, account, constraint, walltime, cpus, memory_mb, container, python, setup, extra: as for `SshSite`.
    settle_s: as for `SfapiQueue`.
    processes, poll_s, patience_s, keep_days, rate: as in `Settings`.
    """

    name = "sfapi"

    def __init__(
        self,
        *,
        key: str = "",
        machine: str = "perlmutter",
        url: str = URL,
        token_url: str = TOKEN_URL,
        staging: str = "",
        qos: str = "",
        account: str = "",
        constraint: str = "",
        walltime: str = "",
        cpus: int = 0,
        memory_mb: int = 0,
        container: str = "",
        python: str = "python3",
        setup: Sequence[str] = (),
        extra: Sequence[str] = (),
        task_s: float = 300.0,
        settle_s: float = _SETTLE_S,
        processes: int = 0,
        poll_s: float = 2.0,
        patience_s: float = 86_400.0,
        keep_days: float = 7.0,
        rate: float = 0.0,
    ) -> None:
        api = Sfapi(key, machine, url=url, token_url=token_url, task_s=task_s)
        spec = JobSpec(
            name="lightkeep",
            log="/dev/null",
            qos=qos,
            account=account,
            walltime_s=seconds_of(walltime),
            cpus=cpus,
            memory_mb=memory_mb,
            extra=(*([f"--constraint={constraint}"] if constraint else []), *extra),
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
        queue = SfapiQueue(api, spec, setup=setup, settle_s=settle_s)
        super().__init__(SfapiArea(api, staging), queue, settings=settings)
