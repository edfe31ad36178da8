"""How formats are found."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import h5py
import pytest
from h5py._objects import phil

from lightkeep import formats
from lightkeep.formats.hdf5 import open_plain
from lightkeep.formats.text import clean, one_line
from lightkeep.model.errors import BadFile, NotFound, SourceError


def test_the_built_in_formats_are_found_as_plugins_are() -> None:
    assert {"data-exchange", "nxtomo", "nexus", "tiff-stack", "thumbnail"} <= set(formats.names())
    for name in formats.names():
        assert formats.get(name).name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(NotFound) as caught:
        formats.get("jpeg")
    assert "nxtomo" in caught.value.remedy


def test_importing_formats_loads_no_numerics() -> None:
    code = "import sys, lightkeep.formats.viewer; print({'numpy', 'h5py', 'PIL'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_a_file_of_no_known_format_has_no_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("beam lost at 3 am")
    assert formats.detect(path) == formats.inspect(path).format == ""


def test_an_hdf5_file_of_no_known_layout_still_gives_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "dark.h5"
    with h5py.File(path, "w") as file:
        file["camera/gain"] = 4
        file["camera"].attrs["model"] = "Oryx"
    found = formats.inspect(path)
    assert found.format == ""
    assert found.metadata.rest == {"camera@model": "Oryx", "camera/gain": 4}


def test_a_file_that_is_still_written_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "live.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["x"] = [1]
        file.swmr_mode = True
        with pytest.raises(BadFile, match="still being written"):
            formats.inspect(path)


def test_a_file_that_makes_hdf5_run_in_circles_is_given_up(tmp_path: Path) -> None:
    """Found by mutation: a string's heap entry whose size wraps to no progress. HDF5 2.0.0 never comes back."""
    path = tmp_path / "circle.h5"
    with h5py.File(path, "w") as file:
        file["entry/definition"] = "NXtomo"
    content = bytearray(path.read_bytes())
    first_entry_size = content.index(b"GCOL") + 16 + 8
    content[first_entry_size : first_entry_size + 8] = (2**64 - 16).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(BadFile, match=r"circle\.h5: reading it took longer than 0\.5 s"):
        formats.inspect(path, timeout_s=0.5)


def test_a_look_at_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.h5"):
        formats.inspect(tmp_path / "gone.h5")


@pytest.mark.parametrize("value", [b"\x1b[2J\x00", "\udcff", b"\xff\xfe", "a\u202eb", "x" * 10_000, 3.5, None])
def test_any_value_becomes_text_that_can_be_stored_and_printed(value: object) -> None:
    text = clean(value)
    assert text.encode()
    assert len(text) <= 4096
    assert one_line(value).isprintable()


def test_nothing_is_asked_of_hdf5_while_another_thread_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("beam lost at 3 am")
    with ThreadPoolExecutor(1) as pool:
        with phil:  # as a read in another thread has it
            refused = pool.submit(open_plain, path)
            assert not wait([refused], timeout=0.5).done
        with pytest.raises(BadFile, match="not an HDF5 file"):
            refused.result(60)
