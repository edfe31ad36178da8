"""Who may do what: every route of both faces, with every role. A route that is not in the table fails the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import Mount
from starlette.testclient import TestClient

from lightkeep.lifecycle.people import sign_in
from lightkeep.lifecycle.people.sign_in import COOKIE
from lightkeep.model.people import SERVICE
from lightkeep.model.retention import Restore
from lightkeep.model.workflows import Flow, FlowState
from lightkeep.testing.correlated import BINS, Correlated
from lightkeep.testing.populated import ROLES, STATION, Populated

OPEN = "anybody: what it shows is cut to what one may see"
PERSON = "who is signed in"
SEE = "who may see or read the experiment"
PROCESS = "who may process it"
TOLD = "see test_purge.py and the portal's test_keeping.py and test_storage.py"
NEAR = "who may read it, and is told that all of it is near"
MANAGE = "who manages the facility"
COPIES = "see test_copies.py: it changes something"
FLOWS = "see the portal's test_workflows.py and test_tomography.py"
ACQUIRE = "see test_acquisitions.py"
FORESEE = "see test_estimate.py: it starts a process"
LIFE = "see test_usage.py: it changes something"
ELSEWHERE = (TOLD, LIFE, ACQUIRE, FLOWS, COPIES, FORESEE)
POLICY = 'id = "nobodys"\n[[rule]]\nname = "all"\n[rule.hot]\nkeep = "for ever"\n'

WORKFLOW = 'id = "nobodys"\n[[stage]]\nname = "r"\ntechnique = "tomography"\n'

API = {
    "GET /me": OPEN,
    "GET /metrics": PERSON,
    "POST /sessions": OPEN,
    "DELETE /sessions/current": OPEN,
    "POST /tokens": PERSON,
    "GET /people": OPEN,
    "GET /experiments/{experiment_id}/grants": SEE,
    "POST /experiments": LIFE,
    "POST /experiments/{experiment_id}/open": LIFE,
    "POST /experiments/{experiment_id}/close": LIFE,
    "POST /experiments/{experiment_id}/extend": LIFE,
    "POST /experiments/{experiment_id}/release": LIFE,
    "POST /experiments/{experiment_id}/withdraw-release": LIFE,
    "POST /experiments/{experiment_id}/sync": LIFE,
    "GET /experiments/{experiment_id}/report": SEE,
    "GET /experiments/{experiment_id}/acquisitions": SEE,
    "POST /experiments/{experiment_id}/acquisitions": ACQUIRE,
    "GET /acquisitions/{acquisition_id}": ACQUIRE,
    "POST /acquisitions/{acquisition_id}/start": ACQUIRE,
    "POST /acquisitions/{acquisition_id}/stop": ACQUIRE,
    "GET /usage": OPEN,
    "GET /usage/table.csv": OPEN,
    "GET /usage/history": PERSON,
    "GET /usage/quotas": OPEN,
    "PUT /usage/quotas/{scope}/{scope_id}": LIFE,
    "DELETE /usage/quotas/{scope}/{scope_id}": LIFE,
    "GET /usage/growth": OPEN,
    "PUT /usage/growth/{station_id}": LIFE,
    "DELETE /usage/growth/{station_id}": LIFE,
    "POST /usage/forecast": MANAGE,
    "GET /stations": OPEN,
    "GET /stations/{station_id}": OPEN,
    "GET /experiments": OPEN,
    "GET /experiments/{experiment_id}": SEE,
    "GET /stores": OPEN,
    "GET /datasets": OPEN,
    "GET /facets": OPEN,
    "GET /datasets/{dataset_id}": SEE,
    "GET /datasets/{dataset_id}/children": SEE,
    "GET /datasets/{dataset_id}/files": SEE,
    "GET /datasets/{dataset_id}/replicas": SEE,
    "GET /datasets/{dataset_id}/files/{path:path}": SEE,
    "HEAD /datasets/{dataset_id}/files/{path:path}": SEE,
    "GET /datasets/{dataset_id}/preview": SEE,
    "GET /datasets/{dataset_id}/preview/{index}.png": SEE,
    "GET /datasets/{dataset_id}/thumbnail.png": SEE,
    "GET /datasets/{dataset_id}/h5/{kind}": SEE,
    "GET /datasets/{dataset_id}/xpcs": SEE,
    "GET /datasets/{dataset_id}/xpcs/image": SEE,
    "GET /datasets/{dataset_id}/xpcs/fit": SEE,
    "GET /datasets/{dataset_id}/xpcs/two-time/{number}": SEE,
    "GET /datasets/{dataset_id}/xpcs/two-time/{number}/cuts": SEE,
    "GET /datasets/{dataset_id}/xpcs/{table}.csv": SEE,
    "GET /experiments/{experiment_id}/xpcs/average": SEE,
    "GET /experiments/{experiment_id}/xpcs/average.csv": SEE,
    "GET /experiments/{experiment_id}/xpcs/average.hdf": SEE,
    "GET /datasets/{dataset_id}/tomography": SEE,
    "GET /datasets/{dataset_id}/tomography/center": SEE,
    "GET /datasets/{dataset_id}/tomography/centers": SEE,
    "GET /datasets/{dataset_id}/tomography/{plane}/{index}.png": SEE,
    "GET /datasets/{dataset_id}/tomography/minus/{other_id}/{plane}/{index}.png": SEE,
    "GET /techniques": OPEN,
    "GET /techniques/{name}": OPEN,
    "GET /datasets/{dataset_id}/techniques": SEE,
    "POST /datasets/{dataset_id}/runs": PROCESS,
    "POST /datasets/{dataset_id}/estimates": FORESEE,
    "GET /runs": OPEN,
    "GET /runs/{run_id}": SEE,
    "GET /runs/{run_id}/result": SEE,
    "GET /runs/{run_id}/live": SEE,
    "GET /runs/{run_id}/log": PROCESS,
    "POST /runs/{run_id}/stop": PROCESS,
    "POST /runs/{run_id}/cancel": PROCESS,
    "POST /runs/{run_id}/retry": PROCESS,
    "GET /runs/{run_id}/events": SEE,
    "GET /events": OPEN,
    "POST /reprocess": PERSON,
    "GET /workflows": OPEN,
    "POST /workflows": MANAGE,
    "POST /workflows/check": PERSON,
    "GET /flows": OPEN,
    "GET /flows/{flow_id}": SEE,
    "POST /datasets/{dataset_id}/flows": PROCESS,
    "GET /flows/{flow_id}/events": SEE,
    "POST /flows/{flow_id}/cancel": PROCESS,
    "GET /policies": OPEN,
    "POST /policies": MANAGE,
    "POST /policies/check": PERSON,
    "POST /policies/simulate": PERSON,
    "GET /datasets/{dataset_id}/explain": SEE,
    "GET /units": OPEN,
    "GET /restores": OPEN,
    "GET /restores/{restore_id}": SEE,
    "POST /datasets/{dataset_id}/restores": NEAR,
    "POST /experiments/{experiment_id}/restores": NEAR,
    "GET /copies": OPEN,
    "POST /datasets/{dataset_id}/copies": COPIES,
    "POST /datasets/{dataset_id}/archive": COPIES,
    "POST /experiments/{experiment_id}/archive": COPIES,
    "GET /freshness": MANAGE,
    "GET /holds": OPEN,
    "POST /holds": TOLD,
    "POST /holds/{hold_id}/release": TOLD,
    "GET /notices": OPEN,
    "POST /notices/{notice_id}/acknowledge": TOLD,
    "GET /extend/{token}": TOLD,
    "POST /extend/{token}": TOLD,
    "GET /purge": TOLD,
    "GET /purge/plans": OPEN,
    "POST /purge/plans": TOLD,
    "GET /purge/plans/{plan_id}": TOLD,
    "GET /purge/plans/{plan_id}/items": TOLD,
    "POST /purge/plans/{plan_id}/approve": TOLD,
    "POST /purge/plans/{plan_id}/cancel": TOLD,
    "POST /purge/plans/{plan_id}/run": TOLD,
    "POST /purge/plans/{plan_id}/undo": TOLD,
}
PORTAL = {
    "GET /experiments/{experiment_id}/keeping": TOLD,
    "GET /storage/forecast": TOLD,
    "GET /storage/plans": TOLD,
    "GET /storage/plans/{plan_id}": TOLD,
    "GET /storage/plans/{plan_id}/datasets/{dataset_id}": TOLD,
    "GET /storage/usage": TOLD,
    "POST /datasets/{dataset_id}/extend": TOLD,
    "POST /datasets/{dataset_id}/hold": TOLD,
    "POST /datasets/{dataset_id}/restore": TOLD,
    "POST /datasets/{dataset_id}/copy": TOLD,
    "POST /datasets/{dataset_id}/undo": TOLD,
    "POST /experiments/{experiment_id}/extend": TOLD,
    "POST /holds/{hold_id}/release": TOLD,
    "POST /storage/clock": TOLD,
    "POST /storage/forecast": TOLD,
    "POST /storage/plans": TOLD,
    "POST /storage/plans/{plan_id}/approve": TOLD,
    "POST /storage/plans/{plan_id}/cancel": TOLD,
    "POST /storage/plans/{plan_id}/destroy": TOLD,
    "POST /storage/plans/{plan_id}/run": TOLD,
    "POST /storage/plans/{plan_id}/undo": TOLD,
    "POST /storage/purges": TOLD,
    "GET /sign-in": OPEN,
    "POST /sign-in": OPEN,
    "POST /sign-out": OPEN,
    "GET /": PERSON,
    "GET /now/runs": OPEN,
    "GET /stations": OPEN,
    "GET /stations/{station_id}": OPEN,
    "GET /storage": OPEN,
    "GET /experiments": OPEN,
    "GET /experiments/{experiment_id}": SEE,
    "GET /experiments/{experiment_id}/people": SEE,
    "GET /experiments/{experiment_id}/runs": SEE,
    "GET /experiments/{experiment_id}/acquisition": SEE,
    "GET /experiments/{experiment_id}/acquisition/{kind}": ACQUIRE,
    "POST /experiments/{experiment_id}/acquisition/{kind}": ACQUIRE,
    "POST /acquisitions/{acquisition_id}/start": ACQUIRE,
    "POST /acquisitions/{acquisition_id}/stop": ACQUIRE,
    "GET /experiments/{experiment_id}/average": SEE,
    "GET /datasets/{dataset_id}": SEE,
    "GET /datasets/{dataset_id}/view": SEE,
    "GET /datasets/{dataset_id}/results": SEE,
    "GET /datasets/{dataset_id}/files": SEE,
    "GET /datasets/{dataset_id}/metadata": SEE,
    "GET /datasets/{dataset_id}/provenance": SEE,
    "GET /datasets/{dataset_id}/safety": SEE,
    "GET /datasets/{dataset_id}/process/{technique}": PROCESS,
    "POST /datasets/{dataset_id}/process/{technique}": PROCESS,
    "POST /datasets/{dataset_id}/process/{technique}/estimate": FORESEE,
    "GET /runs": OPEN,
    "GET /runs/{run_id}": SEE,
    "GET /runs/{run_id}/live": SEE,
    "GET /runs/{run_id}/log": PROCESS,
    "POST /runs/{run_id}/stop": PROCESS,
    "POST /runs/{run_id}/cancel": PROCESS,
    "POST /runs/{run_id}/retry": PROCESS,
    "GET /find": OPEN,
    "GET /find/process": PERSON,
    "POST /find/process": FLOWS,
    "POST /runs/retry": FLOWS,
    "GET /datasets/{dataset_id}/tomography": SEE,
    "GET /datasets/{dataset_id}/compare": SEE,
    "POST /datasets/{dataset_id}/tomography/center": FLOWS,
    "GET /workflows": PERSON,
    "GET /workflows/{workflow_id}": PERSON,
    "POST /workflows/{workflow_id}/switch": FLOWS,
    "POST /workflows/{workflow_id}/text": FLOWS,
    "POST /workflows/{workflow_id}/start": FLOWS,
    "GET /flows": PERSON,
    "GET /flows/{flow_id}": SEE,
    "GET /flows/{flow_id}/live": SEE,
    "POST /flows/{flow_id}/cancel": PROCESS,
    "GET /extend/{token}": TOLD,
    "POST /extend/{token}": TOLD,
}
_BLIND = ("anonymous", "stranger")
_READERS = ("collaborator",)


def _keys(app: FastAPI) -> Iterator[str]:
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, APIRoute):
            yield from (f"{method} {context.path}" for method in sorted(context.methods or ()))


def _apps(web: TestClient) -> dict[str, FastAPI]:
    mounts = web.app.routes  # type: ignore[attr-defined]
    return {
        mount.path: mount.app for mount in mounts if isinstance(mount, Mount) and isinstance(mount.app, FastAPI)
    }


def _restore_id(house: Populated) -> str:
    """Return the request to restore the house's dataset; it is made once."""
    facility = house.facility
    if not (known := facility.catalog.view(SERVICE).restores(dataset_id=house.raw.id).items):
        with facility.catalog.change(SERVICE) as tx:
            known = [
                tx.add_restore(
                    Restore(facility.ids.new("restore"), house.raw.id, "central", cache_until=facility.clock.now())
                )
            ]
    return known[0].id


def _flow_id(house: Populated) -> str:
    """Return the flow of the house's dataset; it is made once."""
    facility = house.facility
    known = {each.id for each in facility.catalog.view(SERVICE).flows(dataset_id=house.raw.id, limit=1000).items}
    if "flow_roles" not in known:
        with facility.catalog.change(SERVICE) as tx:
            tx.adopt_workflow(WORKFLOW)
            tx.begin_flow(
                Flow("flow_roles", "nobodys", 1, house.raw.experiment_id, house.raw.id, "hand:flow_roles")
            )
    return "flow_roles"


def _ended_flow_id(house: Populated) -> str:
    """Return a flow that is over, as the stream of its events ends then; it is made once."""
    facility = house.facility
    _flow_id(house)
    if "flow_zz" not in {each.id for each in facility.catalog.view(SERVICE).flows(limit=1000).items}:
        with facility.catalog.change(SERVICE) as tx:
            tx.begin_flow(Flow("flow_zz", "nobodys", 1, house.raw.experiment_id, house.raw.id, "hand:flow_zz"))
            tx.update_flow("flow_zz", FlowState.CANCELLED, "over")
    return "flow_zz"


def _send(web: TestClient, house: Populated, curves: Correlated, prefix: str, key: str, role: str) -> int:
    method, path = key.split(" ", 1)
    dataset = curves.first if "/xpcs" in path else house.raw
    plane = "xy" if "minus" in path else "sinogram"
    if path.endswith("/center"):
        path += "?row=0" if method == "GET" else ""
    elif "centers" in path:
        path += "?row=0&center=23.5"
    elif "minus" in path:
        dataset, path = house.result, path + "?span=1"
    asked = {
        "cuts": "?age=0.1&width=0.02",
        **dict.fromkeys(("average", "average.csv", "average.hdf"), f"?result={curves.first.id}"),
    }
    path += asked.get(path.rpartition("/")[2], "")
    known = {
        "{number}": str(BINS[0]),
        "{table}": "g2",
        "{dataset_id}": dataset.id,
        "{run_id}": house.run.id,
        "{restore_id}": _restore_id(house),
        "{flow_id}": _ended_flow_id(house) if path.endswith("/events") else _flow_id(house),
        "{workflow_id}": "nobodys",
        "{other_id}": house.result.id,
        "{center}": "23.5",
        "{plane}": plane,
        "{experiment_id}": dataset.experiment_id,
        "{station_id}": STATION,
        "{path:path}": house.raw.main_file,
        "{index}": "0",
        "{kind}": "meta",
        "{name}": "tomography",
        "{technique}": "tomography",
    }
    for name, value in known.items():
        path = path.replace(name, value)
    token = house.tokens[role]
    headers = {"Origin": "http://testserver"}
    if prefix and token:
        headers["Authorization"] = f"Bearer {token}"
    elif token:
        headers["Cookie"] = f"{COOKIE}={token}"
    bodies = {
        "/sessions": {"user": "x", "password": "y"},
        "/runs": {"technique": "tomography"},
        "/tokens": {},
        "/restores": {},
        "/policies": {"text": POLICY},
        "/forecast": {"days": 10},
        "/policies/check": {"text": POLICY},
        "/policies/simulate": {},
        "/workflows": {"text": WORKFLOW},
        "/workflows/check": {"text": WORKFLOW},
        "/flows": {"workflow": "nobodys"},
        "/reprocess": {"find": "kind:raw", "technique": "tomography", "dry_run": True},
    }
    body = next((each for end, each in bodies.items() if path.endswith(end)), None) if prefix else None
    return web.request(method, prefix + path, headers=headers, json=body if method == "POST" else None).status_code


def test_every_route_is_in_the_table(web: TestClient) -> None:
    apps = _apps(web)
    assert sorted(_keys(apps["/api/v1"])) == sorted(API)
    assert sorted(_keys(apps[""])) == sorted(PORTAL)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "key",
    [key for key, who in API.items() if "sessions" not in key and who not in ELSEWHERE],
)
def test_the_api_answers_each_role_as_the_table_says(
    web: TestClient, house: Populated, correlated: Correlated, key: str, role: str
) -> None:
    status = _send(web, house, correlated, "/api/v1", key, role)
    who = API[key]
    if (who == PERSON and role == "anonymous") or (who == NEAR and role == "anonymous"):
        assert status == 401
    elif who in (SEE, PROCESS, NEAR) and role in _BLIND:
        assert status == 404
    elif who == NEAR:
        assert status == 409
    elif who == MANAGE:
        assert status == {"anonymous": 401, "facility-admin": 200}.get(role, 403)
    elif who == PROCESS and role in _READERS:
        assert status == 403
    else:
        assert 200 <= status < 300


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("key", [key for key, who in PORTAL.items() if "sign" not in key and who not in ELSEWHERE])
def test_the_portal_answers_each_role_as_the_table_says(
    web: TestClient, house: Populated, correlated: Correlated, key: str, role: str
) -> None:
    status = _send(web, house, correlated, "", key, role)
    who = PORTAL[key]
    if role == "anonymous" and who != OPEN:
        assert status == (303 if key.startswith("GET") else 404)
    elif who in (SEE, PROCESS) and role in _BLIND:
        assert status == 404
    elif who == PROCESS and role in _READERS:
        assert status == 403
    else:
        assert status in ((200,) if key.startswith("GET") else (303,))


def test_what_is_invisible_and_what_is_not_there_answer_alike(web: TestClient, house: Populated) -> None:
    headers = {"Authorization": f"Bearer {house.tokens['stranger']}"}
    for path in ("", "/files", "/files/core.h5", "/preview", "/h5/meta", "/children", "/replicas", "/xpcs"):
        there = web.get(f"/api/v1/datasets/{house.raw.id}{path}", headers=headers)
        nowhere = web.get(f"/api/v1/datasets/{'0' * len(house.raw.id)}{path}", headers=headers)
        assert there.status_code == nowhere.status_code == 404
        assert there.text.replace(house.raw.id, "X") == nowhere.text.replace("0" * len(house.raw.id), "X")


def test_a_role_that_is_taken_back_ends_at_once(web: TestClient, house: Populated) -> None:
    """Signing out is the one way that tests can take here without touching what they share."""
    token = sign_in.new_api_token(house.facility, "pi", label="short")
    headers = {"Authorization": f"Bearer {token}"}
    assert web.get(f"/api/v1/datasets/{house.raw.id}", headers=headers).status_code == 200
    sign_in.sign_out(house.facility, token)
    assert web.get(f"/api/v1/datasets/{house.raw.id}", headers=headers).status_code == 401
