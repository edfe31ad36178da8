"""The virtual beamline of the command line is a real PVAccess server."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from lightkeep.acquisition.frames import PvAccessSource
from lightkeep.acquisition.options import PvAccess
from lightkeep.model.acquisition import Frame

WAIT_S = 60.0


def test_a_scan_begins_with_acquire_and_ends_when_it_is_told_to() -> None:
    command = [sys.executable, "-m", "lightkeep", "--json", "simulate", "beamline", "--isolated", "--size", "32"]
    command += ["--rows", "2", "--angles", "5000", "--rate", "100", "--scans", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while lines[-1].rstrip() != "}":
            lines.append(process.stdout.readline())
        answer = json.loads("".join(lines))
        source = PvAccessSource(
            PvAccess(channel=answer["image"], acquire=answer["acquire"], epics=answer["epics"])
        )
        keys, deadline = [], time.monotonic() + WAIT_S
        for message in source.messages():
            assert time.monotonic() < deadline
            if isinstance(message, Frame):
                keys.append(message.values["image_key"])
            if keys.count(0) == 10:
                source.stop({})
                break
        source.close()
        assert process.wait(WAIT_S) == 0
    assert set(keys) == {0, 1, 2}
