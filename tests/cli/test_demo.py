"""The demo goes the whole way, once and again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import httpx
import pytest

from .conftest import Answer, run, write_scan

KEYS = {
    "dataset",
    "run",
    "result",
    "portal",
    "page",
    "center",
    "seconds",
    "files",
    "user",
    "password",
    "root",
    "xpcs",
}


def demo(folder: Path, *arguments: str) -> Answer:
    return run("demo", "--no-serve", "--json", *arguments, folder=folder)


def test_it_measures_keeps_reconstructs_and_correlates_without_any_setup(tmp_path: Path) -> None:
    done = demo(tmp_path)
    assert done.code == 0, done.err
    assert set(done.data) == KEYS
    assert done.data["portal"].startswith("http://127.0.0.1:")
    assert done.data["center"] == pytest.approx((256 - 1) / 2 + 7.3, abs=0.5)  # the simulated axis
    assert done.data["xpcs"]["diffusion"] == pytest.approx(5e4, rel=0.02)  # the simulated one
    main = next(path for path in map(Path, done.data["files"]) if path.suffix in (".h5", ".nxs"))
    with h5py.File(main) as file:
        shapes: list[tuple[int, ...]] = []
        file.visititems(lambda _name, item: shapes.append(getattr(item, "shape", ())))
    assert (64, 256, 256) in shapes


def test_it_says_where_everything_is_and_the_second_time_serves_it_until_ctrl_c(tmp_path: Path) -> None:
    data = str(write_scan(tmp_path / "tooth.h5"))
    done = run("demo", "--no-serve", "--data", data, folder=tmp_path)
    assert done.code == 0, done.err
    assert done.err == ""
    for word in ("Kept", "Reconstructed", "Centre", "Result", "Portal"):
        assert f"\n{word} " in f"\n{done.out}"

    process = subprocess.Popen(
        [sys.executable, "-m", "lightkeep", "demo", "--data", data, "--port", "0", "--json"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("LIGHTKEEP_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        text = "".join(iter(process.stdout.readline, "}\n")) + "}"
        answer = json.loads(text)
        page = httpx.get(answer["page"], follow_redirects=True, timeout=60)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert page.status_code == 200
    assert "<html" in page.text
    assert answer["dataset"] in done.out  # the same scan is known
    assert answer["result"] not in done.out  # a new run makes a new result
    folder = tmp_path / "demo"
    assert run("doctor", "--full", "--json", folder=folder).data["findings"] == []
    assert run("ls", "--json", folder=folder).data["total"] == 3


def test_the_real_tooth_turns_about_its_axis(tmp_path: Path, shared_data: Path) -> None:
    done = demo(tmp_path, "--data", str(shared_data / "tomography" / "tooth.h5"))
    assert done.code == 0, done.err
    assert 295 <= done.data["center"] <= 296.5


@pytest.mark.parametrize(("content", "code"), [(None, 9), (b"no scan" * 100, 2)])
def test_a_file_that_is_no_scan_is_one_error(tmp_path: Path, content: bytes | None, code: int) -> None:
    data = tmp_path / "data.bin"
    if content is not None:
        data.write_bytes(content)
    done = demo(tmp_path, "--data", str(data))
    assert done.code == code
    assert "data" in json.loads(done.err)["error"]["message"]
    assert done.out == ""


def test_a_port_that_is_taken_is_one_error_when_it_was_asked_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("demo", "--port", port, folder=tmp_path)
    assert done.code == 16
    assert f"port {port}" in done.err.splitlines()[0]
    assert "--port" in done.err.splitlines()[1]
