"""How errors leave the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightkeep.cli.errors import EXIT_CODES, LISTS, exit_code, hint_for, print_error
from lightkeep.model.errors import LightkeepError, NotFound, UnsafeFile

from .conftest import Cli, run


def every_error(kind: type[LightkeepError] = LightkeepError) -> Iterator[type[LightkeepError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__.startswith("lightkeep.model"):
            yield from every_error(child)


@pytest.mark.parametrize("kind", list(every_error()), ids=lambda kind: kind.__name__)
def test_every_error_has_its_own_exit_code_and_a_hint(kind: type[LightkeepError]) -> None:
    assert EXIT_CODES[kind] == exit_code(kind("x"))
    assert list(EXIT_CODES.values()).count(EXIT_CODES[kind]) == 1
    assert 0 < EXIT_CODES[kind] < 126
    assert hint_for(kind("x"))


@pytest.mark.parametrize("noun", LISTS)
def test_what_is_not_found_is_answered_with_the_command_that_lists_it(cli: Cli, noun: str) -> None:
    lightkeep, *words = hint_for(NotFound(f"{noun} 'x' does not exist")).split("`")[1].split()
    assert (lightkeep, cli(*words).code) == ("lightkeep", 0)


def test_an_error_is_one_line_and_one_hint(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("x", "several\nlines", "do\nthis", as_json=False)
    assert capsys.readouterr().err == "error: several lines\nhint: do this\n"


def test_an_error_of_a_plugin_has_its_parents_code() -> None:
    class Odd(UnsafeFile):
        pass

    assert exit_code(Odd("x")) == EXIT_CODES[UnsafeFile]


def test_errors_are_json_when_json_is_wanted(cli: Cli) -> None:
    done = cli("ls", "nothing", "--json")
    assert done.code == 3
    assert done.out == ""
    error = json.loads(done.err)["error"]
    assert error["code"] == "not_found"
    assert "nothing" in error["message"]
    assert error["hint"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("lss",), "No such command 'lss'"),
        (("run", "fft", "scan_1"), "no technique is called 'fft': average, "),
        (("acquire", "add", "fax", "x"), "no kind of source is called 'fax': folder"),
        (("ls", "--wrong"), "No such option"),
        (("ingest",), "Missing argument"),
        (("station", "add", "2-BM", "--technique"), "requires an argument"),
        (("runs", "list", "--limit", "0"), "0 is not in the range"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_one_hint(cli: Cli, arguments: tuple[str, ...], says: str) -> None:
    done = cli(*arguments)
    assert done.code == 2
    lines = done.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert "--help" in lines[1]
    assert json.loads(cli(*arguments[:1], "--json", *arguments[1:]).err)["error"]["code"] == "usage"


def test_outside_a_facility_it_says_how_to_make_one(tmp_path: Path) -> None:
    done = run("ls", folder=tmp_path, XDG_CONFIG_HOME=str(tmp_path))
    assert done.code == 16
    assert "lightkeep init" in done.err


def test_a_closed_pipe_is_no_error(home: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "lightkeep", "experiment", "list"], cwd=home, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == b""


def test_ctrl_c_ends_it_with_130_and_no_traceback(home: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "lightkeep", "person", "add", "maria", "--password-stdin"],
        cwd=home,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdin is not None
        wait_until_it_reads(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        text = process.stderr.read().decode()
    assert text.splitlines()[0] == "error: interrupted"
    assert "Traceback" not in text


def wait_until_it_reads(pid: int) -> None:
    """Return when the process sleeps in a read of its standard input."""
    for _ in range(100_000):
        try:
            call = Path(f"/proc/{pid}/syscall").read_text().split()
        except PermissionError:
            pytest.skip("the kernel does not say what another process waits for")
        if call[:2] == ["0", "0x0"] or call[:2] == ["63", "0x0"]:  # read(0, ...) on x86-64, and on aarch64
            return
        os.sched_yield()
    pytest.fail("the process never read its input")


def test_ctrl_c_cancels_the_run_that_is_waited_for(cli: Cli, home: Path, scan: Path) -> None:
    assert cli("ingest", str(scan)).code == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "lightkeep", "run", "tomography", "tooth", "--json"],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        while not (found := cli("runs", "list", "--json").data["items"]):
            assert process.poll() is None
        if found[0]["state"] in ("queued", "running"):
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    if process.returncode != 0:  # it may have been quicker than we were
        assert process.returncode == 130
        assert json.loads(err)["error"]["code"] == "interrupted"
        assert out == ""
        assert cli("runs", "list", "--json").data["items"][0]["state"] == "cancelled"
    assert cli("doctor", "--json").data["findings"] == []
