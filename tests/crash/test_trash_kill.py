"""A move to the trash, back, and away, killed before each system call that changes something: nothing is lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lightkeep.model.clock import SystemIds
from lightkeep.model.errors import NotFound
from lightkeep.storage.posix import PosixStore
from lightkeep.testing.suites.objects import content_of, keep

CALLS = ("renameat2", "mkdirat", "mkdir", "fsync", "unlinkat", "unlink", "rmdir", "rename", "renameat")
WORK = """
import sys
from lightkeep.model.stores import StoreRecord
from lightkeep.storage.posix import PosixStore
store = PosixStore(StoreRecord("central", "posix", sys.argv[1], sys.argv[2]))
trashed = store.trash("a/b/x", bin="plan_1", size=7)
store.recover(trashed, "a/b/x")
trashed = store.trash("a/b/x", bin="plan_2", size=7)
store.write_record("datasets/r", b"after")
store.destroy(trashed)
"""


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: run scripts/install-services")
    return PosixStore(PosixStore.initialise(tmp_path / "store", "central", ids=SystemIds()))


def work(store: PosixStore, log: Path, *, inject: str = "") -> int:
    """Do it all in a process of its own; return its exit code, negative when it was killed."""
    traced = ",".join(f"?{call}" for call in CALLS)
    options = ["-e", f"inject={inject}"] if inject else []
    command = ["strace", "-f", "-qq", "-e", f"trace={traced}", *options, "-o", str(log)]
    victim = [sys.executable, "-B", "-c", WORK, store.record.location, store.record.uuid]
    return subprocess.run([*command, *victim], stderr=subprocess.DEVNULL).returncode


def fill(store: PosixStore) -> None:
    for name in os.listdir(store.record.location):
        if name not in (".incoming", ".lightkeep-store.json"):
            shutil.rmtree(Path(store.record.location, name))
    keep(store, a__b__x=b"content")
    store.write_record("datasets/r", b"before")


def found(store: PosixStore) -> list[bytes]:
    """The contents of every object and everything in the trash."""
    trash = [Path(store.record.location, each.key).read_bytes() for each in store.trashed()]
    return [content_of(store, each.key) for each in store.list()] + trash


@pytest.mark.crash
@pytest.mark.fault
def test_a_kill_at_any_call_loses_nothing_and_the_next_try_finishes(store, tmp_path, figure):
    fill(store)
    log = tmp_path / "trace"
    assert work(store, log) == 0
    points = [
        (call, when)
        for call, count in Counter(re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE)).items()
        for when in range(1, count + 1)
    ]
    assert {"renameat2", "fsync"} <= {call for call, _ in points}
    killed = 0
    for call, when in points:
        fill(store)
        killed += work(store, log, inject=f"{call}:signal=KILL:when={when}") != 0
        assert found(store) in ([b"content"], []), (call, when)
        if found(store) == []:
            assert store.read_record("datasets/r") == b"after"  # only the destroying of it was left
            continue
        assert store.read_record("datasets/r") in (b"before", b"after")
        for each in store.trashed():
            store.recover(each.key, "a/b/x")
        assert content_of(store, "a/b/x") == b"content"
        store.destroy(store.trash("a/b/x", bin="plan_3", size=7))
        with pytest.raises(NotFound):
            store.stat("a/b/x")
    assert killed == len(points) >= 15
    calls = ", ".join(sorted({call for call, _ in points}))
    figure(
        "F1",
        injected=f"kill -9 at all {len(points)} system calls ({calls}) of trash, undo, destroy",
        found=f"{killed} killed, 0 lost, 0 unfinished",
    )
