"""The DOE Integrated Research Infrastructure's Facility API: one adapter for every facility that has it.

Read in the reference server (doe-iri/iri-facility-api-python, 2026-08-21): errors are problem documents (RFC
9457); calls to the file system answer with a task that is asked for until it has ended; a job handed in twice
under one Idempotency-Key is one job; files of at most 5 MiB travel, hence the small chunk.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from uuid import NAMESPACE_URL, uuid4, uuid5

from lightkeep.engines.sites.packing import sha256
from lightkeep.engines.sites.parts import Entry, JobIs, SiteAway, SiteJob
from lightkeep.engines.sites.site import RemoteSite, Settings
from lightkeep.engines.slurm import seconds_of
from lightkeep.model.errors import ConfigError, LightkeepError, NotFound, RunFailed

_CHUNK = 4 << 20
_BUSY = {408, 409, 425, 429, 500, 502, 503, 504}
_JOB_STATES = {
    "new": JobIs.WAITING,
    "queued": JobIs.WAITING,
    "held": JobIs.HELD,
    "active": JobIs.RUNNING,
    "completed": JobIs.DONE,
    "failed": JobIs.FAILED,
    "canceled": JobIs.CANCELLED,
}
_NODE_WORDS = ("NODE_FAIL", "node fail", "BOOT_FAIL", "PREEMPTED", "preempted")
_PAGE = 100


class _NoIdempotency(LightkeepError):
    """The server keeps no Idempotency-Keys (501)."""


class _TaskFailed(RunFailed):
    """A call to the file system ended badly."""


class Iri:
    """The API's HTTP face.

    Parameters
    ----------
    url: of the API with its version, e.g. `https://api.iri.nersc.gov/api/v1`.
    token: returns the access token; called with True when the last one was refused.
    timeout_s: how long one request may take.
    task_s: how long a task of the file system may take.
    """

    def __init__(
        self, url: str, token: Callable[[bool], str], *, timeout_s: float = 60.0, task_s: float = 300.0
    ) -> None:
        parts = urlsplit(url)
        local = parts.hostname in ("127.0.0.1", "::1", "localhost")
        if parts.scheme != "https" and not (parts.scheme == "http" and local):
            raise ConfigError(f"`{url}` is not an https address", remedy="a token must not travel in the open")
        self.url = url.rstrip("/")
        self._parts = parts
        self._token = token
        self._timeout_s = timeout_s
        self._task_s = task_s

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Return the decoded answer; `body` is JSON, or (content type, bytes).

        Raises
        ------
        SiteAway: no answer, or one that says that it is busy; `retry_after_s` when the server said how long.
        NotFound: 404. RunFailed: refused, with the server's `detail`. ConfigError: the token is refused, twice.
        """
        kind, content = body if isinstance(body, tuple) else ("application/json", json.dumps(body).encode())
        sent = dict(headers or {}) | ({"Content-Type": kind} if body is not None else {})
        target = f"{self._parts.path.rstrip('/')}{path}{'?' + urlencode(query) if query else ''}"
        for is_second in (False, True):
            sent["Authorization"] = f"Bearer {self._token(is_second)}"
            status, answer, after = self._request(method, target, content if body is not None else None, sent)
            if status != 401:
                break
        if status < 300:
            return json.loads(answer) if answer else None
        raise self._problem(status, answer, after)

    def task(self, operation: str, resource: str, body: Any, *, query: Mapping[str, str] | None = None) -> Any:
        """Run one operation of the file system to its end; return its `output`."""
        begun = self.call("POST", f"/filesystem/{operation}/{quote(resource)}", body, query=query)
        path, pause = f"/task/{quote(begun['task_id'])}", 0.02
        deadline = time.monotonic() + self._task_s
        while (task := self.call("GET", path))["status"] not in ("completed", "failed", "canceled"):
            if time.monotonic() > deadline:
                self.call("DELETE", path)
                raise SiteAway(f"{self.url}: {operation} did not end in {self._task_s:.0f} s", is_transient=True)
            time.sleep(pause)
            pause = min(pause * 1.5, 2.0)
        result = task.get("result") or {}
        if task["status"] != "completed":
            raise _TaskFailed(f"{self.url}: {operation} {task['status']}: {result.get('error') or result}")
        return result.get("output")

    def _request(
        self, method: str, target: str, content: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, str]:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout_s)
        try:
            connection.request(method, target, body=content, headers=dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.getheader("Retry-After", "")
        except (OSError, http.client.HTTPException) as error:
            raise SiteAway(
                f"{self.url} does not answer: {error or type(error).__name__}", is_transient=True
            ) from error
        finally:
            connection.close()

    def _problem(self, status: int, answer: bytes, after: str) -> LightkeepError:
        try:
            told = json.loads(answer)
            words = str(told.get("detail") or told.get("title"))
        except (ValueError, AttributeError):
            words = answer[:200].decode("utf-8", "replace").strip()
        words = f"{self.url} answered {status}: {words}"
        if status == 501:
            return _NoIdempotency(words)
        if status == 404:
            return NotFound(words)
        if status in (401, 403):
            return ConfigError(words, remedy="renew the token: `token_file` or `token_command` of this engine")
        if status in _BUSY:
            known: dict[str, Any] = {"retry_after_s": float(after)} if after.isdecimal() else {}
            return SiteAway(words, is_transient=True, **known)
        return RunFailed(words, remedy="correct what this engine asks for in [engines.NAME]")


class IriArea:
    """A folder on a file system of the site."""

    def __init__(self, api: Iri, resource: str, root: str) -> None:
        if not root.startswith("/"):
            raise ConfigError(
                f"staging folder `{root}` is not absolute", remedy="write the path at the site, from /"
            )
        self.root = root.rstrip("/")
        self.chunk = _CHUNK
        self._api = api
        self._resource = resource

    def prepare(self, folder: str) -> None:
        """Make a folder."""
        self._run("mkdir", {"path": f"{self.root}/{folder}", "parent": True})

    def listing(self, folder: str) -> dict[str, Entry]:
        """Return the files in a folder."""
        now = datetime.now(UTC)
        try:
            found = self._run("ls", {"path": f"{self.root}/{folder}", "numericUid": True})
        except (_TaskFailed, NotFound):
            return {}
        return {
            Path(each["name"]).name: Entry(int(each["size"]), (now - _when(each["last_modified"])).total_seconds())
            for each in found or ()
            if each["type"] in ("file", "-")
        }

    def put(self, name: str, content: bytes) -> None:
        """Write a file: hashed there before it gets its name."""
        head, _, last = f"{self.root}/{name}".rpartition("/")
        part = f"{head}/.{last}.{uuid4().hex}"
        self._api.task("upload", self._resource, _form(last, content), query={"path": part})
        found = self._run("checksum", {"path": part})["checksum"]
        if found.lower() != sha256(content):
            self._run("rm", {"path": part})
            raise SiteAway(f"{self._api.url} stored other bytes than were sent: {name}", is_transient=True)
        self._run("mv", {"path": part, "target_path": f"{head}/{last}"})

    def get(self, name: str) -> bytes:
        """Return a file's content."""
        folder, _, last = name.rpartition("/")
        try:
            output = self._run("download", {"path": f"{self.root}/{name}"})
            return base64.b64decode(output, validate=True)
        except binascii.Error as error:
            raise RunFailed(f"{self._api.url}: what it gave for {name} is not base64") from error
        except (_TaskFailed, NotFound) as error:
            if last in self.listing(folder):
                raise
            raise NotFound(f"{self._api.url} has no {self.root}/{name}") from error

    def remove(self, names: Sequence[str]) -> None:
        """Remove files and folders."""
        for name in names:
            if name.startswith("/") or ".." in name.split("/") or not name.strip("/."):
                raise RunFailed(f"{name!r} is not a name below the staging area")
            try:
                self._run("rm", {"path": f"{self.root}/{name}"})
            except (_TaskFailed, NotFound):
                if name.rpartition("/")[2] in self.listing(name.rpartition("/")[0]):
                    raise

    def _run(self, operation: str, body: dict[str, Any]) -> Any:
        return self._api.task(operation, self._resource, body)


class IriQueue:
    """A compute resource of the site.

    Parameters
    ----------
    resources, attributes, fields: further fields of the job's `resources`, its `attributes`, and the job.
    """

    def __init__(
        self,
        api: Iri,
        resource: str,
        *,
        resources: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        self._api = api
        self._resource = resource
        self._resources = dict(resources or {})
        self._attributes = dict(attributes or {})
        self._fields = dict(fields or {})

    def submit(
        self, name: str, command: Sequence[str], *, folder: str, environment: Mapping[str, str] | None = None
    ) -> str:
        """Hand a job in under a key made of its name; a server without keys is asked for the name first."""
        body = {
            "executable": command[0],
            "arguments": list(command[1:]),
            "directory": folder,
            "name": name,
            "stdout_path": f"{folder}/log",
            "stderr_path": f"{folder}/log",
            "resources": {"node_count": 1, "process_count": 1, **self._resources},
            **({"attributes": self._attributes} if self._attributes else {}),
            **({"environment": dict(environment)} if environment else {}),
            **self._fields,
        }
        key = str(uuid5(NAMESPACE_URL, f"{self._api.url}/{self._resource}/{name}"))
        path = f"/compute/job/{quote(self._resource)}"
        try:
            return str(self._api.call("POST", path, body, headers={"Idempotency-Key": key})["id"])
        except _NoIdempotency:
            return self.find(name) or str(self._api.call("POST", path, body)["id"])
        except RunFailed as error:
            if isinstance(error, SiteAway) or not (found := self.find(name)):
                raise
            return found  # 422: the key was used for this very job by an older version of us

    def look(self, job_id: str) -> SiteJob:
        """Return where a job is."""
        path = f"/compute/status/{quote(self._resource)}/{quote(job_id)}"
        try:
            status = self._api.call("GET", path, query={"historical": "true"}).get("status") or {}
        except NotFound:
            return SiteJob(job_id, JobIs.DONE, "the site has forgotten it")
        state = _JOB_STATES.get(str(status.get("state")), JobIs.WAITING)
        words = str(status.get("message") or "")
        if state is JobIs.FAILED:
            if any(each in words for each in _NODE_WORDS):
                return SiteJob(job_id, JobIs.LOST, words)
            words = f"{words} (exit code {status.get('exit_code')})".strip()
        return SiteJob(job_id, state, words)

    def find(self, name: str) -> str:
        """Return the id of the newest job of a name."""
        path, offset, found = f"/compute/status/{quote(self._resource)}", 0, ""
        while True:
            query = {"offset": str(offset), "limit": str(_PAGE), "historical": "true", "include_spec": "true"}
            page = self._api.call("POST", path, None, query=query)
            found = next((each["id"] for each in page if (each.get("job_spec") or {}).get("name") == name), found)
            if len(page) < _PAGE:
                return str(found)
            offset += _PAGE

    def cancel(self, job_id: str) -> None:
        """Stop a job."""
        try:
            self._api.call("DELETE", f"/compute/cancel/{quote(self._resource)}/{quote(job_id)}")
        except NotFound:
            return

    def wait_s(self) -> float | None:
        """Return None: the API tells no queue's length. A resource that is down raises SiteAway."""
        found = self._api.call("GET", f"/status/resources/{quote(self._resource)}")
        if found.get("current_status") == "down":
            raise SiteAway(f"{found.get('name') or self._resource} is down", is_transient=True)
        return None


def token_source(*, token_file: str = "", token_command: str = "") -> Callable[[bool], str]:
    """Return what gives the access token: a file that something else renews, or a command that prints one.

    Raises
    ------
    ConfigError: neither or both are given. Later, when it is called: there is no token.
    """
    if bool(token_file) == bool(token_command):
        raise ConfigError("a site's API needs `token_file` or `token_command`", remedy="set one in [engines.NAME]")
    known = ""

    def token(is_refused: bool) -> str:
        nonlocal known
        if is_refused or not known or token_file:
            known = _read(Path(token_file).expanduser()) if token_file else _printed(token_command)
        return known

    return token


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", remedy="write the access token there") from error


def _printed(command: str) -> str:
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"`{command}`: {error}", remedy="it must print an access token") from error
    if done.returncode or not done.stdout.strip():
        raise ConfigError(f"`{command}` gave no token: {done.stderr.strip()[:200]}", remedy="run it by hand")
    return done.stdout.strip()


def _form(name: str, content: bytes) -> tuple[str, bytes]:
    """Return a file as multipart/form-data."""
    mark = uuid4().hex
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return f"multipart/form-data; boundary={mark}", head.encode() + content + f"\r\n--{mark}--\r\n".encode()


def _when(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


class IriSite(RemoteSite):
    """A facility that speaks the IRI Facility API.

    Parameters
    ----------
    url: of the API with its version, e.g. `https://api.iri.nersc.gov/api/v1`.
    compute, filesystem: ids of the site's resources: `GET /status/resources` lists them.
    staging: absolute path of a folder there.
    token_file, token_command: where the access token comes from; see `token_source`.
    queue, account, walltime, cpus, memory_mb: what a job asks for; empty or 0: the site's default.
    container: image that the job runs in; the staging folder is mounted into it.
    python: command in it, or at the site, that starts a Python with Lightkeep.
    setup: shell lines before the job, e.g. `module load python`.
    task_s: how long one operation of the file system may take.
    processes, poll_s, patience_s, keep_days, rate: as in `Settings`.
    """

    name = "iri"

    def __init__(
        self,
        *,
        url: str = "",
        compute: str = "",
        filesystem: str = "",
        staging: str = "",
        token_file: str = "",
        token_command: str = "",
        queue: str = "",
        account: str = "",
        walltime: str = "",
        cpus: int = 0,
        memory_mb: int = 0,
        container: str = "",
        python: str = "python3",
        setup: str = "",
        task_s: float = 300.0,
        processes: int = 0,
        poll_s: float = 2.0,
        patience_s: float = 86_400.0,
        keep_days: float = 7.0,
        rate: float = 0.0,
    ) -> None:
        api = Iri(url, token_source(token_file=token_file, token_command=token_command), task_s=task_s)
        mount = {"source": staging, "target": staging, "read_only": False}
        fields: dict[str, Any] = {"container": {"image": container, "volume_mounts": [mount]}} if container else {}
        fields |= {"pre_launch": setup} if setup else {}
        attributes = {"duration": seconds_of(walltime), "queue_name": queue, "account": account}
        resources = {"cpu_cores_per_process": cpus, "memory": memory_mb << 20}
        jobs = IriQueue(
            api,
            compute,
            resources={key: value for key, value in resources.items() if value},
            attributes={key: value for key, value in attributes.items() if value},
            fields=fields,
        )
        settings = Settings(
            python=shlex.split(python),
            processes=processes,
            cores=cpus,
            poll_s=poll_s,
            patience_s=patience_s,
            keep_days=keep_days,
            rate=rate,
        )
        super().__init__(IriArea(api, filesystem, staging), jobs, settings=settings)
