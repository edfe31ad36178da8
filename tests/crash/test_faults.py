"""Ingest while the system says no, or says yes and does nothing: no false success, and the next run finishes."""

from __future__ import annotations

import os
import subprocess
from collections import Counter

import pytest

from lightkeep.model.clock import SystemIds
from lightkeep.model.errors import StoreFull
from lightkeep.model.people import SERVICE

BARRIERS = ("fsync", "fdatasync", "syncfs", "sync_file_range", "msync")


def finishes_after(bench) -> list[str]:
    """Ingest again without faults; return what is wrong then."""
    return [*bench.wrong(), *([] if bench.ingest() == 0 else [bench.error()]), *bench.wrong(), *bench.unfinished()]


@pytest.mark.crash
@pytest.mark.parametrize("call", ["write", "pwrite64", "renameat2", "mkdirat", "ftruncate"])
@pytest.mark.parametrize("when", [1, 2])
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.fault
def test_an_error_of_the_disk_is_never_success(bench, call, when, error, figure):
    bench.fresh()
    code, _ = bench.traced(inject=f"{call}:error={error}:when={when}+", trace=call)
    assert code != 0 or bench.unfinished() == []  # SQLite may go on where only its housekeeping failed
    assert finishes_after(bench) == []
    fault = "F4" if error == "ENOSPC" else "F5"
    figure(
        fault, injected=f"{error} at {call}, from the {when}. on", found="no false success; the next run finishes"
    )


@pytest.mark.crash
@pytest.mark.parametrize("call", ["write", "renameat2", "mkdirat"])
def test_a_full_store_is_said_with_a_remedy(bench, call):
    bench.fresh()
    code, _ = bench.traced(inject=f"{call}:error=ENOSPC:when=1", trace=call)
    assert code == 3
    assert bench.error().startswith("store_full: ")
    assert "free space" in bench.error()


@pytest.mark.crash
@pytest.mark.parametrize("call", ["fsync", "syncfs", "fdatasync"])
@pytest.mark.parametrize("when", [1, 3])  # the second fdatasync is of a folder: SQLite ignores its error
@pytest.mark.fault
def test_a_failed_sync_is_never_success(bench, call, when, figure):
    bench.fresh()
    code, _ = bench.traced(inject=f"{call}:error=EIO:when={when}", trace=call)
    assert code != 0
    assert finishes_after(bench) == []
    figure("F5", injected=f"EIO at {call}", found="never taken for success; the next run finishes")


@pytest.mark.crash
@pytest.mark.parametrize("when", [1, 2, 9, 20])
@pytest.mark.fault
def test_a_write_that_lies_is_found_by_reading_back(bench, when, figure):
    bench.fresh()
    bench.traced(trace="write")
    honest = bench.returned("write")  # with one thread the same writes come again
    bench.fresh()
    code, _ = bench.traced(inject=f"write:retval={honest[when - 1]}:when={when}", trace="write")
    assert code == 3
    assert "other bytes than were written" in bench.error()
    assert finishes_after(bench) == []
    figure("F6", injected="a write that keeps nothing and reports success", found="found by the read-back, 4 of 4")


@pytest.mark.crash
def test_a_group_costs_at_most_four_barriers(bench):
    bench.fresh()
    code, calls = bench.traced()
    assert code == 0
    made = Counter(calls)
    catalog = bench.catalog()
    groups = sum(event.verb == "dataset.files_added" for event in catalog.view(SERVICE).events(limit=1000))
    catalog.close()
    assert groups == 5
    records = 14  # once for a dataset: its document, and the anchor's three, in folders that are new
    assert sum(made[call] for call in BARRIERS) <= 4 * groups + records


@pytest.mark.crash
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("options", ["size=256k", "size=64m,nr_inodes=12"])
def test_a_store_without_room_keeps_nothing_of_the_group_and_goes_on_when_there_is_room(bench, tmp_path, options):
    import io

    from lightkeep.storage.posix import PosixStore

    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)], check=True)
    try:
        store = PosixStore(PosixStore.initialise(tmp_path, "small", ids=SystemIds()))
        content = {f"f/{number}": os.urandom(20_000) for number in range(40)}
        with store.stage() as staging, pytest.raises(StoreFull) as caught:  # noqa: PT012 (any of them may be it)
            for key, each in content.items():
                staging.write(key, io.BytesIO(each), size=len(each))
        assert "free space" in caught.value.remedy
        assert list(store.list()) == []
        with store.stage() as staging:
            staging.write("one", io.BytesIO(b"1"), size=1)
            staging.sync()
            staging.verify()
            staging.publish()
        assert [each.key for each in store.list()] == ["one"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
