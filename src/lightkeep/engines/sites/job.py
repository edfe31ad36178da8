"""What runs at the site: unpack, compute, pack what changed. It needs Lightkeep and the staging area only.

Started by the site's batch system as `python -m lightkeep.engines.sites.job AREA RUN ORDER`.

    runs/<run>/owner      id of the job that does the work: a second one of the same run does nothing
    runs/<run>/files/     the files that the tasks read
    runs/<run>/work/      the folder that they work in
    runs/<run>/unpacked   both are complete
    runs/<run>/out.json   how it ended, and what changed; written last

Queued again after a preemption or a lost node, it goes on with the pieces that are done.

`out.json` is sealed with a key that came with the job, not through the staging area, and names by content all that
belongs to the result; the folder of the run is this account's alone. So who can write to the staging area can
spoil a run, and cannot make its result.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from lightkeep.engines.processes import ProcessEngine
from lightkeep.engines.sites.packing import (
    OBJECTS,
    Packed,
    checked,
    dump,
    load,
    pack,
    regular_files,
    sealed,
    sha256,
    unpack,
)
from lightkeep.model.errors import Corrupt, LightkeepError

READS = "@reads"
WORK = "@work"
KEY = "LIGHTKEEP_SITE_KEY"
"""Variable of the job's environment: the key that seals its result."""
_LOOK_S = 2.0


class _Missing(LightkeepError):
    code = "storage"


def main(area: Path, run: str, order_name: str) -> None:
    """Do one order."""
    os.umask(0o077)
    folder = area / "runs" / run
    if not _owns(folder, _job_id()):
        print("another job does this work already; waiting for it")  # noqa: T201 -- the job's log
        while not (folder / "out.json").exists():
            time.sleep(_LOOK_S)
        return
    try:
        out = _work(area, folder, order_name)
    except (_Missing, Corrupt) as error:
        print(error.message)  # noqa: T201 -- the job's log
        out = {"state": "lost", "message": error.message}
    _write(folder / "out.json", sealed(out, os.environ[KEY]))


def _work(area: Path, folder: Path, order_name: str) -> dict[str, Any]:
    order = json.loads(_object(area, order_name))
    reads = [Packed.from_json(each) for each in order["reads"]]
    work = [Packed.from_json(each) for each in order["work"]]
    begun = time.monotonic()
    if not (folder / "unpacked").exists():
        for target, files in (("files", reads), ("work", work)):
            (folder / target).mkdir(parents=True, exist_ok=True)
            for each in files:
                path = folder / target / each.path
                unpack(each, path, lambda name: _object(area, name), chunk=order["chunk"], old=None)
        _write(folder / "unpacked", b"")
    sys.path.extend(each for each in order["sys_path"] if each not in sys.path and Path(each).is_dir())
    tasks = load(_object(area, order["tasks"]), lambda token: _resolved(folder, token))
    started = time.monotonic()
    answer, state = _compute(tasks, order)
    ended = time.monotonic()
    (folder / "answer").write_bytes(dump(answer, {str(folder / "files"): READS, str(folder / "work"): WORK}))
    made = _pack_changes(area, folder, work, order["chunk"])
    return {
        "state": state,
        "answer": _pack_one(area, folder / "answer", "answer", order["chunk"]).to_json(),
        "changed": [each.to_json() for each in made],
        "compute_s": ended - started,
        "unpack_s": started - begun,
    }


def _resolved(folder: Path, token: str) -> str:
    root, _, rest = token.partition("/")
    return str(folder / {READS: "files", WORK: "work"}[root] / rest)


def _compute(tasks: Any, order: dict[str, Any]) -> tuple[Any, str]:
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK", "0")) or order["cores"] or len(os.sched_getaffinity(0))
    engine = ProcessEngine(workers=order["processes"] or cores, cores=cores)
    try:
        return engine.map(tasks), "done"
    except LightkeepError as error:
        print(f"{error.message}\n{error.data.get('traceback', '')}")  # noqa: T201 -- the job's log
        return error, "failed"


def _pack_changes(area: Path, folder: Path, before: list[Packed], chunk: int) -> list[Packed]:
    """Put what differs into the staging area: changed files first, then new ones, each in the order of writing.

    A piece is marked as done by a file of its own that is new, after its values are in one that was there.
    """
    known = {each.path: each for each in before}
    files = sorted(
        regular_files(folder / "work"), key=lambda file: (file.name not in known, file.stat().st_mtime_ns)
    )
    made = [_pack_one(area, file, file.name, chunk) for file in files]
    return [each for each in made if each != known.get(each.path)]


def _pack_one(area: Path, file: Path, path: str, chunk: int) -> Packed:
    """Pack a file into the staging area, chunks that are there excepted."""
    packed = pack(file, path, chunk=chunk)
    with file.open("rb") as opened:
        for name in packed.chunks:
            content = opened.read(chunk)
            if not (area / OBJECTS / name).exists():
                _write(area / OBJECTS / name, content)
    return packed


def _object(area: Path, name: str) -> bytes:
    try:
        return checked((area / OBJECTS / name).read_bytes(), name)
    except OSError as error:
        raise _Missing(f"the staging area lost {name[:16]}: {error.strerror}") from error
    except Corrupt:
        (area / OBJECTS / name).unlink(missing_ok=True)  # a copy of ours: it is sent again
        raise


def _owns(folder: Path, job_id: str) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # refused where it is another account's
    try:
        with (folder / "owner").open("x") as file:
            file.write(job_id)
    except FileExistsError:
        return (folder / "owner").read_text() == job_id
    return True


def _job_id() -> str:
    """Return what the batch system calls this job; the same after it was queued again."""
    names = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
    return next((os.environ[name] for name in names if name in os.environ), "job")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{sha256(content)[:8]}")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
