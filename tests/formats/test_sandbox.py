"""The process that reads files from strangers: it dies alone, and it cannot do much."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightkeep.formats import sandbox
from lightkeep.formats.sandbox import Sandbox
from lightkeep.model.errors import BadFile, Conflict, NotFound

HERE = "lightkeep.testing.hostile"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    box = Sandbox()
    yield box
    box.close()


def test_each_call_runs_in_a_process_of_its_own(box: Sandbox) -> None:
    pids = {box.call("os:getpid") for _ in range(5)}
    assert len(pids) == 5
    assert os.getpid() not in pids


def test_a_reader_that_hangs_inside_c_code_is_stopped_in_time(box: Sandbox) -> None:
    started = time.monotonic()
    with pytest.raises(BadFile, match=r"scan\.h5: reading it took longer than 0\.3 s"):
        box.call(f"{HERE}:hang", "scan.h5", timeout_s=0.3)
    assert time.monotonic() - started < 1.3
    assert box.call("os:getpid")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_reader_that_crashes_is_a_bad_file_and_the_next_call_works(box: Sandbox, number: signal.Signals) -> None:
    with pytest.raises(BadFile, match="ended its reader"):
        box.call(f"{HERE}:crash", "scan.h5", number)
    assert box.call("os:getpid")


def test_memory_is_limited(box: Sandbox) -> None:
    with pytest.raises(BadFile, match="needs too much memory"):
        box.call(f"{HERE}:swallow", "scan.h5", 400 << 20, memory_bytes=200 << 20)
    assert box.call(f"{HERE}:swallow", "scan.h5", 100 << 20, memory_bytes=200 << 20) == 100 << 20


def test_our_errors_come_as_they_are_and_others_as_bad_file(box: Sandbox) -> None:
    with pytest.raises(Conflict) as caught:
        box.call(f"{HERE}:refuse", "scan.h5")
    assert (caught.value.message, caught.value.remedy, caught.value.data) == (
        "taken",
        "choose",
        {"name": "scan.h5"},
    )
    with pytest.raises(BadFile, match=r"scan\.h5: cannot be read: ZeroDivisionError"):
        box.call(f"{HERE}:divide", "scan.h5")


def test_an_answer_that_would_run_code_here_is_not_taken(box: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="ended its reader"):
        box.call(f"{HERE}:strike_back", str(tmp_path / "struck"))
    assert not (tmp_path / "struck").exists()


def test_no_file_can_be_written(box: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(BadFile):
        box.call(f"{HERE}:write", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists() or not (tmp_path / "new").stat().st_size


def test_there_is_no_network_where_the_kernel_allows_that(box: Sandbox) -> None:
    interfaces, refused = box.call(f"{HERE}:surroundings")
    if "network namespace" in refused:
        pytest.skip("this kernel lets nobody but root make a network namespace")
    assert interfaces == ["lo"]


def test_a_killed_zygote_is_replaced(box: Sandbox) -> None:
    parent = box.call("os:getppid")
    os.kill(parent, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{parent}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.01)
    assert box.call("os:getppid") != parent


def test_many_threads_may_call_at_once(box: Sandbox) -> None:
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(box.call("os:getpid"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(answers)) == 16


def test_closing_leaves_no_process() -> None:
    box = Sandbox()
    parent = box.call("os:getppid")
    box.close()
    assert not Path(f"/proc/{parent}").exists()
    assert sandbox.call("os:getpid")  # another sandbox goes on


def test_an_unknown_function_is_an_error_that_names_it(box: Sandbox) -> None:
    with pytest.raises(BadFile, match="no_such"):
        box.call("lightkeep.no_such:thing", "scan.h5")
    with pytest.raises(NotFound):
        box.call("lightkeep.formats:get", "no-such-format")
