"""Every path by which bytes can go is known: a new one fails this test until somebody has thought about it."""

from __future__ import annotations

import ast
from pathlib import Path

import lightkeep

ROOT = Path(lightkeep.__file__).parent
CALLS = {"unlink", "rmtree", "rmdir", "removedirs", "truncate", "ftruncate", "destroy", "trash"}
KNOWN = {
    "acquisition/spool.py": {"unlink"},  # what an interrupted salvage wrote; the frames themselves stay
    "cli/demo.py": {"rmtree", "unlink"},  # the demo's own folder
    "engines/exchange.py": {"unlink"},  # the second name of a part
    "engines/sites/job.py": {"unlink"},  # a damaged copy in a site's staging area: it is sent again
    "engines/sites/packing.py": {"truncate"},  # a part
    "engines/sites/site.py": {"rmtree"},  # a temporary folder that the call itself made
    "engines/slurm.py": {"rmtree"},  # the same
    "lifecycle/processing/command.py": {"rmtree"},  # what an interrupted stage left in its run's scratch folder
    "lifecycle/replicas/export.py": {"truncate", "unlink"},  # parts in the person's folder
    "lifecycle/processing/pieces.py": {"rmtree"},  # a run's scratch folder
    "lifecycle/processing/process.py": {"rmtree"},
    "lifecycle/processing/scratch.py": {"rmtree"},
    "lifecycle/retention/purge.py": {"trash", "destroy"},  # out of sight; an emergency calls `purge_destroy`
    "lifecycle/retention/purge_destroy.py": {"destroy"},  # the one caller of `Store.destroy`
    "lifecycle/acquisitions/spooled.py": {
        "unlink"
    },  # a spool's file, after its copy and it were read: tests/lifecycle/test_spooled.py
    "lifecycle/upkeep.py": {"destroy"},  # calls `purge_destroy`
    "portal/plans.py": {"destroy"},  # calls `purge_destroy`
    "storage/plain.py": {"unlink"},  # parts that nobody can see yet
    "storage/posix.py": {"destroy", "trash"},  # to posix_trash
    "storage/posix_staging.py": {"rmdir", "unlink"},  # parts
    "storage/posix_trash.py": {"rmdir", "unlink"},  # what is in a bin, and the empty bin
    "storage/readback.py": {"ftruncate"},  # a buffer in memory
    "storage/syscalls.py": {"unlink"},  # the second name of a part, where rename cannot refuse to replace
    "workflow/orchestrator.py": {"destroy"},  # DBOS, in memory
    "workflow/presence.py": {"unlink"},  # workers' lock files, in the folder of locks
}
NOT_OURS = ("testing/", "analysis/")


def calls(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found |= {name} & CALLS
    return found


def test_every_call_that_removes_something_is_known() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): names
        for path in ROOT.rglob("*.py")
        if (names := calls(path)) and not path.relative_to(ROOT).as_posix().startswith(NOT_OURS)
    }
    unknown = {name: sorted(names - KNOWN.get(name, set())) for name, names in found.items()}
    assert {name: names for name, names in unknown.items() if names} == {}


def test_one_table_alone_makes_a_replica_deleted() -> None:
    """`DELETED` is written by the table of items in catalog/plans.py, and by a rebuild from its records."""
    writers = [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if ": ReplicaState.DELETED" in path.read_text() or "state=ReplicaState.DELETED" in path.read_text()
    ]
    assert sorted(writers) == ["catalog/plans.py", "lifecycle/replicas/rebuild.py"]
