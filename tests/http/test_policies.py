"""Policies and explanations over HTTP."""

from __future__ import annotations

from starlette.testclient import TestClient

from lightkeep.testing.populated import Populated

POLICY = 'id = "q"\n[[rule]]\nname = "all"\n[rule.hot]\nkeep = "1 year"\n'


def test_explain_says_where_until_when_and_why(member: TestClient, house: Populated) -> None:
    found = member.get(f"/api/v1/datasets/{house.raw.id}/explain").json()
    assert found["dataset_id"] == house.raw.id
    (place,) = found["places"]
    assert place["files"] == place["verified"] > 0
    (answer,) = place["answers"]
    assert {each["id"] for each in answer["conditions"]} == {f"P{n}" for n in range(1, 18)}
    assert answer["stays_until"] is None
    one = member.get(f"/api/v1/datasets/{house.raw.id}/explain", params={"path": house.raw.main_file}).json()
    assert one["places"][0]["files"] == 1


def test_a_text_is_checked_and_tried_before_it_is_adopted(member: TestClient) -> None:
    checked = member.post("/api/v1/policies/check", json={"text": POLICY}).json()
    assert checked["policy"] == "q"
    assert any("no station follows it" in finding for finding in checked["findings"])
    bad = member.post("/api/v1/policies/check", json={"text": POLICY.replace("keep", "keeep")})
    assert bad.status_code == 422
    assert "did you mean `keep`" in bad.json()["detail"]
    tried = member.post("/api/v1/policies/simulate", json={"text": POLICY, "at": "2040-01-01T00:00:00Z"}).json()
    assert tried["effects"]
    assert member.post("/api/v1/policies/simulate", json={"at": "2001-01-01T00:00:00Z"}).status_code == 422
    assert member.post("/api/v1/policies", json={"text": POLICY}).status_code == 403
