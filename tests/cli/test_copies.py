"""Copies, archive, restore and scheduled verification, as a person types them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from lightkeep.cli.transfer import parse_rate
from lightkeep.model.errors import InvalidInput


@pytest.fixture
def kept(cli, scan, home):
    """The facility with one measured file and a second store."""
    assert cli("ingest", str(scan)).code == 0
    assert cli("store", "add", "vault", str(home / "vault")).code == 0
    return cli


def purged(home: Path) -> None:
    """Lose what the first store has, as a purge that ran to its end."""
    with sqlite3.connect(home / "catalog.db") as catalog:
        catalog.execute("UPDATE replica SET state = 'deleted' WHERE store_id = 'central'")


def test_a_copy_is_made_and_its_second_time_says_that_it_is_there(kept):
    first = kept("replicate", "tooth", "--to", "vault")
    assert first.code == 0, first.err
    assert "1 file on vault" in first.out
    assert "1 file there already" in kept("replicate", "tooth", "--to", "vault").out
    assert kept("replicate", "tooth").code == 6


def test_archived_purged_restored_and_got(kept, home, scan):
    made = kept("archive", "2026-11-lee-1", "--to", "vault", "--json")
    assert made.code == 0, made.err
    assert (made.data["files"], len(made.data["units"])) == (1, 1)
    assert "all 1 file are there already" in kept("archive", "--dataset", "tooth", "--to", "vault").out
    purged(home)
    back = kept("restore", "tooth", "--days", "7", "--json")
    assert back.code == 0, back.err
    assert [each["state"] for each in back.data["items"]] == ["done"]
    assert "tooth" in kept("restore", "--list").out
    assert kept("get", "tooth").code == 0
    assert kept("verify", "tooth").code == 0
    assert kept("restore", "tooth").code == 6


def test_a_run_on_archived_data_brings_them_near_first(kept, home):
    kept("archive", "2026-11-lee-1", "--to", "vault")
    purged(home)
    asked = kept("run", "tomography", "tooth", "--no-wait", "--json")
    assert asked.code == 0, asked.err
    assert (asked.data["run"]["state"], asked.data["run"]["message"]) == (
        "queued",
        "waits until tooth is back from the archive",
    )
    assert kept("restore", "--list", "--json").data["items"][0]["state"] == "queued"
    done = kept("run", "tomography", "tooth", "--json")
    assert done.code == 0, done.err
    assert done.data["run"]["state"] == "done"
    assert kept("restore", "--list", "--json").data["items"][0]["state"] == "done"


def test_a_restore_can_be_only_asked_for(kept, home):
    kept("archive", "2026-11-lee-1", "--to", "vault")
    purged(home)
    assert kept("restore", "tooth", "--queue", "--json").data["items"][0]["state"] == "queued"
    assert kept("upkeep").code == 0
    assert kept("restore", "--list", "--json").data["items"][0]["state"] == "done"


def test_what_is_corrupt_is_repaired_from_the_other_store(kept, home):
    kept("replicate", "tooth", "--to", "vault")
    (found,) = (home / "vault").rglob("tooth.h5")
    content = bytearray(found.read_bytes())
    content[len(content) // 2] ^= 1
    found.write_bytes(content)
    bad = kept("verify", "tooth")
    assert bad.code == 13
    assert "1 files are corrupt" in bad.err
    done = kept("verify", "tooth", "--repair")
    assert done.code == 0, done.err
    assert "1 file repaired" in done.out
    assert kept("verify", "tooth", "--json").data["items"][0]["report"]["checked"] == 2


def test_what_is_due_is_read_back_and_its_age_is_shown(kept, home):
    with sqlite3.connect(home / "catalog.db") as catalog:
        catalog.execute("UPDATE replica SET verified_at = verified_at - 26 * 86400 * 1000000")
    done = kept("verify", "--due", "--limit-rate", "200MB/s")
    assert done.code == 0, done.err
    assert "1 replica read back, whole" in done.out
    assert "0.0%" in done.out
    assert kept("verify", "--due", "--json").data["report"]["checked"] == 0


@pytest.mark.parametrize("words", [["verify"], ["restore"], ["verify", "--due", "--limit-rate", "fast"]])
def test_what_is_missing_is_said_in_one_line(kept, words):
    done = kept(*words)
    assert done.code == 2
    assert len(done.err.splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "rate"), [("200MB/s", 2e8), ("1.5GiB/s", 1.5 * 2**30), ("0", 0.0), ("64 kB", 64_000.0), ("7", 7.0)]
)
def test_rates_are_read_with_their_units(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "MB/s", "-1MB/s", "1XB/s", "nan"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(InvalidInput):
        parse_rate(text)
