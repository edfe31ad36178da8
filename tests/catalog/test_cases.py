"""What the catalogue knows about a deletion, and that nothing goes on that alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, update

from lightkeep.catalog import Catalog, schema
from lightkeep.catalog.cases import UNASKED
from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.errors import Conflict, InvalidInput, NotFound
from lightkeep.model.experiments import ExperimentState
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.retention import Hold, HoldKind, HoldScope, Lease, LeaseKind, RestoreState
from lightkeep.model.runs import Run
from lightkeep.model.stores import Proof, Replica, ReplicaState, StoreRecord, Tier, member_key
from lightkeep.policy.case import Case, Step
from lightkeep.policy.document import default_text
from lightkeep.policy.purge import may_delete

LATER = datetime(2027, 11, 1, tzinfo=UTC)
TAPE = StoreRecord("tape", "posix", "/tape", "uuid-2", Tier.TAPE, "silo", is_durable=True)


def keys_of(house: Any, dataset: Dataset, store_id: str = "central") -> list[tuple[str, str]]:
    found = house.catalog.view(SERVICE).replicas(dataset.id)
    return [(replica.file_id, replica.id) for replica in found if replica.store_id == store_id]


@pytest.fixture
def tooth(house: Any) -> Dataset:
    """A raw dataset of a1 on `central`, with a verified copy on `tape`, under the default policy; a1 is closed."""
    catalog: Catalog = house.catalog
    dataset = house.begin_dataset("a1", "wire")
    pairs = house.files(dataset.id, {"a.h5": b"aa", "b.h5": b"bbb"})
    copies = [(f, replace(r, id=catalog.ids.new("rp"), store_id="tape")) for f, r in pairs]
    with catalog.change(SERVICE) as tx:
        tx.add_store(TAPE)
        tx.add_files(dataset.id, [*pairs, *copies])
        dataset = tx.complete_dataset(dataset.id)
    with catalog.change(Principal("admin")) as tx:
        tx.adopt_policy(default_text())
        tx.set_experiment_state("a1", ExperimentState.CLOSED)
    return dataset


def cases(house: Any, dataset: Dataset, who: str = "lightkeep") -> list[Case]:
    found: list[Case] = house.view(who).cases(keys_of(house, dataset))
    return found


def unmet(case: Case, now: datetime = LATER) -> set[str]:
    return {condition.id for condition in may_delete(case, now).conditions if not condition.met}


def test_a_case_holds_what_the_decision_asks(house: Any, tooth: Dataset) -> None:
    first, second = cases(house, tooth)
    assert [case.size for case in (first, second)] == [2, 3]
    assert first.replica.store.id == "central"
    assert first.replica.key == f"{tooth.id}/a.h5"
    (other,) = first.others
    assert (other.store.id, other.state, other.is_planned) == ("tape", ReplicaState.VERIFIED, False)
    home = first.home
    assert (home.dataset_id, home.experiment_id, home.facts.station_id, home.facts.size) == (
        tooth.id,
        "a1",
        "A",
        5,
    )
    assert home.policy is not None
    assert (home.policy.stamp, home.policy.author) == ("central-3-months@1", "admin")
    assert home.clock.state is ExperimentState.CLOSED
    assert home.clock.closed_at is not None
    assert home.clock.newest_raw_at == tooth.completed_at
    assert may_delete(first, LATER).rule == "central"


def test_nothing_goes_on_what_the_catalogue_knows_alone(house: Any, tooth: Dataset) -> None:
    assert cases(house, tooth)[0].guards is UNASKED
    assert unmet(cases(house, tooth)[0]) == {"P3", "P5", "P7", "P8", "P9", "P10", "P13", "P16"}


def test_a_change_and_a_view_gather_the_same(house: Any, tooth: Dataset) -> None:
    keys = keys_of(house, tooth)[::-1]
    with house.catalog.change(SERVICE) as tx:
        assert tx.cases(keys) == house.view("lightkeep").cases(keys)
        assert [case.replica.replica_id for case in tx.cases(keys)] == [replica_id for _, replica_id in keys]
        assert tx.cases(keys[:1], step=Step.DESTROY)[0].step is Step.DESTROY


def test_what_one_may_not_see_has_no_case(house: Any, tooth: Dataset) -> None:
    assert len(cases(house, tooth, "member")) == 2
    for who in ("nobody", "anonymous"):
        with pytest.raises(NotFound):
            cases(house, tooth, who)
    (file_id, replica_id), (other_file, _) = keys_of(house, tooth)
    for key in ((file_id, "rp_none"), (other_file, replica_id)):
        with pytest.raises(NotFound):
            house.view("lightkeep").cases([key])


@pytest.mark.parametrize("scope", HoldScope)
def test_a_hold_reaches_it_from_every_level(house: Any, tooth: Dataset, scope: HoldScope) -> None:
    places = {
        HoldScope.FACILITY: "", HoldScope.STATION: "A", HoldScope.STORE: "central",
        HoldScope.EXPERIMENT: "a1", HoldScope.DATASET: tooth.id, HoldScope.FILE: keys_of(house, tooth)[0][0],
    }  # fmt: skip
    with house.catalog.change(SERVICE) as tx:
        tx.add_hold(Hold("hd_1", scope, places[scope], HoldKind.USER, "thesis"))
    first, second = cases(house, tooth)
    assert "P2" in unmet(first)
    assert ("P2" in unmet(second)) == (scope is not HoldScope.FILE)
    with house.catalog.change(SERVICE) as tx:
        tx.release_hold("hd_1")
    assert "P2" not in unmet(cases(house, tooth)[0])


@pytest.mark.parametrize(
    ("scope", "place"),
    [(HoldScope.STATION, "B"), (HoldScope.STORE, "tape"), (HoldScope.EXPERIMENT, "a2"), (HoldScope.DATASET, "")],
)
def test_a_hold_elsewhere_does_not_reach_it(house: Any, tooth: Dataset, scope: HoldScope, place: str) -> None:
    place = place or house.view("lightkeep").dataset_named("a1", "tooth").id
    with house.catalog.change(SERVICE) as tx:
        tx.add_hold(Hold("hd_1", scope, place, HoldKind.USER, "thesis"))
    assert not any("P2" in unmet(case) for case in cases(house, tooth))


def test_a_reader_and_a_run_block_it(house: Any, tooth: Dataset) -> None:
    with house.catalog.change(SERVICE) as tx:
        tx.add_lease(Lease("le_1", tooth.id, LeaseKind.DOWNLOAD, "lee", LATER + timedelta(hours=1)))
    assert "P17" in unmet(cases(house, tooth)[0])
    with house.catalog.change(SERVICE) as tx:
        tx.end_lease("le_1")
    assert "P17" not in unmet(cases(house, tooth)[0])


@pytest.mark.parametrize("is_named", [False, True], ids=["its dataset", "named in its parameters"])
def test_a_run_reads_what_it_was_asked_for_and_what_it_names(house: Any, tooth: Dataset, is_named: bool) -> None:
    asked = house.view("lightkeep").dataset_named("a1", "tooth").id if is_named else tooth.id
    params = {"flat": tooth.id} if is_named else {}
    with house.catalog.change(SERVICE) as tx:
        tx.add_run(Run("run_1", "a1", asked, "average", params))
    assert cases(house, tooth)[0].home.runs == ("run_1",)


def test_a_copy_on_a_plan_that_may_run_does_not_count(house: Any, tooth: Dataset) -> None:
    replica_id = keys_of(house, tooth, "tape")[0][1]
    plan(house, "frozen", [replica_id])
    first, second = cases(house, tooth)
    assert first.others[0].is_planned
    assert not second.others[0].is_planned
    assert "P1" in unmet(first)
    with house.catalog.engine.begin() as connection:
        connection.execute(update(schema.purge_plan).values(state="cancelled"))
    assert not cases(house, tooth)[0].others[0].is_planned


def test_a_deleted_copy_is_no_copy(house: Any, tooth: Dataset) -> None:
    with house.catalog.engine.begin() as connection:
        on_tape = schema.replica.c.store_id == "tape"
        connection.execute(update(schema.replica).where(on_tape).values(state=ReplicaState.DELETED.value))
    assert cases(house, tooth)[0].others == ()


def test_a_restored_dataset_stays_as_long_as_it_was_asked_for(house: Any, tooth: Dataset) -> None:
    for number, (state, days) in enumerate(
        ((RestoreState.DONE, 1), (RestoreState.QUEUED, 2), (RestoreState.FAILED, 3))
    ):
        with house.catalog.engine.begin() as connection:
            connection.execute(
                insert(schema.restore).values(
                    id=f"rs_{number}", dataset_id=tooth.id, target_id="central", paths="[]", state=state.value,
                    cache_until=LATER + timedelta(days), files_done=0, error="", created_by="", created_at=LATER,
                )
            )  # fmt: skip
    assert cases(house, tooth)[0].cache_until == LATER + timedelta(days=2)
    assert house.view("lightkeep").cases(keys_of(house, tooth, "tape"))[0].cache_until is None


def test_what_is_public_is_said(house: Any, tooth: Dataset) -> None:
    assert not cases(house, tooth)[0].home.is_public
    with house.catalog.change(SERVICE) as tx:
        tx.release_experiment("a1", at=datetime(2026, 1, 1, tzinfo=UTC))
    assert cases(house, tooth)[0].home.is_public


def test_a_member_of_a_unit_that_the_catalogue_does_not_know_is_never_whole(house: Any, tooth: Dataset) -> None:
    file_id = keys_of(house, tooth)[0][0]
    key = member_key("units/u_1.tar", 512, 2)
    member = Replica("rp_m", file_id, "tape", key, ReplicaState.VERIFIED, LATER, Proof.DIRECT)
    values = {"id": "rp_m", "file_id": file_id, "store_id": "tape", "key": key.encode(), "state": "verified",
              "proof": "direct", "created_at": LATER}  # fmt: skip
    with house.catalog.engine.begin() as connection:
        connection.execute(insert(schema.replica).values(**values))
    (case,) = house.view("lightkeep").cases([(file_id, member.id)])
    assert case.unit is not None
    assert case.unit.members > 10**9
    with house.catalog.engine.begin() as connection:
        connection.execute(
            insert(schema.archive_unit).values(
                id="u_1", store_id="tape", key=b"units/u_1.tar", experiment_id="a1", size=2048, sha256=b"x",
                members=7, content_size=10, state="verified", created_at=LATER,
            )
        )  # fmt: skip
    (case,) = house.view("lightkeep").cases([(file_id, member.id)])
    assert case.unit is not None
    assert (case.unit.members, case.unit.on_plan) == (7, 0)


def test_the_number_of_statements_does_not_grow_with_the_replicas(
    house: Any, tooth: Dataset, count_statements: Callable[[Catalog, Callable[[], Any]], int]
) -> None:
    view, keys = house.view("lightkeep"), keys_of(house, tooth)
    one = count_statements(house.catalog, lambda: view.cases(keys[:1]))
    assert count_statements(house.catalog, lambda: view.cases(keys * 20)) == one <= 16


def plan(house: Any, state: str, replica_ids: list[str]) -> None:
    at = datetime(2026, 11, 2, tzinfo=UTC)
    with house.catalog.engine.begin() as connection:
        connection.execute(
            insert(schema.purge_plan).values(
                id="pl_1", store_id="tape", store_uuid="uuid-2", reason="expiry", hash="", files=1, size=1, need=0,
                expires_at=at, state=state, created_by="", created_at=at, approvals="[]", freed=0,
            )
        )  # fmt: skip
        for position, replica_id in enumerate(replica_ids):
            connection.execute(
                insert(schema.purge_item).values(
                    plan_id="pl_1", position=position, replica_id=replica_id, file_id="", dataset_id="",
                    experiment_id="a1", store_id="tape", key=b"", size=1, sha256=b"", policy="", notice_id="",
                    state="planned", evidence="{}", trash_key=b"",
                )
            )  # fmt: skip


# ---- policies


def test_a_new_text_is_a_new_version_and_the_old_one_stays(house: Any) -> None:
    catalog = house.catalog
    text = default_text()
    with catalog.change(Principal("admin")) as tx:
        first = tx.adopt_policy(text)
        assert tx.adopt_policy(text) == first
        second = tx.adopt_policy(text.replace('"3 months"', '"4 months"'))
        third = tx.adopt_policy(text)
    assert [v.stamp for v in (first, second, third)] == [f"central-3-months@{n}" for n in (1, 2, 3)]
    assert first.author == "admin"
    view = house.view("member")
    assert [v.version for v in view.policy_versions().items] == [3, 2, 1]
    assert view.policy_version("central-3-months", 2).text == second.text
    assert view.policy_version("central-3-months").version == 3
    (policy,) = view.policies()
    assert (policy.version, policy.author) == (3, "admin")
    adopted = [event for event in catalog.view(SERVICE).events(limit=1000) if event.verb == "policy.adopted"]
    assert [event.subject for event in adopted] == [
        "central-3-months@1",
        "central-3-months@2",
        "central-3-months@3",
    ]


def test_a_text_that_is_no_policy_is_not_adopted(house: Any) -> None:
    with pytest.raises(InvalidInput), house.catalog.change(Principal("admin")) as tx:
        tx.adopt_policy('id = "p"')
    assert house.view("lightkeep").policy_versions().total == 0


def test_who_is_not_signed_in_reads_no_policy(house: Any, tooth: Dataset) -> None:
    assert house.view("nobody").policy_versions().total == 1
    assert house.view("anonymous").policy_versions().total == 0
    with pytest.raises(NotFound):
        house.view("anonymous").policy_version("central-3-months")


def test_an_experiment_may_have_a_policy_of_its_own(house: Any, tooth: Dataset) -> None:
    with house.catalog.change(Principal("admin")) as tx:
        tx.adopt_policy('id = "own"\n[[rule]]\nname = "r"\n[rule.hot]\nkeep = "for ever"')
        tx.assign_policy("a1", "own")
    policy = cases(house, tooth)[0].home.policy
    assert policy is not None
    assert policy.id == "own"
    with pytest.raises(Conflict), house.catalog.change(Principal("admin")) as tx:
        tx.assign_policy("a1", "gone")
    with house.catalog.change(Principal("admin")) as tx:
        tx.assign_policy("a1", "")
    assert house.view("lightkeep").experiment("a1").policy_id == ""


def test_the_clock_looks_at_raw_data_only(house: Any, tooth: Dataset) -> None:
    raw = tooth.completed_at
    house.add_dataset("a1", "result", kind=DatasetKind.DERIVED)
    assert cases(house, tooth)[0].home.clock.newest_raw_at == raw
    newer = house.add_dataset("a1", "late")
    assert cases(house, tooth)[0].home.clock.newest_raw_at == newer.completed_at
