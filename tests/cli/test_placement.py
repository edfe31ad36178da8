"""Where a run ends first, on the command line: what each place promised, and what it took."""

from __future__ import annotations

from typing import Any

SMALL = ("--size", "64", "--rows", "4", "--angles", "64")


def test_a_run_that_looked_for_the_earliest_end_tells_estimates_and_truth(cli: Any) -> None:
    cli("simulate", "tomography", "tooth.h5", *SMALL)
    cli("ingest", "tooth.h5")
    told = cli("run", "tomography", "tooth", "--center", "31.5", "--engine", "auto")
    assert told.code == 0, told.err
    table = told.out[told.out.index("waits") :]
    assert [word for word in ("inline", "processes", "took", "measured") if word not in table] == []
    (run,) = cli("runs", "list", "--json").data["items"]
    assert {each["place"] for each in run["placement"]["estimates"]} == {"inline", "processes"}
    assert run["placement"]["truth"]["total_s"] > 0
    again = cli("runs", "show", run["id"]).out
    assert again[again.index("waits") :].splitlines()[0].split() == table.splitlines()[0].split()


def test_an_estimate_names_the_places_and_queues_nothing(cli: Any) -> None:
    cli("simulate", "tomography", "tooth.h5", *SMALL)
    cli("ingest", "tooth.h5")
    told = cli("run", "tomography", "tooth", "--center", "31.5", "--estimate")
    assert told.code == 0, told.err
    assert [word for word in ("inline", "processes", "Nothing was queued") if word not in told.out] == []
    assert cli("runs", "list", "--json").data["items"] == []
    assert cli("run", "tomography", "tooth", "--estimate", "--json").data[0]["total_s"] > 0
