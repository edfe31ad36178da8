"""Bad input: one line that names the thing, one hint, a code that is not zero, and nothing half-registered."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from .conftest import Answer, Cli, write_scan

# Root passes every permission check; without these two it is a user like any other.
_AS_A_USER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


@pytest.fixture
def refuses(cli: Cli, shell: Cli) -> Callable[..., Answer]:
    """Return a check: a command line is refused as it should be, and the facility is as it was.

    It is given in this process, unless it is to be `apart`, or wrapped: a process takes a second to say no.
    """

    def check(*arguments: str, names: str, code: int, wrap: Sequence[str] = (), apart: bool = False) -> Answer:
        before = cli("ls", "--json").data
        done = shell(*arguments, wrap=wrap) if wrap or apart else cli(*arguments)
        lines = done.err.splitlines()
        assert len(lines) == 2, done.err
        assert lines[0].startswith("error: ")
        assert names in lines[0], lines[0]
        assert lines[1].startswith("hint: ")
        assert len(lines[1]) > len("hint: ")
        assert done.code == code, done.err
        assert done.out == ""
        assert cli("ls", "--json").data == before
        examined = cli("doctor", "--full", "--json").data
        assert examined["findings"] == []
        return done

    return check


def test_a_missing_file(refuses: Callable[..., Answer], tmp_path: Path) -> None:
    refuses("ingest", str(tmp_path / "nowhere.h5"), names="nowhere.h5", code=9, apart=True)


def test_an_empty_folder(refuses: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refuses("ingest", str(tmp_path / "empty"), names="empty", code=9)


def test_a_truncated_hdf5_file(refuses: Callable[..., Answer], scan: Path) -> None:
    os.truncate(scan, scan.stat().st_size * 2 // 3)
    refuses("ingest", str(scan), names="tooth.h5", code=7, apart=True)


def test_a_source_that_cannot_be_kept_does_not_keep_the_others_back(cli: Cli, scan: Path, tmp_path: Path) -> None:
    nowhere, broken = tmp_path / "nowhere.h5", tmp_path / "broken.h5"
    broken.write_bytes(scan.read_bytes()[:3000])
    done = cli("ingest", str(nowhere), str(broken), str(scan))
    assert done.code == 9, "of the first"
    assert "tooth" in done.out
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert [path.name in line for path, line in zip((nowhere, broken), errors, strict=True)] == [True, True]
    again = cli("ingest", str(nowhere), str(scan), "--json")
    assert again.code == 9
    assert [each["was_known"] for each in again.data["items"]] == [True]
    (failed,) = again.data["failed"]
    assert (failed["source"], failed["code"]) == (str(nowhere), "source")
    assert [each["name"] for each in cli("ls", "--json").data["items"]] == ["tooth"]


def test_a_file_that_is_not_hdf5_at_all(refuses: Callable[..., Answer], scan: Path) -> None:
    scan.write_bytes(b"not what its name says" * 100)
    refuses("ingest", str(scan), names="tooth.h5", code=7)


def test_a_wrong_layout(refuses: Callable[..., Answer], scan: Path) -> None:
    with h5py.File(scan, "r+") as file:
        del file["exchange/data"]
        file["exchange/data"] = np.zeros((24, 32), "u2")
    refuses("ingest", str(scan), names="exchange/data", code=7)


def test_a_link_out_of_the_file(refuses: Callable[..., Answer], scan: Path) -> None:
    with h5py.File(scan, "r+") as file:
        del file["exchange/data_white"]
        file["exchange/data_white"] = h5py.ExternalLink("/etc/passwd", "/x")
    refuses("ingest", str(scan), names="exchange/data_white", code=8)


def test_no_flat_field(refuses: Callable[..., Answer], scan: Path) -> None:
    write_scan(scan, flats=0)
    refuses("ingest", str(scan), names="flats", code=7)


def test_a_negative_step_of_the_angle(refuses: Callable[..., Answer], scan: Path) -> None:
    with h5py.File(scan, "r+") as file:
        file["exchange/theta"][...] = file["exchange/theta"][...][::-1]
    refuses("ingest", str(scan), names="exchange/theta", code=7)


def test_a_limit_on_the_size_of_files(refuses: Callable[..., Answer], tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(os.urandom(4 << 20))
    refuses("ingest", str(big), names="big.bin", code=10, wrap=("prlimit", "--fsize=2097152"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a filesystem of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small filesystem takes root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"this container may not mount: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(refuses: Callable[..., Answer], cli: Cli, small_disk: Path, tmp_path: Path) -> None:
    assert cli("store", "add", "small", str(small_disk / "store")).code == 0
    assert cli("store", "list").code == 0
    big = tmp_path / "big.bin"
    big.write_bytes(os.urandom(4 << 20))
    done = refuses_on_a_small_store(cli, str(big))
    assert done.code == 11
    assert "small" in done.err.splitlines()[0]
    assert len(done.err.splitlines()) == 2


def refuses_on_a_small_store(cli: Cli, source: str) -> Answer:
    before = cli("ls", "--json").data
    done = cli("ingest", source, "--store", "small")
    assert cli("ls", "--json").data == before
    assert cli("doctor", "--json").data["errors"] == 0
    return done


def test_an_unreadable_folder(refuses: Callable[..., Answer], tmp_path: Path) -> None:
    if _AS_A_USER and shutil.which("setpriv") is None:
        pytest.skip("root passes every permission, and setpriv is not here")
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    folder.chmod(0)
    refuses("ingest", str(folder), names="locked", code=9, wrap=_AS_A_USER)
    folder.chmod(0o700)


def test_an_unreadable_file(refuses: Callable[..., Answer], scan: Path) -> None:
    if _AS_A_USER and shutil.which("setpriv") is None:
        pytest.skip("root passes every permission, and setpriv is not here")
    scan.chmod(0)
    refuses("ingest", str(scan), names="tooth.h5", code=9, wrap=_AS_A_USER)


def test_a_store_that_is_not_mounted(cli: Cli, shell: Cli, home: Path, scan: Path) -> None:
    (home / "stores" / "central" / ".lightkeep-store.json").rename(home / "marker")
    done = shell("ingest", str(scan))
    assert done.code == 12
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["error", "hint"]
    assert "central" in done.err.splitlines()[0]
    assert cli("doctor", "--json").code == 1
    (home / "marker").rename(home / "stores" / "central" / ".lightkeep-store.json")
    assert cli("ls", "--json").data["total"] == 0
    assert cli("doctor", "--json").data["findings"] == []


def test_an_unknown_experiment(refuses: Callable[..., Answer], scan: Path) -> None:
    refuses("ingest", str(scan), "-e", "2026-11-nobody-0", names="2026-11-nobody-0", code=3)


def test_a_closed_experiment(refuses: Callable[..., Answer], cli: Cli, scan: Path) -> None:
    cli("experiment", "close", "2026-11-lee-1")
    refuses("ingest", str(scan), "-e", "2026-11-lee-1", names="2026-11-lee-1 is closed", code=6)


def test_an_unknown_technique(refuses: Callable[..., Answer], cli: Cli, scan: Path) -> None:
    cli("ingest", str(scan))
    refuses("run", "tomografy", "tooth", names="tomografy", code=2)


def test_an_unknown_engine(refuses: Callable[..., Answer], cli: Cli, scan: Path) -> None:
    cli("ingest", str(scan))
    refuses("run", "tomography", "tooth", "--engine", "abacus", names="abacus", code=2, apart=True)


def test_a_query_that_cannot_be_read(refuses: Callable[..., Answer]) -> None:
    refuses("find", "energy:8..9furlong..", names="energy", code=2)


def test_names_that_are_no_names(refuses: Callable[..., Answer], scan: Path) -> None:
    refuses("station", "add", "../x", names="../x", code=2)
    refuses("ingest", str(scan), "--name", "a/b", names="a/b", code=2)
    refuses("person", "add", "Maria", names="Maria", code=2)


def test_what_exists_already(refuses: Callable[..., Answer]) -> None:
    refuses("station", "add", "2-BM", names="2-BM", code=6)
    refuses("experiment", "create", "2026-11-lee-1", "--station", "2-BM", names="2026-11-lee-1", code=6)


def test_a_short_password(refuses: Callable[..., Answer]) -> None:
    refuses("person", "add", "maria", "--password-stdin", names="password", code=2)


def test_somebody_who_is_not_known_here(home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightkeep.cli.session.os.geteuid", lambda: 4242)
    done = cli("ls")
    assert done.code == 5
    assert "lightkeep person add" in done.err.splitlines()[1]


def test_a_port_that_is_taken(refuses: Callable[..., Answer]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refuses("serve", "--port", port, names=f"port {port}", code=16, apart=True)


def test_a_token_for_nobody(refuses: Callable[..., Answer]) -> None:
    refuses("person", "token", "nobody-here", names="nobody-here", code=3)
