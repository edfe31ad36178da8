"""What a monitoring system reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from lightkeep.catalog import View
from lightkeep.model.people import Principal
from lightkeep.model.runs import RunState
from lightkeep.testing.populated import STATION, Populated


def _read(web: TestClient, house: Populated, role: str) -> dict[tuple[str, tuple[str, ...]], float]:
    answer = web.get("/api/v1/metrics", headers={"Authorization": f"Bearer {house.tokens[role]}"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def _view(house: Populated, role: str) -> View:
    return house.facility.catalog.view(Principal(role))


def test_the_numbers_are_those_of_the_catalogue(web: TestClient, house: Populated) -> None:
    read, view = _read(web, house, "facility-admin"), _view(house, "facility-admin")
    (store,) = [each for each in view.stores() if each.id == "central"]
    held = sum(sum(f.size for f in view.files(d.id).items) for d in view.datasets().items)
    assert read["lightkeep_store_bytes", (store.id, store.tier.value)] >= held > 0
    runs = {state: read["lightkeep_runs", (state.value,)] for state in RunState}
    assert runs == {state: view.runs(state=state, limit=0).total for state in RunState}
    assert runs[RunState.DONE] > 0
    assert read["lightkeep_copies_corrupt", (store.id,)] == 0
    assert read["lightkeep_purge_suspended", ()] == 0
    assert read["lightkeep_station_datasets", (STATION,)] > 0


def test_a_stranger_reads_nothing_of_others_data(web: TestClient, house: Populated) -> None:
    read = _read(web, house, "stranger")
    assert read["lightkeep_station_datasets", (STATION,)] == 0
    assert read["lightkeep_station_bytes", (STATION,)] == 0
    assert read["lightkeep_runs", ("done",)] == 0


def test_requests_are_counted_by_route_and_not_by_address(web: TestClient, house: Populated) -> None:
    headers = {"Authorization": f"Bearer {house.tokens['pi']}"}
    route = ("GET", "/api/v1/datasets/{dataset_id}", "200")
    before = _read(web, house, "pi").get(("lightkeep_http_requests_total", route), 0)
    for _ in range(3):
        web.get(f"/api/v1/datasets/{house.raw.id}", headers=headers)
    web.get("/api/v1/nothing/of/this/name", headers=headers)
    after = _read(web, house, "pi")
    assert after["lightkeep_http_requests_total", route] == before + 3
    assert not [labels for _, labels in after if any(house.raw.id in each for each in labels)]
    assert not [labels for _, labels in after if any("nothing" in each for each in labels)]
