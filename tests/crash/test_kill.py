"""Ingest killed at every system call that changes something: nothing wrong is ever seen, the next run finishes."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest

POINTS = os.environ.get("LIGHTKEEP_CRASH_POINTS", "60")
"""How many of the points are taken, evenly; `all` takes each."""


def chosen(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Return (system call, its k-th time), the same share of each call's times."""
    points = [(call, k) for call, count in sorted(counts.items()) for k in range(1, count + 1)]
    if POINTS == "all":
        return points
    step = max(1.0, len(points) / int(POINTS))
    return [points[int(index * step)] for index in range(int(len(points) / step))]


@pytest.mark.crash
@pytest.mark.fault
def test_ingest_survives_a_kill_at_any_system_call(bench, capsys, figure):
    before = bench.source_status()
    bench.fresh()
    counts = bench.counts()
    points = chosen(counts)
    killed = 0
    for call, k in points:
        bench.fresh()
        code, _ = bench.traced(inject=f"{call}:signal=KILL:when={k}", trace=call)
        killed += code == -9
        assert (call, k, bench.wrong()) == (call, k, [])
        code = bench.ingest()
        assert (call, k, code, bench.wrong(), bench.unfinished()) == (call, k, 0, [], [])
    assert bench.source_status() == before
    assert killed == len(points), f"{killed} of {len(points)} points were reached"
    enumerated = f"{sum(counts.values())} system calls ({', '.join(sorted(counts))}) of an ingest"
    figure(
        "F1", injected=f"kill -9 at {len(points)} of {enumerated}", found=f"{killed} killed, 0 lost, 0 unfinished"
    )
    with capsys.disabled():
        sys.stdout.write(f"\nkilled at {killed} of {sum(counts.values())} points: {counts}\n")


@pytest.mark.crash
def test_ingest_survives_a_kill_while_one_group_is_published_and_the_next_is_copied(bench):
    overlapped = replace(bench, threads=2)
    bench.fresh()
    counts = overlapped.counts()
    killed = 0
    for call, count in sorted(counts.items()):
        for k in {1, count // 3, 2 * count // 3, count} - {0}:
            bench.fresh()
            code, _ = overlapped.traced(inject=f"{call}:signal=KILL:when={k}", trace=call)
            killed += code == -9  # the threads share the work anew each time: a thread's k-th call may not come
            assert (call, k, bench.wrong()) == (call, k, [])
            code = overlapped.ingest()
            assert (call, k, code, bench.wrong(), bench.unfinished()) == (call, k, 0, [], [])
    assert killed > len(counts)


@pytest.mark.crash
@pytest.mark.fault
def test_ingest_survives_a_second_kill_while_it_recovers_from_the_first(bench, figure):
    bench.fresh()
    counts = bench.counts()
    first = [("renameat2", max(1, counts["renameat2"] // 2)), ("fdatasync", 3), ("write", counts["write"] // 2)]
    pairs = 0
    for call, k in first:
        for again in ("openat", "write", "renameat2", "fdatasync", "unlinkat"):
            for when in (1, 4):
                bench.fresh()
                bench.traced(inject=f"{call}:signal=KILL:when={k}", trace=call)
                code, _ = bench.traced(inject=f"{again}:signal=KILL:when={when}", trace=again)
                pairs += code == -9
                assert (call, again, when, bench.wrong()) == (call, again, when, [])
                code = bench.ingest()
                assert (call, again, when, code, bench.wrong(), bench.unfinished()) == (
                    call,
                    again,
                    when,
                    0,
                    [],
                    [],
                )
    assert pairs > 15
    figure(
        "F2",
        injected="kill -9 of an ingest and of the one that goes on",
        found=f"{pairs} pairs, 0 lost, 0 unfinished",
    )


@pytest.mark.crash
def test_the_check_itself_sees_what_is_wrong(bench):
    bench.fresh()
    assert bench.ingest() == 0
    assert [*bench.wrong(), *bench.unfinished()] == []
    kept = bench.root / "stores" / "central" / "2-BM" / "e1" / "scan"
    frame = kept / "part0" / "frame30.tif"
    whole = frame.read_bytes()
    frame.write_bytes(whole[:-1])
    assert bench.wrong() != []
    frame.unlink()
    assert bench.wrong() != []
    assert bench.unfinished() != []
    frame.write_bytes(whole)
    assert [*bench.wrong(), *bench.unfinished()] == []
    (kept / "twice.tif").write_bytes(whole)
    assert bench.unfinished() != []


@pytest.mark.crash
def test_a_name_that_is_said_to_be_given_and_is_not_is_never_success(bench):
    bench.fresh()
    code, _ = bench.traced(inject="renameat2:retval=0:when=3", trace="renameat2")
    assert (code, bench.error().split(":")[0]) == (3, "storage")
    assert bench.ingest() == 0
    assert [*bench.wrong(), *bench.unfinished()] == []
