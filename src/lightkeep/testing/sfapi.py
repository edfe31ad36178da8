"""NERSC's Superfacility API, in this process: its routes, its tokens, its tasks and its faults.

    with SfapiServer(tmp_path) as server:
        server.faults.bursts = 3             the next three answers are 503
        SfapiSite(key=str(server.key), url=server.url, token_url=server.token_url, staging=..., ...)

Jobs and commands run as processes of this machine. Routes and shapes are those that `sfapi-client` 0.6.0 (models
made from the API's own description, 1.2, of 2025-02-20) asks for; a token is given for a signed JWT only.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Form, Header, HTTPException, Query, Request, UploadFile
from fastapi.responses import JSONResponse
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

MACHINE = "perlmutter"
USER = "beamline"
_CLIENT = "lightkeepapi1"
"""Thirteen characters, as the API's client wants them."""
_OVER = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT")


@dataclass
class Faults:
    """What goes wrong; set from a test at any time."""

    bursts: int = 0
    """So many of the next answers are 503."""
    lost_answers: int = 0
    """So many of the next submissions are done, and answered with 504."""
    is_held: bool = False
    """New jobs are held until this is False again."""
    node_failures: int = 0
    """So many of the next jobs end with NODE_FAIL, without running."""
    endless_tasks: int = 0
    """So many of the next tasks never end, and do nothing."""
    corrupted: int = 0
    """So many of the next uploads store other bytes."""
    requests_per_token: int = 0
    """A token is withdrawn after so many requests; 0: never."""
    token_s: float = 600.0
    """How long a token holds."""
    is_down: bool = False
    """The machine is `unavailable`."""
    refusal: str = ""
    """What sbatch says to every job; empty: it takes them."""


@dataclass
class _Job:
    id: str
    script: str
    state: str = "PENDING"
    reason: str = "Priority"
    asked: int = 0
    process: subprocess.Popen[bytes] | None = None

    def option(self, name: str) -> str:
        found = re.search(rf"^#SBATCH --{name}=(.*)$", self.script, re.MULTILINE)
        return found[1] if found else ""


@dataclass
class _Site:
    folder: Path
    faults: Faults = field(default_factory=Faults)
    jobs: dict[str, _Job] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    """Token -> when it ends."""
    uses: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def begin(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Begin a task; return what a client is told of it."""
        task_id = str(len(self.tasks) + 1)
        if self.faults.endless_tasks:
            self.faults.endless_tasks -= 1
            self.tasks[task_id] = {"asked": 0, "result": None}
        else:
            self.tasks[task_id] = {"asked": 0, "result": json.dumps(work())}
        return {"task_id": task_id, "status": "OK", "error": None}

    def submit(self, script: str) -> dict[str, Any]:
        if self.faults.refusal:
            return {"status": "error", "jobid": None, "output": "", "error": self.faults.refusal}
        job = _Job(str(1000 + len(self.jobs)), script)
        self.jobs[job.id] = job
        return {"status": "ok", "jobid": job.id, "error": None}

    def advance(self, job: _Job) -> _Job:
        """Move a job on to where it is now."""
        job.asked += 1
        if job.state == "PENDING":
            job.reason = "JobHeldAdmin" if self.faults.is_held else "Priority"
            if self.faults.is_held or job.asked < 2:
                return job
            if self.faults.node_failures:
                self.faults.node_failures -= 1
                job.state, job.reason = "NODE_FAIL", ""
                return job
            self._start(job)
        if job.state == "RUNNING" and job.process is not None and (status := job.process.poll()) is not None:
            job.state = "FAILED" if status else "COMPLETED"
        return job

    def _start(self, job: _Job) -> None:
        with open(job.option("output") or os.devnull, "ab") as log:
            job.process = subprocess.Popen(  # noqa: S603 -- a test's own job
                ["/bin/sh", "-c", job.script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "SLURM_JOB_ID": job.id},
                process_group=0,
            )
        job.state, job.reason = "RUNNING", ""

    def cancel(self, job: _Job) -> None:
        if self.advance(job).state not in _OVER:
            if job.process is not None:
                job.process.kill()
                job.process.wait()
            job.state, job.reason = "CANCELLED", ""

    def path(self, text: str) -> Path:
        """Return a path of the site; one outside its folder is refused, as another user's would be."""
        path = Path(os.path.normpath("/" + text.lstrip("/")))
        if not path.is_relative_to(self.folder):
            raise PermissionError(13, "Permission denied", text)
        return path


class SfapiServer:
    """The API, listening on this machine while the context is open. Its files are below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "site"
        self.folder.mkdir(parents=True)
        self.key = folder / "client.json"
        secret = RSAKey.generate_key(2048)
        self.public = RSAKey.import_key(secret.as_dict(private=False))
        self.key.touch(mode=0o600)
        self.key.write_text(json.dumps({"client_id": _CLIENT, "secret": secret.as_dict(private=True)}))
        self._site = _Site(self.folder)
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
    def scripts(self) -> list[str]:
        """The batch script of every job."""
        return [job.script for job in self._site.jobs.values()]

    @property
    def tokens(self) -> int:
        """How many tokens were given."""
        return len(self._site.tokens)

    @property
    def url(self) -> str:
        """Address of the API."""
        return f"{self._address}/api/v1.2"

    @property
    def token_url(self) -> str:
        """Where tokens come from."""
        return f"{self._address}/c2id/token"

    @property
    def _address(self) -> str:
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def __enter__(self) -> SfapiServer:
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


def _app(server: SfapiServer) -> FastAPI:
    app, site = FastAPI(), server._site

    @app.middleware("http")
    async def count(request: Request, answer: Any) -> Any:
        server.requests.append(f"{request.method} {request.url.path}")
        if site.faults.bursts:
            site.faults.bursts -= 1
            return JSONResponse({"detail": "Service Unavailable"}, 503)
        return await answer(request)

    @app.post("/c2id/token")
    def token(
        grant_type: Annotated[str, Form()],
        client_assertion: Annotated[str, Form()],
        client_assertion_type: Annotated[str, Form()],
    ) -> Any:
        claims = _claims(client_assertion, server)
        kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        if grant_type != "client_credentials" or client_assertion_type != kind or claims is None:
            return JSONResponse({"error": "invalid_client", "error_description": "Bad signature"}, 401)
        given, site.uses = secrets.token_hex(16), 0
        site.tokens[given] = time.time() + site.faults.token_s
        return {"access_token": given, "token_type": "Bearer", "expires_in": site.faults.token_s}

    def signed_in(authorization: str = Header("")) -> None:
        site.uses += 1
        limit = site.faults.requests_per_token
        ends = site.tokens.get(authorization.removeprefix("Bearer "), 0.0)
        if ends < time.time() or (limit and site.uses > limit):
            raise HTTPException(401, "Not authenticated")

    guarded = FastAPI(dependencies=[Depends(signed_in)])
    _job_routes(guarded, site)
    _file_routes(guarded, site)
    app.mount("/api/v1.2", guarded)
    return app


def _claims(assertion: str, server: SfapiServer) -> dict[str, Any] | None:
    """Return the claims of a JWT that this client signed for this server; None for any other."""
    registry = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": _CLIENT},
        sub={"essential": True, "value": _CLIENT},
        aud={"essential": True, "value": server.token_url},
        exp={"essential": True},
    )
    try:
        decoded = jwt.decode(assertion, server.public, algorithms=["RS256"])
        registry.validate(decoded.claims)
    except (JoseError, ValueError):
        return None
    return dict(decoded.claims)


def _job_routes(app: FastAPI, site: _Site) -> None:
    @app.get("/status/{machine}")
    def status(machine: str) -> dict[str, Any]:
        is_down = site.faults.is_down
        notes = ["Scheduled maintenance"] if is_down else []
        return {"name": _known(machine), "status": "unavailable" if is_down else "active", "notes": notes}

    @app.get("/account/")
    def account() -> dict[str, Any]:
        return {"uid": 1, "name": USER}

    @app.post("/compute/jobs/{machine}")
    def submit(machine: str, job: Annotated[str, Form()], isPath: Annotated[bool, Form()]) -> Any:
        _known(machine)
        if isPath or not job.startswith("#!"):
            return {"task_id": "", "status": "ERROR", "error": "no such script"}
        with site.lock:
            answer = site.begin(lambda: site.submit(job))
            if site.faults.lost_answers:
                site.faults.lost_answers -= 1
                raise HTTPException(504, "Gateway Timeout")
            return answer

    @app.get("/compute/jobs/{machine}")
    def jobs(
        machine: str, sacct: bool = False, kwargs: Annotated[list[str] | None, Query()] = None
    ) -> dict[str, Any]:
        _known(machine)
        asked = dict(each.split("=", 1) for each in kwargs or ())
        ids = asked["jobid"].split(",") if "jobid" in asked else None
        with site.lock:
            found = [site.advance(job) for job in list(site.jobs.values()) if ids is None or job.id in ids]
        if asked.get("user", USER) != USER:
            found = []
        if sacct:
            rows = [{"jobid": job.id, "jobname": job.option("job-name"), "state": job.state} for job in found]
        else:
            rows = [
                {"jobid": job.id, "name": job.option("job-name"), "state": job.state, "reason": job.reason}
                for job in found
                if job.state not in _OVER
            ]
        return {"status": "OK", "output": rows, "error": None}

    @app.delete("/compute/jobs/{machine}/{job_id}")
    def cancel(machine: str, job_id: str) -> dict[str, Any]:
        _known(machine)
        if job_id not in site.jobs:
            raise HTTPException(404, f"no job {job_id}")
        with site.lock:
            site.cancel(site.jobs[job_id])
        return {"status": "OK", "output": None, "error": None}

    @app.get("/tasks/{task_id}")
    def task(task_id: str) -> dict[str, Any]:
        if task_id not in site.tasks:
            raise HTTPException(404, f"no task {task_id}")
        found = site.tasks[task_id]
        found["asked"] += 1
        is_over = found["result"] is not None and found["asked"] > 1
        return {
            "id": task_id,
            "status": "completed" if is_over else "new",
            "result": found["result"] if is_over else None,
        }

    @app.delete("/tasks/{task_id}")
    def forget(task_id: str) -> None:
        site.tasks.pop(task_id, None)


def _file_routes(app: FastAPI, site: _Site) -> None:
    @app.post("/utilities/command/{machine}")
    def command(machine: str, executable: Annotated[str, Form()]) -> dict[str, Any]:
        _known(machine)

        def run() -> dict[str, Any]:
            done = subprocess.run(  # noqa: S603 -- a test's own command
                ["/bin/bash", "-c", executable], capture_output=True, text=True, timeout=60, check=False
            )
            return {"status": "ok", "output": done.stdout, "error": None}

        return site.begin(run)

    @app.put("/utilities/upload/{machine}/{path:path}")
    def upload(machine: str, path: str, file: UploadFile) -> dict[str, Any]:
        _known(machine)
        content = file.file.read()
        if site.faults.corrupted:
            site.faults.corrupted -= 1
            content = bytes(len(content))
        try:
            site.path(path).write_bytes(content)
        except OSError as error:
            return {"status": "ERROR", "output": None, "error": str(error)}
        return {"status": "OK", "output": None, "error": None}

    @app.get("/utilities/download/{machine}/{path:path}")
    def download(machine: str, path: str, binary: bool = False) -> dict[str, Any]:
        _known(machine)
        try:
            content = site.path(path).read_bytes()
        except OSError as error:
            return {"status": "ERROR", "file": None, "is_binary": binary, "error": str(error)}
        shown = base64.b64encode(content).decode() if binary else content.decode()
        return {"status": "OK", "file": shown, "is_binary": binary, "error": None}


def _known(machine: str) -> str:
    if machine != MACHINE:
        raise HTTPException(404, f"no machine {machine}")
    return machine
