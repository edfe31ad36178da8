"""A mount that hangs is found by a process of its own, and keeps nobody."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightkeep.config import Config
from lightkeep.lifecycle.health import metrics, silence
from lightkeep.lifecycle.health.doctor import examine
from lightkeep.lifecycle.people.set_up import add_store
from lightkeep.lifecycle.upkeep import upkeep
from lightkeep.model.errors import StoreUnavailable
from lightkeep.model.people import Person, Principal
from lightkeep.storage.keys import MARKER
from lightkeep.testing.new_facility import new_facility
from lightkeep.testing.suites.objects import content_of, keep

ADA = Principal("ada")
HOLD = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""
"""Holds a lease on a file and ignores that others want it: the kernel keeps them in open() for 45 s."""


@pytest.fixture
def facility(tmp_path: Path):
    with new_facility(Config(tmp_path / "facility"), admin=Person("ada", "Ada")) as made:
        add_store(made, "second", tmp_path / "second", principal=ADA)
        yield made


@pytest.fixture
def hung(facility, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """Make store `second` hang; it answers again when this process ends."""
    keep(facility.stores["second"], x=b"x")
    marker = Path(facility.stores["second"].record.location, MARKER)
    command = [sys.executable, "-I", "-S", "-c", HOLD, str(marker)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        monkeypatch.setattr(silence, "ANSWER_S", 1.0)
        yield holder
        holder.stdin.close()


def test_a_store_that_hangs_is_refused_at_once_by_name_and_comes_back(facility, hung):
    assert silence.silent(facility) == ["second"]
    with pytest.raises(StoreUnavailable, match=r"second gives no answer.*hangs"):
        content_of(facility.stores["second"], "x")
    facility.stores["central"].check_identity()
    hung.stdin.close()
    hung.wait()
    assert silence.silent(facility) == []
    assert content_of(facility.stores["second"], "x") == b"x"


@pytest.mark.fault
def test_upkeep_goes_on_past_a_store_that_hangs_and_doctor_and_metrics_tell(facility, hung, figure):
    done = upkeep(facility)
    assert "second" in done.failed["stores"]
    assert "drill" not in done.failed
    found = [each for each in examine(facility) if each.subject == "second"]
    assert any("gives no answer" in each.message and "server of that mount" in each.remedy for each in found)
    assert told(facility) == {("central",): 1.0, ("second",): 0.0}
    hung.stdin.close()
    hung.wait()
    assert "stores" not in upkeep(facility).failed
    assert told(facility)["second",] == 1.0
    figure(
        "F12",
        injected="a store whose files the kernel does not open (a lease that its holder keeps)",
        found="given up at the deadline; upkeep went on; doctor and metrics name it",
    )


def told(facility) -> dict[tuple[str, ...], float]:
    gauges = metrics.measure(facility, principal=ADA)
    return next(dict(each.values) for each in gauges if each.name == "lightkeep_store_answers")


def test_a_marker_that_cannot_be_read_is_a_plain_error(facility, hung):
    with pytest.raises(StoreUnavailable, match="does not say who it is"):
        facility.stores["second"].check_identity()
