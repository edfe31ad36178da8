"""A facility that speaks the IRI Facility API, in this process: its routes, shapes, states and faults.

    with IriServer(tmp_path) as server:
        server.faults.bursts = 3             the next three answers are 503
        IriSite(url=server.url, token_file=str(server.token_file), compute="cpu", filesystem="scratch", ...)

Jobs run as processes of this machine. Routes and refusals are those of doe-iri/iri-facility-api-python,
2026-08-21; shapes in `iri_shapes`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from lightkeep.testing.iri_shapes import ListBody, MakeFolderBody, MoveBody, PathBody, Spec

LIMIT = 5 << 20
"""Bytes that upload, download and view take."""
_OVER = ("completed", "failed", "canceled")
COMPUTE, FILES = "cpu", "scratch"
"""Ids of the two resources."""


@dataclass
class Faults:
    """What goes wrong; set from a test at any time."""

    bursts: int = 0
    """So many of the next answers are 503."""
    lost_answers: int = 0
    """So many of the next submissions are done, and answered with 504."""
    in_flight: int = 0
    """So many of the next submissions are answered with 409 and Retry-After."""
    keeps_no_keys: bool = False
    """Idempotency-Key is answered with 501."""
    is_held: bool = False
    """New jobs are held until this is False again."""
    node_failures: int = 0
    """So many of the next jobs fail with their node, without running."""
    endless_tasks: int = 0
    """So many of the next tasks of the file system never end."""
    corrupted: int = 0
    """So many of the next uploads store other bytes."""
    requests_per_token: int = 0
    """A token expires after so many requests; 0: never."""
    is_down: bool = False
    """The compute resource says `down`."""


@dataclass
class _Job:
    id: str
    spec: Spec
    process: subprocess.Popen[bytes] | None = None
    state: str = "queued"
    message: str = ""
    exit_code: int | None = None
    asked: int = 0


@dataclass
class _Site:
    folder: Path
    faults: Faults = field(default_factory=Faults)
    jobs: dict[str, _Job] = field(default_factory=dict)
    keys: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    token: str = ""
    uses: int = 0
    renewals: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    # ---- jobs

    def submit(self, spec: Spec) -> dict[str, Any]:
        job = _Job(f"job-{len(self.jobs) + 1}", spec)
        self.jobs[job.id] = job
        return {"id": job.id, "status": {"state": "new"}}

    def seen(self, job: _Job, *, with_spec: bool = False) -> dict[str, Any]:
        """Return a job as the API shows it, moved on to where it is now."""
        self._advance(job)
        status = {"state": job.state, "time": time.time(), "message": job.message, "exit_code": job.exit_code}
        shown: dict[str, Any] = {"id": job.id, "status": status}
        return shown | ({"job_spec": job.spec.model_dump(exclude_unset=True)} if with_spec else {})

    def _advance(self, job: _Job) -> None:
        job.asked += 1
        if job.state in ("queued", "held"):
            job.state = "held" if self.faults.is_held else "queued"
            job.message = "JobHeldAdmin" if self.faults.is_held else "Priority"
            if self.faults.is_held or job.asked < 2:
                return
            if self.faults.node_failures:
                self.faults.node_failures -= 1
                job.state, job.message, job.exit_code = "failed", "NODE_FAIL", 1
                return
            self._start(job)
        if job.state == "active" and job.process is not None and (status := job.process.poll()) is not None:
            job.state, job.exit_code, job.message = ("failed" if status else "completed"), status, ""

    def _start(self, job: _Job) -> None:
        spec = job.spec
        with open(spec.stdout_path or os.devnull, "ab") as log:
            job.process = subprocess.Popen(  # noqa: S603 -- a test's own job
                [spec.executable or "true", *spec.arguments],
                cwd=spec.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **spec.environment, "SLURM_JOB_ID": job.id},
                process_group=0,
            )
        job.state, job.message = "active", ""

    def cancel(self, job: _Job) -> None:
        self._advance(job)
        if job.state not in _OVER:
            if job.process is not None:
                job.process.kill()
                job.process.wait()
            job.state, job.message = "canceled", "by the user"

    # ---- files

    def begin(self, operation: Callable[[], Any]) -> dict[str, Any]:
        """Do an operation of the file system; return the task that a client asks for."""
        task_id = secrets.token_hex(8)
        task: dict[str, Any] = {"id": task_id, "status": "pending"}
        if self.faults.endless_tasks:
            self.faults.endless_tasks -= 1
        else:
            try:
                task |= {"end": "completed", "result": {"output": operation()}}
            except OSError as error:
                task |= {"end": "failed", "result": {"error": str(error)}}
        self.tasks[task_id] = task
        return {"task_id": task_id, "task_uri": f"/task/{task_id}"}

    def ask(self, task_id: str) -> dict[str, Any]:
        """Return a task; each question moves it on by one state."""
        task = self.tasks.get(task_id)
        if task is None:
            raise HTTPException(404, f"Task {task_id} not found")
        after = {"pending": "active", "active": task.get("end", "active")}
        task["status"] = after.get(task["status"], task["status"])
        shown = {"id": task_id, "status": task["status"]}
        return shown | ({"result": task["result"]} if task["status"] in ("completed", "failed") else {})

    def path(self, text: str) -> Path:
        """Return a path of the site; one outside its folder is refused, as another user's would be."""
        path = Path(os.path.normpath(text))
        if not path.is_relative_to(self.folder):
            raise PermissionError(13, "Permission denied", text)
        return path


class IriServer:
    """The facility, listening on this machine while the context is open. Its files are below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "site"
        self.folder.mkdir(parents=True)
        self.token_file = folder / "token"
        self._site = _Site(self.folder)
        self.renew()
        config = uvicorn.Config(_app(self), host="127.0.0.1", port=0, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self.requests: list[str] = []
        """Method and path of every request so far."""

    @property
    def faults(self) -> Faults:
        """What goes wrong."""
        return self._site.faults

    @property
    def jobs(self) -> list[str]:
        """The state of every job that was submitted, in order."""
        return [job.state for job in self._site.jobs.values()]

    @property
    def renewals(self) -> int:
        """How often a new token was issued."""
        return self._site.renewals

    def renew(self) -> None:
        """Issue a new token and write it where the client looks."""
        self._site.token = secrets.token_hex(16)
        self._site.uses = 0
        self._site.renewals += 1
        self.token_file.write_text(self._site.token + "\n")

    @property
    def url(self) -> str:
        """Address of the API."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/api/v1"

    def __enter__(self) -> IriServer:
        self._thread.start()
        deadline = time.monotonic() + 30
        while not self._server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        return self

    def __exit__(self, *exc: object) -> None:
        for job in self._site.jobs.values():
            if job.process is not None and job.process.poll() is None:
                job.process.kill()
                job.process.wait()
        self._server.should_exit = True
        self._thread.join(timeout=30)


def problem(status: int, detail: Any, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error as RFC 9457 has it."""
    content = {"type": "about:blank", "title": "Error", "status": status, "detail": detail, "instance": ""}
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def _app(server: IriServer) -> FastAPI:
    app, site = FastAPI(), server._site

    @app.exception_handler(HTTPException)
    async def refuse(_request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, error.detail, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        return problem(422, str(error.errors()))

    @app.middleware("http")
    async def count(request: Request, answer: Any) -> Any:
        server.requests.append(f"{request.method} {request.url.path}")
        if site.faults.bursts:
            site.faults.bursts -= 1
            return problem(503, "Service Unavailable")
        return await answer(request)

    def signed_in(authorization: str = Header("")) -> None:
        site.uses += 1
        limit = site.faults.requests_per_token
        if authorization != f"Bearer {site.token}" or (limit and site.uses > limit):
            if limit and site.uses > limit:
                server.renew()
            raise HTTPException(401, "Bearer token is missing or invalid.")

    _status_routes(app, site)
    _compute_routes(app, site, signed_in)
    _file_routes(app, site, signed_in)
    return app


def _status_routes(app: FastAPI, site: _Site) -> None:
    def resource(name: str) -> dict[str, Any]:
        is_down = site.faults.is_down and name == COMPUTE
        kind = "compute" if name == COMPUTE else "filesystem"
        return {
            "id": name,
            "name": name,
            "current_status": "down" if is_down else "up",
            "resource_type": f"urn:doe-iri:resource:{kind}",
            "supported_endpoints": [kind],
        }

    @app.get("/api/v1/status/resources")
    def resources() -> list[dict[str, Any]]:
        return [resource(COMPUTE), resource(FILES)]

    @app.get("/api/v1/status/resources/{name}")
    def one(name: str) -> dict[str, Any]:
        return resource(_known(name, COMPUTE, FILES))


def _known(name: str, *known: str) -> str:
    if name not in known:
        raise HTTPException(404, f"Resource {name} not found")
    return name


def _compute_routes(app: FastAPI, site: _Site, signed_in: Any) -> None:
    guarded = [Depends(signed_in)]

    @app.post("/api/v1/compute/job/{name}", dependencies=guarded)
    def submit(
        name: str, spec: Spec, key: Annotated[str | None, Header(alias="Idempotency-Key")] = None
    ) -> dict[str, Any]:
        _known(name, COMPUTE)
        digest = hashlib.sha256(json.dumps(spec.model_dump(), sort_keys=True).encode()).hexdigest()
        with site.lock:
            if key and site.faults.keeps_no_keys:
                raise HTTPException(501, "Idempotency-Key provided but no idempotency store is configured.")
            if key and site.faults.in_flight:
                site.faults.in_flight -= 1
                raise HTTPException(
                    409, "A request with this Idempotency-Key is in progress.", {"Retry-After": "1"}
                )
            if key and key in site.keys:
                if site.keys[key][0] != digest:
                    raise HTTPException(422, "Idempotency-Key reused with a different request body.")
                return site.keys[key][1]
            answer = site.submit(spec)
            if key:
                site.keys[key] = (digest, answer)
            if site.faults.lost_answers:
                site.faults.lost_answers -= 1
                raise HTTPException(504, "Gateway Timeout")
            return answer

    @app.get("/api/v1/compute/status/{name}/{job_id}", dependencies=guarded)
    def status(name: str, job_id: str, include_spec: bool = False) -> dict[str, Any]:
        with site.lock:
            return site.seen(_job(site, name, job_id), with_spec=include_spec)

    @app.post("/api/v1/compute/status/{name}", dependencies=guarded)
    def statuses(
        name: str,
        offset: int = Query(0, ge=0),
        limit: int = Query(100, ge=0, le=1000),
        historical: bool = False,
        include_spec: bool = False,
    ) -> list[dict[str, Any]]:
        _known(name, COMPUTE)
        with site.lock:
            jobs = [job for job in site.jobs.values() if historical or job.state not in _OVER]
            page = jobs[offset : offset + limit]
            return [site.seen(job, with_spec=include_spec) for job in page]

    @app.delete("/api/v1/compute/cancel/{name}/{job_id}", dependencies=guarded, status_code=204)
    def cancel(name: str, job_id: str) -> None:
        with site.lock:
            site.cancel(_job(site, name, job_id))


def _job(site: _Site, name: str, job_id: str) -> _Job:
    _known(name, COMPUTE)
    if job_id not in site.jobs:
        raise HTTPException(404, f"Job {job_id} not found")
    return site.jobs[job_id]


def _file_routes(app: FastAPI, site: _Site, signed_in: Any) -> None:
    guarded, at = [Depends(signed_in)], "/api/v1/filesystem"

    @app.post(f"{at}/mkdir/{{name}}", dependencies=guarded, status_code=201)
    def mkdir(name: str, body: MakeFolderBody) -> dict[str, Any]:
        _known(name, FILES)
        return site.begin(
            lambda: _shown(_made(site.path(body.path), parents=body.parent)),
        )

    @app.post(f"{at}/ls/{{name}}", dependencies=guarded)
    def ls(name: str, body: ListBody) -> dict[str, Any]:
        _known(name, FILES)
        return site.begin(
            lambda: [
                _shown(each)
                for each in sorted(site.path(body.path).iterdir())
                if body.show_hidden or not each.name.startswith(".")
            ]
        )

    @app.post(f"{at}/checksum/{{name}}", dependencies=guarded)
    def checksum(name: str, body: PathBody) -> dict[str, Any]:
        _known(name, FILES)

        def found() -> dict[str, str]:
            digest = hashlib.sha256(site.path(body.path).read_bytes()).hexdigest()
            return {"algorithm": "SHA-256", "checksum": digest}

        return site.begin(found)

    @app.post(f"{at}/rm/{{name}}", dependencies=guarded)
    def rm(name: str, body: PathBody) -> dict[str, Any]:
        _known(name, FILES)
        return site.begin(lambda: _removed(site.path(body.path)))

    @app.post(f"{at}/mv/{{name}}", dependencies=guarded, status_code=201)
    def mv(name: str, body: MoveBody) -> dict[str, Any]:
        _known(name, FILES)
        return site.begin(lambda: _shown(site.path(body.path).replace(site.path(body.target_path))))

    @app.post(f"{at}/download/{{name}}", dependencies=guarded)
    def download(name: str, body: PathBody) -> dict[str, Any]:
        _known(name, FILES)
        return site.begin(lambda: base64.b64encode(_small(site.path(body.path).read_bytes())).decode())

    @app.post(f"{at}/upload/{{name}}", dependencies=guarded)
    def upload(name: str, path: str, file: UploadFile) -> dict[str, Any]:
        _known(name, FILES)
        content = file.file.read()
        if len(content) > LIMIT:
            raise HTTPException(413, "File to upload is too large.")
        if site.faults.corrupted:
            site.faults.corrupted -= 1
            content = bytes(len(content))
        return site.begin(lambda: str(site.path(path).write_bytes(content)))

    @app.get("/api/v1/task/{task_id}", dependencies=guarded)
    def task(task_id: str) -> dict[str, Any]:
        return site.ask(task_id)

    @app.delete("/api/v1/task/{task_id}", dependencies=guarded)
    def forget(task_id: str) -> str:
        site.tasks.pop(task_id, None)
        return f"Task {task_id} deleted successfully"


def _small(content: bytes) -> bytes:
    if len(content) > LIMIT:
        raise OSError(27, "File too large")
    return content


def _made(path: Path, *, parents: bool) -> Path:
    path.mkdir(parents=parents, exist_ok=parents)
    return path


def _removed(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _shown(path: Path) -> dict[str, str]:
    """Return a file as the API shows it."""
    found = path.stat()
    return {
        "name": path.name,
        "type": "directory" if path.is_dir() else "file",
        "user": str(found.st_uid),
        "group": str(found.st_gid),
        "permissions": f"{found.st_mode & 0o777:o}",
        "last_modified": datetime.fromtimestamp(found.st_mtime, UTC).isoformat(),
        "size": str(found.st_size),
    }
