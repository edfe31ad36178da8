"""Every change is one event in the same transaction, or nothing at all."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightkeep.catalog import Change, SourceKey, parse, transitions
from lightkeep.catalog.plans import list_hash
from lightkeep.model.acquisition import Acquisition, SourceKind
from lightkeep.model.datasets import Dataset, DatasetKind, DatasetState, Metadata, SkippedFile
from lightkeep.model.errors import Conflict, InvalidInput, NotFound
from lightkeep.model.experiments import Experiment, ExperimentState, Station
from lightkeep.model.mail import Mail
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.quantity import Quantity
from lightkeep.model.retention import (
    ArchiveUnit,
    Hold,
    HoldKind,
    HoldScope,
    Notice,
    PlanReason,
    PurgePlan,
    Restore,
)
from lightkeep.model.runs import Run, RunState
from lightkeep.model.stores import Proof, ReplicaState, StoreRecord
from lightkeep.model.usage import Growth, Quota
from lightkeep.model.workflows import Flow
from lightkeep.policy.document import default_text

Mutator = Callable[[Change, Any, Dataset], Any]

WORKFLOW = 'id = "w"\n[[stage]]\nname = "r"\ntechnique = "tomography"\n'
MUTATORS: dict[str, Mutator] = {
    "add_station": lambda tx, house, dataset: tx.add_station(Station("C")),
    "add_experiment": lambda tx, house, dataset: tx.add_experiment(Experiment("a3", "A")),
    "add_person": lambda tx, house, dataset: tx.add_person(Person("new", "New")),
    "add_grant": lambda tx, house, dataset: tx.add_grant(Grant("nobody", Role.MEMBER, Scope.STATION, "A")),
    "remove_grant": lambda tx, house, dataset: tx.remove_grant(Grant("pi", Role.PI, Scope.EXPERIMENT, "a1")),
    "set_password": lambda tx, house, dataset: tx.set_password("pi", "hash"),
    "set_experiment_state": lambda tx, house, dataset: tx.set_experiment_state("a1", ExperimentState.CLOSED),
    "revise_experiment": lambda tx, house, dataset: tx.revise_experiment("a1", title="Silver wire"),
    "release_experiment": lambda tx, house, dataset: tx.release_experiment(
        "a1", at=datetime(2027, 1, 1, tzinfo=UTC)
    ),
    "set_store": lambda tx, house, dataset: tx.set_store(
        replace(house.view("lightkeep").store("central"), capacity=10**15)
    ),
    "set_growth": lambda tx, house, dataset: tx.set_growth(Growth("A", bytes_per_day=1e12)),
    "set_quota": lambda tx, house, dataset: tx.set_quota(Quota(Scope.EXPERIMENT, "a1", 10**12)),
    "remove_growth": lambda tx, house, dataset: tx.remove_growth("B"),
    "remove_quota": lambda tx, house, dataset: tx.remove_quota(Scope.STATION, "B"),
    "add_store": lambda tx, house, dataset: tx.add_store(StoreRecord("tape", "posix", "/tape", "uuid-2")),
    "add_dataset": lambda tx, house, dataset: tx.add_dataset(Dataset("ds_new", "a1", "new")),
    "add_files": lambda tx, house, dataset: tx.add_files(dataset.id, house.files(dataset.id, {"new": b"new"})),
    "add_skipped": lambda tx, house, dataset: tx.add_skipped([SkippedFile(dataset.id, "fifo", "fifo", "a pipe")]),
    "describe_dataset": lambda tx, house, dataset: tx.describe_dataset(
        dataset.id, metadata=Metadata(), format="nexus", main_file="x", technique="xpcs"
    ),
    "complete_dataset": lambda tx, house, dataset: tx.complete_dataset(dataset.id),
    "withdraw_dataset": lambda tx, house, dataset: tx.withdraw_dataset(tooth(house).id),
    "add_hold": lambda tx, house, dataset: tx.add_hold(
        Hold("hold_1", HoldScope.DATASET, dataset.id, HoldKind.USER, "still needed")
    ),
    "adopt_policy": lambda tx, house, dataset: tx.adopt_policy(default_text()),
    "add_replicas": lambda tx, house, dataset: tx.add_replicas(
        tooth(house).id,
        [
            replace(each, id="replica_new", key=f"again/{each.key}")
            for each in house.view("lightkeep").replicas(tooth(house).id)[:1]
        ],
    ),
    "add_unit": lambda tx, house, dataset: tx.add_unit(
        ArchiveUnit("unit_1", "central", "units/unit_1.tar", "a1", 10240, "ab" * 32, 1, 10)
    ),
    "add_restore": lambda tx, house, dataset: tx.add_restore(
        Restore("restore_1", tooth(house).id, "central", datetime(2027, 1, 1, tzinfo=UTC))
    ),
    "add_plan": lambda tx, house, dataset: tx.add_plan(
        PurgePlan(
            *("plan_1", "central", "uuid-1", PlanReason.EXPIRY, list_hash([]), 0, 0, 0),
            datetime(2027, 1, 1, tzinfo=UTC),
        ),
        [],
    ),
    "add_notice": lambda tx, house, dataset: tx.add_notice(
        Notice(
            *("notice_1", "a1", "central", 30, "ab" * 32, 1, 10, datetime(2027, 1, 1, tzinfo=UTC)),
            recipients=("lee@uni.example",),
        ),
        members=["replica_1"],
        token_hash="hash",
        mail=Mail("notice.notice_1", ("lee@uni.example",), "subject", "text"),
    ),
    "set_replicas": lambda tx, house, dataset: tx.set_replicas(
        house.view("lightkeep").replicas(tooth(house).id), state=ReplicaState.SUSPECT
    ),
    "add_acquisition": lambda tx, house, dataset: tx.add_acquisition(
        Acquisition("acq_1", "a1", "detector", SourceKind.FOLDER)
    ),
    "adopt_workflow": lambda tx, house, dataset: tx.adopt_workflow(WORKFLOW),
    "begin_flow": lambda tx, house, dataset: tx.begin_flow(
        Flow("flow_1", "w", 1, "a1", dataset.id, "hand:flow_1")
    ),
    "add_run": lambda tx, house, dataset: tx.add_run(Run("run_2", "a1", dataset.id, "xpcs")),
    "update_run": lambda tx, house, dataset: tx.update_run("run_1", state=RunState.RUNNING),
    "record": lambda tx, house, dataset: tx.record("dataset.downloaded", dataset.id, "a1", {"files": 2}),
    "add_token": lambda tx, house, dataset: tx.add_token("pi", token_hash="beef", kind="api", label="script"),
    "remove_token": lambda tx, house, dataset: tx.remove_token("cafe"),
}
WITHOUT_EVENT = {
    *("add_samples", "remember_sources", "set_anchored", "set_fact", "forget_listings"),
    *("add_lease", "renew_lease", "end_lease", "clear_leases"),
    *("hold_acquisition", "free_acquisition", "join", "leave"),
    *("queue_mail", "begin_mail", "end_mail", "put_mail_back", "drop_mail_of", "lose_recipients"),
}
"""Caches, leases and the outbox: they say nothing about what the catalogue holds."""
READS = {"cases", "dataset_snapshot", "fact", "freed_since", "item", "notice", "plan", "twins", "workers"}
"""What a change looks up for itself."""
FOLLOWING = {
    *("release_hold", "assign_policy", "set_notice_state", "update_restore"),
    *("set_acquisition_state", "lease_acquisition", "note_spool_removed"),
    *("update_flow", "lose"),
    *("approve_plan", "set_plan_state", "move_items", "note_items"),
}
"""Steps of what others began: tests/lifecycle/purge, test_restore.py and test_spooled.py look at their events."""


def tooth(house: Any) -> Dataset:
    return house.view("lightkeep").dataset_named("a1", "tooth")


@pytest.fixture
def receiving(house: Any) -> Dataset:
    """A dataset that is coming in, with a queued run and a token beside it."""
    dataset = house.begin_dataset()
    with house.catalog.change(SERVICE) as tx:
        tx.add_run(Run("run_1", "a1", dataset.id, "tomography"))
        tx.add_token("pi", token_hash="cafe", kind="session", label="browser")
        tx.set_growth(Growth("B", bytes_per_day=1.0))
        tx.set_quota(Quota(Scope.STATION, "B", 1))
    return dataset


def test_the_table_of_mutators_is_whole() -> None:
    public = {name for name, _ in inspect.getmembers(Change, inspect.isfunction) if not name.startswith("_")}
    assert public == set(MUTATORS) | WITHOUT_EVENT | READS | FOLLOWING


@pytest.mark.parametrize("name", MUTATORS)
def test_every_mutator_appends_exactly_one_event(house: Any, receiving: Dataset, name: str) -> None:
    before = house.catalog.head()[0]
    with house.catalog.change(Principal("pi")) as tx:
        MUTATORS[name](tx, house, receiving)
    (event,) = house.view("lightkeep").events(after=before)
    assert event.seq == before + 1
    assert event.actor == "pi"
    assert house.catalog.verify_events() == []


@pytest.mark.parametrize("name", MUTATORS)
def test_a_change_that_fails_leaves_neither_row_nor_event(
    house: Any, receiving: Dataset, name: str, dump: Callable[[Any], Any]
) -> None:
    before = dump(house.catalog)

    def change_and_fail() -> None:
        with house.catalog.change(SERVICE) as tx:
            MUTATORS[name](tx, house, receiving)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change_and_fail()
    assert dump(house.catalog) == before
    assert house.catalog.verify_events() == []


@pytest.mark.parametrize(
    "name", sorted(set(MUTATORS) - {"record", "add_files", "add_skipped", "describe_dataset"})
)
def test_doing_it_again_is_refused_or_does_nothing(house: Any, receiving: Dataset, name: str) -> None:
    with house.catalog.change(SERVICE) as tx:
        MUTATORS[name](tx, house, receiving)
    head = house.catalog.head()
    if name in (
        "add_grant",
        "remove_token",
        "update_run",
        "revise_experiment",
        "release_experiment",
        "set_growth",
        "set_store",
        "set_quota",
        "adopt_policy",
        "adopt_workflow",
        "add_unit",
    ):
        with house.catalog.change(SERVICE) as tx:
            MUTATORS[name](tx, house, receiving)
        assert house.catalog.head() == head
    elif name != "set_password":
        with pytest.raises((Conflict, NotFound)), house.catalog.change(SERVICE) as tx:
            MUTATORS[name](tx, house, receiving)
        assert house.catalog.head() == head


def test_registering_a_group_again_changes_nothing(house: Any, receiving: Dataset) -> None:
    pairs = house.files(receiving.id, {"a": b"one", "b": b"two"})
    with house.catalog.change(SERVICE) as tx:
        first = tx.add_files(receiving.id, pairs)
    head = house.catalog.head()
    again = house.files(receiving.id, {"b": b"two", "a": b"one"})
    with house.catalog.change(SERVICE) as tx:
        second = tx.add_files(receiving.id, again)
    assert [f.id for f in second] == [f.id for f in reversed(first)]
    assert house.catalog.head() == head
    assert len(house.view("pi").replicas(receiving.id)) == 2
    assert house.view("pi").dataset(receiving.id).files == 2


def test_a_complete_dataset_takes_what_it_has_and_nothing_else(house: Any) -> None:
    dataset = tooth(house)
    with house.catalog.change(SERVICE) as tx:
        tx.add_files(dataset.id, house.files(dataset.id, {"tooth.h5": b"content"}))
    with pytest.raises(Conflict, match="complete"), house.catalog.change(SERVICE) as tx:
        tx.add_files(dataset.id, house.files(dataset.id, {"tooth.h5": b"other"}))


def test_other_content_at_a_path_is_its_next_version(house: Any, receiving: Dataset) -> None:
    with house.catalog.change(SERVICE) as tx:
        tx.add_files(receiving.id, house.files(receiving.id, {"a": b"one", "b": b"12345"}))
        changed = house.files(receiving.id, {"a": b"longer", "c": b"new"})
        tx.add_files(receiving.id, [*changed, changed[0]])
    view = house.view("pi")
    assert [(f.path, f.version, f.size) for f in view.files(receiving.id)] == [
        ("a", 2, 6),
        ("b", 1, 5),
        ("c", 1, 3),
    ]
    assert view.file(receiving.id, "a").version == 2
    dataset = view.dataset(receiving.id)
    assert (dataset.files, dataset.size) == (3, 14)
    assert len(view.replicas(receiving.id)) == 4
    assert house.catalog.verify_events() == []


def test_a_file_on_a_second_store_gets_a_second_replica(house: Any, receiving: Dataset) -> None:
    ((file, replica),) = house.files(receiving.id, {"a": b"one"})
    with house.catalog.change(SERVICE) as tx:
        tx.add_store(StoreRecord("tape", "posix", "/tape", "uuid-2"))
        tx.add_files(receiving.id, [(file, replica)])
        tx.add_files(receiving.id, [(file, replace(replica, id="rp_second", store_id="tape"))])
    assert [r.store_id for r in house.view("pi").replicas([file.id])] == ["central", "tape"]
    assert house.view("pi").dataset(receiving.id).files == 1


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda f, r: (replace(f, sha256="abc"), r), InvalidInput),
        (lambda f, r: (replace(f, dataset_id="ds_other"), r), InvalidInput),
        (lambda f, r: (f, replace(r, file_id="fl_other")), InvalidInput),
        (lambda f, r: (f, replace(r, store_id="none")), NotFound),
        (lambda f, r: (replace(f, path="a\0b"), r), InvalidInput),
        (lambda f, r: (replace(f, path="a\ud800"), r), InvalidInput),
    ],
)
def test_a_file_that_cannot_be_is_refused(
    house: Any, receiving: Dataset, wrong: Any, error: type[Exception]
) -> None:
    ((file, replica),) = house.files(receiving.id, {"a": b"one"})
    with pytest.raises(error), house.catalog.change(SERVICE) as tx:
        tx.add_files(receiving.id, [wrong(file, replica)])
    assert house.view("pi").files(receiving.id).total == 0


ODD = [b"\xff\xfe", b"tab\tnew\nline", "ü/日本".encode(), b"-rf", b"'; DROP TABLE file; --", b" ", b"a\\b", b"%_*"]


def test_odd_names_come_back_byte_for_byte(house: Any, receiving: Dataset) -> None:
    names = [os.fsdecode(name) for name in ODD]
    pairs = [
        (f, replace(r, key=f.path))
        for f, r in house.files(receiving.id, {n: n.encode("utf8", "replace") for n in names})
    ]
    skipped = [SkippedFile(receiving.id, name, "symlink", "a link", target=name) for name in names]
    keys = [SourceKey(receiving.id, "/src/\udcff", name, 1, 2**62, 3, 4, 5, "fl") for name in names]
    with house.catalog.change(SERVICE) as tx:
        tx.add_files(receiving.id, pairs)
        tx.add_skipped(skipped)
        tx.remember_sources(keys)
    view = house.view("pi")
    assert [os.fsencode(f.path) for f in view.files(receiving.id)] == sorted(ODD)
    assert {r.key for r in view.replicas(receiving.id)} == set(names)
    assert {(s.path, s.target) for s in view.skipped(receiving.id)} == {(n, n) for n in names}
    assert house.catalog.known_sources("/src/\udcff") == {key.path: key for key in keys}
    for name in names:
        assert view.file(receiving.id, name).path == name
        assert name in {f.path for f in view.files(receiving.id, prefix=name[:1])}
    assert house.catalog.verify_events() == []


def test_a_prefix_finds_what_begins_with_its_bytes(house: Any, receiving: Dataset) -> None:
    paths = ["a/1", "a/2", "a0", "b/1", "a", "\udcff", "\udcff\udcff/x"]
    with house.catalog.change(SERVICE) as tx:
        tx.add_files(receiving.id, house.files(receiving.id, {p: p.encode("utf8", "replace") for p in paths}))
    for prefix in ("a", "a/", "\udcff", "b", "none"):
        page = house.view("pi").files(receiving.id, prefix=prefix)
        assert {f.path for f in page} == {p for p in paths if p.startswith(prefix)}
        assert page.total == len(page.items)


def test_text_that_no_database_holds_is_put_right_at_the_door(house: Any) -> None:
    odd = "a\0b\ud800c"
    metadata = Metadata(
        {odd: Quantity.of(1.5, "mm"), "bad": Quantity.of(float("nan"), "keV"), "inf": Quantity.of(float("inf"))},
        {"sample": odd, "long": "x" * 100_000},
        {odd: [odd, float("nan"), {"deep": b"bytes"}], "big": 2**80, "none": None},
    )
    dataset = house.add_dataset("a1", odd, metadata=metadata, contents={"a": b"a"})
    view = house.view("pi")
    kept = view.dataset(dataset.id).metadata
    assert view.dataset(dataset.id).name == "a\ufffdb\ufffdc"
    assert kept.texts["sample"] == "a\ufffdb\ufffdc"
    assert kept.texts["bad"] == "nan keV"
    assert kept.quantities["a\ufffdb\ufffdc"] == Quantity.of(1.5, "mm")
    assert kept.rest["a\ufffdb\ufffdc"] == ["a\ufffdb\ufffdc", "nan", {"deep": "b'bytes'"}]
    assert kept.rest["big"] == 2**80
    for look in (view.dataset, view.experiment, view.run, view.store, view.station, view.person):
        with pytest.raises(NotFound):
            look(odd)
    assert view.datasets(parse("sample:a*")).total == 1


@pytest.mark.parametrize("table", ["EXPERIMENT", "DATASET", "REPLICA", "RUN"])
def test_every_state_has_its_followers(table: str) -> None:
    follow = getattr(transitions, table)
    states = type(next(iter(follow)))
    assert set(follow) == set(states)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.lists(st.sampled_from(ExperimentState), max_size=6))
def test_an_experiment_moves_only_along_the_drawing(
    new_experiment: Callable[[], Any], path: list[ExperimentState]
) -> None:
    house, id_ = new_experiment()
    state = ExperimentState.OPEN
    for then in path:
        if then in transitions.EXPERIMENT[state]:
            with house.catalog.change(SERVICE) as tx:
                tx.set_experiment_state(id_, then)
            state = then
        else:
            with pytest.raises(Conflict, match=f"is {state}"), house.catalog.change(SERVICE) as tx:
                tx.set_experiment_state(id_, then)
        assert house.view("lightkeep").experiment(id_).state is state


@pytest.fixture
def new_experiment(house: Any) -> Callable[[], Any]:
    def make() -> Any:
        id_ = house.catalog.ids.new("exp")
        with house.catalog.change(SERVICE) as tx:
            tx.add_experiment(Experiment(id_, "A"))
        return house, id_

    return make


@pytest.mark.parametrize("then", [RunState.DONE, RunState.FAILED, RunState.CANCELLED, RunState.STOPPED_EARLY])
def test_a_run_that_is_over_stays_as_it_is(house: Any, receiving: Dataset, then: RunState) -> None:
    with house.catalog.change(SERVICE) as tx:
        tx.update_run("run_1", state=RunState.RUNNING, engine="processes", resolved={"center": 296.0})
        tx.update_run("run_1", progress=0.5, message="half")
        tx.update_run("run_1", state=then, message="over", error="why" if then is RunState.FAILED else None)
    over = house.view("pi").run("run_1")
    assert (over.state, over.progress, over.message, over.engine) == (then, 0.5, "over", "processes")
    assert over.resolved == {"center": 296.0}
    assert over.created_at < over.started_at < over.ended_at
    with house.catalog.change(SERVICE) as tx:
        tx.update_run("run_1", progress=0.9, message="late")
        tx.update_run("run_1", state=then, message="again")
    assert house.view("pi").run("run_1") == over
    with pytest.raises(Conflict), house.catalog.change(SERVICE) as tx:
        tx.update_run("run_1", state=RunState.RUNNING)


def test_progress_is_no_event(house: Any, receiving: Dataset) -> None:
    head = house.catalog.head()
    with house.catalog.change(SERVICE) as tx:
        tx.update_run("run_1", progress=0.1, message="reading")
    assert house.catalog.head() == head
    assert house.view("pi").run("run_1").progress == 0.1


def test_replicas_go_from_suspect_to_corrupt_or_back(house: Any) -> None:
    replicas = house.view("pi").replicas(tooth(house).id)
    at = datetime(2026, 11, 5, 12, 30, 1, 123456, tzinfo=UTC)
    with house.catalog.change(SERVICE) as tx:
        tx.set_replicas(replicas, state=ReplicaState.SUSPECT)
        tx.set_replicas(replicas[:1], state=ReplicaState.VERIFIED, verified_at=at, proof=Proof.EVICTED)
        tx.set_replicas(replicas[1:], state=ReplicaState.CORRUPT)
    good, bad = house.view("pi").replicas(tooth(house).id)
    assert {(r.state, r.verified_at, r.proof) for r in (good, bad) if r.id == replicas[0].id} == {
        (ReplicaState.VERIFIED, at, Proof.EVICTED)
    }
    with pytest.raises(Conflict), house.catalog.change(SERVICE) as tx:
        tx.set_replicas(replicas, state=ReplicaState.VERIFIED)
    assert {r.state for r in house.view("pi").replicas(tooth(house).id)} == {
        ReplicaState.VERIFIED,
        ReplicaState.CORRUPT,
    }


def test_a_withdrawn_dataset_is_in_no_list_count_or_facet(house: Any) -> None:
    before = house.view("pi").experiment("a1")
    dataset = tooth(house)
    with house.catalog.change(SERVICE) as tx:
        tx.withdraw_dataset(dataset.id)
    view = house.view("pi")
    assert dataset.id not in {d.id for d in view.datasets()}
    assert view.experiment("a1").datasets == before.datasets - 1
    assert view.experiment("a1").size == before.size - dataset.size
    assert dict(view.facets(experiment_id="a1")["technique"]) == {"xpcs": 1}
    assert view.dataset(dataset.id).state is DatasetState.WITHDRAWN


def test_what_is_coming_in_is_found_only_when_asked_for(house: Any, receiving: Dataset) -> None:
    view = house.view("pi")
    assert receiving.id not in {d.id for d in view.datasets()}
    assert [d.id for d in view.datasets(parse("state:receiving"))] == [receiving.id]
    assert view.dataset(receiving.id).state is DatasetState.RECEIVING


def test_a_derived_dataset_knows_its_parents_and_they_their_children(house: Any) -> None:
    parents = tuple(d.id for d in house.view("pi").datasets(experiment_id="a1"))
    derived = house.add_dataset("a1", "slices", kind=DatasetKind.DERIVED, parents=parents)
    view = house.view("pi")
    assert view.dataset(derived.id).parents == parents
    assert [d.id for d in view.children(parents[0])] == [derived.id]
    assert view.datasets(kind=DatasetKind.DERIVED).items == [view.dataset(derived.id)]


def test_a_new_password_ends_the_sessions_and_leaves_the_scripts(house: Any, receiving: Dataset) -> None:
    with house.catalog.change(SERVICE) as tx:
        tx.add_token("pi", token_hash="script", kind="api", label="", expires_at=None)
        tx.add_token("pi", token_hash="old", kind="api", label="", expires_at=datetime(2026, 1, 1, tzinfo=UTC))
        tx.set_password("pi", "hash")
    assert house.catalog.person_by_token("cafe") is None
    assert house.catalog.person_by_token("old") is None
    assert house.catalog.person_by_token("script").id == "pi"
    assert house.catalog.password_hash("pi") == "hash"
    assert house.catalog.password_hash("member") is None
    assert house.catalog.password_hash("none") is None


def test_sources_are_remembered_by_root_and_dataset(house: Any, receiving: Dataset) -> None:
    key = SourceKey(receiving.id, "/data", "a.h5", 1, 2, 3, 4, 5, "fl_1")
    with house.catalog.change(SERVICE) as tx:
        tx.remember_sources([key])
        tx.remember_sources([key._replace(mtime_ns=9), key._replace(root="/other")])
    assert house.catalog.known_sources("/data") == {"a.h5": key._replace(mtime_ns=9)}
    assert house.catalog.known_sources("/data", dataset_id="ds_none") == {}


def test_a_user_name_is_lower_case_and_not_one_of_ours(catalog: Any) -> None:
    for name in ("Lee", "anonymous", "lightkeep", ""):
        with pytest.raises(InvalidInput), catalog.change(SERVICE) as tx:
            tx.add_person(Person(name, "x"))
