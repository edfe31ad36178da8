"""A file's bytes: whole, in ranges, never other than the manifest says (R1), never run by a browser."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lightkeep.asgi import compose
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset
from lightkeep.model.people import SERVICE
from lightkeep.model.stores import ReplicaState
from lightkeep.testing.populated import EXPERIMENT, Populated
from lightkeep.workflow import open_workflow


def _address(dataset: Dataset, path: str = "") -> str:
    return f"/api/v1/datasets/{dataset.id}/files/{path or dataset.main_file}"


def _taken_in(house: Populated, source: Path) -> Dataset:
    return ingest(house.facility, source, experiment_id=EXPERIMENT, principal=SERVICE, quiet_s=0.0).dataset


def test_a_whole_file_hashes_to_the_manifest(member: TestClient, house: Populated) -> None:
    answer = member.get(_address(house.raw))
    file = house.facility.catalog.view(SERVICE).file(house.raw.id, house.raw.main_file)
    assert hashlib.sha256(answer.content).hexdigest() == file.sha256
    assert answer.headers["etag"] == f'"{file.sha256}"'
    assert int(answer.headers["content-length"]) == file.size


@pytest.mark.parametrize(
    ("asked", "part"),
    [("bytes=0-99", slice(0, 100)), ("bytes=-7", slice(-7, None)), ("bytes=1000-", slice(1000, None))],
)
def test_a_range_is_that_part_of_the_file(member: TestClient, house: Populated, asked: str, part: slice) -> None:
    whole = member.get(_address(house.raw)).content
    answer = member.get(_address(house.raw), headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == whole[part]
    first = part.indices(len(whole))[0]
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/{len(whole)}"


@pytest.mark.parametrize("asked", ["bytes=99999999999-", "bytes=-0"])
def test_a_range_outside_the_file_is_416(member: TestClient, house: Populated, asked: str) -> None:
    answer = member.get(_address(house.raw), headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"].startswith("bytes */")


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=0-1,5-6", "lines=1-2", "bytes=a-b"])
def test_a_range_that_means_nothing_gives_the_whole_file(member: TestClient, house: Populated, asked: str) -> None:
    answer = member.get(_address(house.raw), headers={"Range": asked})
    assert answer.status_code == 200
    assert len(answer.content) == house.raw.size


def test_a_copy_that_is_current_is_not_sent_again(member: TestClient, house: Populated) -> None:
    tag = member.head(_address(house.raw)).headers["etag"]
    answer = member.get(_address(house.raw), headers={"If-None-Match": tag})
    assert (answer.status_code, answer.content) == (304, b"")


def test_a_range_of_another_version_gives_the_whole_file(member: TestClient, house: Populated) -> None:
    answer = member.get(_address(house.raw), headers={"Range": "bytes=0-9", "If-Range": '"another"'})
    assert answer.status_code == 200


def test_a_file_is_stored_by_the_browser_and_never_shown(
    member: TestClient, house: Populated, tmp_path: Path
) -> None:
    source = tmp_path / "page"
    source.mkdir()
    name = 'evil";\tX-Bad: 1.html'
    (source / name).write_text("<script>alert(1)</script>")
    dataset = _taken_in(house, source)
    file = house.facility.catalog.view(SERVICE).files(dataset.id).items[0]
    answer = member.get(_address(dataset, "evil%22%3B%09X-Bad%3A%201.html"))
    assert answer.status_code == 200
    assert file.path == name
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "x-bad" not in answer.headers


def test_a_name_that_is_no_utf8_is_fetched_byte_for_byte(
    member: TestClient, house: Populated, tmp_path: Path
) -> None:
    source = tmp_path / "odd"
    source.mkdir()
    Path(os.fsdecode(os.fsencode(source) + b"/gr\xf6sse.dat")).write_bytes(b"twelve bytes")
    dataset = _taken_in(house, source)
    assert member.get(f"/api/v1/datasets/{dataset.id}/files").json()["items"][0]["path"] == "gr\\xf6sse.dat"
    assert member.get(_address(dataset, "gr%F6sse.dat")).content == b"twelve bytes"


@pytest.mark.parametrize(
    "path",
    [
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "/etc/passwd",
        "%2Fetc%2Fpasswd",
        "core.h5/../../x",
        "%ff%fe",
        "core.h5%2500",
        ".lightkeep-store",
    ],
)
def test_only_what_the_manifest_names_can_be_fetched(member: TestClient, house: Populated, path: str) -> None:
    answer = member.get(_address(house.raw, path))
    assert answer.status_code in (400, 404)
    assert b"root:" not in answer.content


def test_a_symlink_that_is_planted_in_the_store_is_not_followed(tmp_path: Path) -> None:
    from lightkeep.testing.populated import populate

    house = populate(tmp_path)
    with open_workflow(house.facility, work=False) as orchestrator:
        client = TestClient(compose(house.facility, orchestrator), raise_server_exceptions=False)
        headers = {"Authorization": f"Bearer {house.tokens['member']}"}
        stored = local_path(house.facility, house.raw.id, house.raw.main_file)
        stored.chmod(0o600)
        stored.parent.chmod(0o700)
        stored.unlink()
        stored.symlink_to("/etc/passwd")
        answers = [
            client.get(_address(house.raw), headers=headers),
            client.get(f"/api/v1/datasets/{house.raw.id}/h5/meta", headers=headers),
            client.get(f"/api/v1/datasets/{house.raw.id}/preview", headers=headers),
        ]
    house.close()
    assert all(answer.status_code >= 400 and b"root:" not in answer.content for answer in answers)


def test_bytes_that_changed_on_the_store_are_never_a_complete_answer(tmp_path: Path) -> None:
    from lightkeep.testing.populated import populate

    house = populate(tmp_path)
    stored = local_path(house.facility, house.raw.id, house.raw.main_file)
    stored.chmod(0o600)
    with stored.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    headers = {"Authorization": f"Bearer {house.tokens['member']}"}
    with open_workflow(house.facility, work=False) as orchestrator:
        client = TestClient(compose(house.facility, orchestrator), raise_server_exceptions=False)
        part = client.get(_address(house.raw), headers=headers | {"Range": "bytes=0-9"})
        whole = client.get(_address(house.raw), headers=headers)
    replicas = house.facility.catalog.view(SERVICE).replicas(house.raw.id)
    house.close()
    assert part.status_code == 500
    assert part.json()["code"] == "corrupt"
    assert whole.status_code != 200 or len(whole.content) < house.raw.size
    assert [replica.state for replica in replicas] == [ReplicaState.SUSPECT]
