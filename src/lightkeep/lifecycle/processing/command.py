"""A command as a stage of a flow: any program, started without a shell, whose files become a derived dataset.

The program gets the paths of what it works on, the folder to write in, and the values of its declared inputs, each
as one argument; an environment without anything of ours; no standard input. What it prints is `command.log` beside
its files. When the worker dies the program is killed, and started again from the beginning by the next one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle.processing import run_log
from lightkeep.lifecycle.processing.results import keep_result
from lightkeep.lifecycle.replicas import locate
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import RunCancelled, RunFailed
from lightkeep.model.people import SERVICE
from lightkeep.policy import workflow_document

if TYPE_CHECKING:
    from lightkeep.facility import Facility
    from lightkeep.lifecycle.processing.scratch import Scratch
    from lightkeep.lifecycle.processing.watch import Watch
    from lightkeep.model.runs import Run
    from lightkeep.model.workflows import Stage

LOG: Final = "command.log"
_LOOK_S: Final = 0.05
_LAST: Final = 4_000  # bytes of the log that are looked at for the reason of a failure
_START: Final = (
    "import os, sys\n"
    "from lightkeep.engines.worker import die_with\n"
    "die_with(int(sys.argv[1]))\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)


def make(facility: Facility, run: Run, scratch: Scratch, watch: Watch) -> Dataset:
    """Run the command of a run's stage; return the derived dataset. Called again, it begins where that is known.

    Raises
    ------
    RunFailed: the program does not exist, ended with an error, or did not write what it was to write.
    RunCancelled: somebody ended the run.
    """
    from lightkeep.lifecycle.processing.scratch import Plan

    view = facility.catalog.view(SERVICE)
    flow = view.flow(run.flow_id)
    stage = workflow_document.adopted(view.workflow_version(flow.workflow_id, flow.version)).stage(run.stage)
    source = view.dataset(run.dataset_id)
    values = workflow_document.values_of(stage, run.params)
    if not scratch.is_planned():
        plan = Plan(params=values, cuts=[(0, 1)], shapes={}, dtypes={}, engine="inline")
        scratch.save_plan(plan, with_arrays=False)
    watch.change(resolved=values, engine="inline")
    if not scratch.result.is_dir():
        watch.begin("running the command", 0.05, 0.9)
        part = scratch.folder / "part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        main = locate.local_path(facility, source.id, source.main_file)
        places = {"input": main, "folder": main.parent, "output": part, **values}
        places |= {key: part / name for key, name in stage.outputs.items()}
        _perform(run, stage, workflow_document.filled(stage.command, places), part, watch)
        scratch.publish(part, [*stage.outputs.values(), LOG])
    watch.begin("storing the result", 0.9, 1.0)
    return keep_result(facility, run, [source], scratch)


def _perform(run: Run, stage: Stage, command: list[str], folder: Path, watch: Watch) -> None:
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "LIGHTKEEP_RUN": run.id,
    }
    if shutil.which(command[0], path=environment["PATH"]) is None:
        raise RunFailed(
            f"stage {stage.name}: there is no program {command[0]!r} here",
            remedy="install it on the workers' hosts",
        )
    start = [sys.executable, "-c", _START, str(os.getpid()), *command]
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 -- a list, adopted by a manager; no shell
            start,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                if watch.is_set():
                    raise RunCancelled("cancelled")
                time.sleep(_LOOK_S)
        finally:
            with suppress(ProcessLookupError):  # also what it started and left behind
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            printed = (folder / LOG).read_bytes().decode("utf-8", "replace")
            run_log.say(folder.parent, "command", "error" if process.returncode else "info", printed)
    if process.returncode:
        raise RunFailed(
            f"stage {stage.name}: {_reason(process.returncode, folder / LOG)}", remedy="see its command"
        )
    for name in stage.outputs.values():
        if not (folder / name).is_file():
            raise RunFailed(
                f"stage {stage.name}: it ended well but wrote no file {name}", remedy="see its command"
            )


def _reason(code: int, log: Path) -> str:
    said = log.read_bytes()[-_LAST:].decode("utf-8", "replace").strip().splitlines()
    last = "".join(c if c.isprintable() else " " for c in said[-1])[:300] if said else "it said nothing"
    how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
    return f"{how}: {last}"
