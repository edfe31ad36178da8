"""Where is it, until when, and why; what a policy would do; who may adopt one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lightkeep.lifecycle.retention import holds, policies, purge, purge_plan
from lightkeep.lifecycle.retention.explain import explain
from lightkeep.model.errors import Conflict, Forbidden, InvalidInput, NotFound, SignInRequired
from lightkeep.model.people import ANONYMOUS, SERVICE, Principal
from lightkeep.model.retention import HoldScope
from lightkeep.model.stores import ReplicaState
from lightkeep.policy.document import default_text
from lightkeep.policy.retention import Policy
from lightkeep.testing.retained import ADMIN, BEGIN, EXPERIMENT, MANAGER, MEMBER, PI, POLICY, Retained, retained

DAY = timedelta(days=1)
EXPIRY = datetime(2026, 4, 30, 23, 59, 59, 999999, tzinfo=UTC)
"""Three months after 2026-01-31."""


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Retained]:
    """A closed experiment with a dataset of two files on three stores."""
    house = retained(tmp_path)
    house.dataset("scan", {"a.h5": b"aaa", "b.h5": b"bbbbb"})
    house.close()
    with house.facility:
        yield house


def later(house: Retained, days: float) -> None:
    house.clock.at += timedelta(days)
    house.trust_clock()
    house.verified()


def test_it_says_where_a_dataset_is_and_until_when(kept: Retained) -> None:
    found = explain(kept.facility, kept.datasets["scan"].id, principal=MEMBER)
    assert (found.policy, found.rule) == ("three-months@1", "raw")
    assert found.clock_at == BEGIN
    assert [place.store_id for place in found.places] == ["central", "second", "vault"]
    assert found.text == "on central (2 files), second (2 files), vault (2 files); 3 good copies"
    central, second, _ = found.places
    assert (central.files, central.size, central.verified, central.verified_at) == (2, 8, 2, BEGIN)
    (answer,) = central.answers
    assert (answer.files, answer.size, answer.example, answer.rule) == (2, 8, "a.h5", "raw")
    assert answer.stays_until == EXPIRY
    assert answer.text.startswith("stays at least until 2026-04-30")
    assert second.answers[0].stays_until is None
    assert "for ever on warm" in second.answers[0].text


def test_each_condition_has_its_evidence_and_the_date_on_which_it_turns_true(kept: Retained) -> None:
    (answer,) = explain(kept.facility, kept.datasets["scan"].id, principal=PI).places[0].answers
    by_id = {each.id: each for each in answer.conditions}
    assert len(by_id) == 17
    assert by_id["P11"].turns_true_at == EXPIRY
    assert by_id["P11"].evidence["rule"] == "raw"
    assert by_id["P1"].met
    assert by_id["P1"].evidence["stores"] == ["second", "vault"]
    assert "no notice" in by_id["P3"].text


def test_a_notice_that_is_still_to_come_keeps_it_for_its_days(kept: Retained) -> None:
    later(kept, 100)
    (answer,) = explain(kept.facility, kept.datasets["scan"].id, principal=PI).places[0].answers
    assert answer.stays_until == kept.clock.at + 30 * DAY
    kept.told()
    (answer,) = explain(kept.facility, kept.datasets["scan"].id, principal=PI).places[0].answers
    assert answer.text == "may go once a plan names it: nothing but a plan and its approval"


def test_a_hold_is_said_with_its_reason_and_its_end(kept: Retained) -> None:
    until = BEGIN + 200 * DAY
    holds.add(
        kept.facility, HoldScope.DATASET, kept.datasets["scan"].id, reason="thesis", principal=MANAGER, until=until
    )
    (answer,) = explain(kept.facility, kept.datasets["scan"].id, principal=MEMBER).places[0].answers
    assert answer.stays_until == until
    assert "thesis" in answer.text
    (hold,) = kept.facility.catalog.view(SERVICE).holds().items
    holds.release(kept.facility, hold.id, principal=MANAGER)
    holds.add(kept.facility, HoldScope.EXPERIMENT, EXPERIMENT, reason="paper", principal=MANAGER)
    (answer,) = explain(kept.facility, kept.datasets["scan"].id, principal=MEMBER).places[0].answers
    assert answer.stays_until is None
    assert "paper" in answer.text


def test_files_that_differ_have_their_own_answers(kept: Retained) -> None:
    view = kept.facility.catalog.view(SERVICE)
    dataset_id = kept.datasets["scan"].id
    bad = next(each for each in view.replicas(dataset_id) if each.store_id == "central")
    with kept.facility.catalog.change(SERVICE) as tx:
        tx.set_replicas([bad], state=ReplicaState.SUSPECT)
    central = explain(kept.facility, dataset_id, principal=MEMBER).places[0]
    assert [answer.files for answer in central.answers] == [1, 1]
    assert any("suspect" in condition.text for answer in central.answers for condition in answer.conditions)


def test_one_file_can_be_asked_for(kept: Retained) -> None:
    found = explain(kept.facility, kept.datasets["scan"].id, principal=MEMBER, path="b.h5")
    assert [place.files for place in found.places] == [1, 1, 1]
    assert found.places[0].size == 5
    with pytest.raises(NotFound):
        explain(kept.facility, kept.datasets["scan"].id, principal=MEMBER, path="c.h5")


def test_what_went_to_the_trash_is_told_with_the_day_it_may_be_destroyed(kept: Retained) -> None:
    kept.facility = replace(
        kept.facility,
        config=replace(kept.facility.config, purge=replace(kept.facility.config.purge, max_fraction=1)),
    )
    later(kept, 130)
    kept.told()
    plan = purge_plan.plan(kept.facility, "central", principal=ADMIN)
    purge_plan.approve(kept.facility, plan.id, principal=MANAGER)
    purge.run(kept.facility, plan.id, principal=ADMIN)
    central = explain(kept.facility, kept.datasets["scan"].id, principal=MEMBER).places[0]
    assert (central.files, central.trashed, central.answers) == (0, 2, ())
    assert central.destroy_after is not None
    assert central.destroy_after >= kept.clock.at + 14 * DAY


def test_who_may_not_see_it_learns_nothing(kept: Retained) -> None:
    for who in (Principal("stranger"), ANONYMOUS):
        with pytest.raises(NotFound):
            explain(kept.facility, kept.datasets["scan"].id, principal=who)


def test_the_public_reads_where_public_data_are_and_nothing_of_the_team(kept: Retained) -> None:
    with kept.facility.catalog.change(SERVICE) as tx:
        tx.release_experiment(EXPERIMENT, at=BEGIN - DAY)
    holds.add(kept.facility, HoldScope.DATASET, kept.datasets["scan"].id, reason="secret", principal=MANAGER)
    for who in (ANONYMOUS, Principal("stranger")):
        found = explain(kept.facility, kept.datasets["scan"].id, principal=who)
        assert [place.files for place in found.places] == [2, 2, 2]
        assert all(place.answers == () for place in found.places)
        assert "secret" not in repr(found)
    assert explain(kept.facility, kept.datasets["scan"].id, principal=MEMBER).places[0].answers


# ---- adopting


def test_only_who_manages_the_facility_adopts_a_policy(kept: Retained) -> None:
    for who in (MANAGER, PI, MEMBER):
        with pytest.raises(Forbidden):
            policies.adopt(kept.facility, default_text(), principal=who)
    with pytest.raises(Forbidden):
        policies.adopt(kept.facility, default_text(), principal=SERVICE)
    version = policies.adopt(kept.facility, default_text(), principal=ADMIN)
    assert (version.stamp, version.author) == ("central-3-months@1", "ada")


def test_a_policy_that_wants_copies_on_an_unknown_store_is_refused(kept: Retained) -> None:
    text = POLICY.replace('name = "raw"', 'name = "raw"\ncopies = ["store:moon"]')
    with pytest.raises(InvalidInput, match="store moon, which does not exist"):
        policies.adopt(kept.facility, text, principal=ADMIN)


def test_an_experiment_gets_a_policy_of_its_own_from_who_manages_it(kept: Retained) -> None:
    own = POLICY.replace("three-months", "own").replace("3 months", "1 year").replace('["*"]', '["none"]')
    policies.adopt(kept.facility, own, principal=ADMIN)
    with pytest.raises(Forbidden):
        policies.assign(kept.facility, EXPERIMENT, "own", principal=PI)
    with pytest.raises(Conflict):
        policies.assign(kept.facility, EXPERIMENT, "gone", principal=MANAGER)
    policies.assign(kept.facility, EXPERIMENT, "own", principal=MANAGER)
    found = explain(kept.facility, kept.datasets["scan"].id, principal=MEMBER)
    assert found.policy == "own@1"
    assert found.places[0].answers[0].stays_until == datetime(2027, 1, 31, 12, tzinfo=UTC)


# ---- simulating


def simulated(kept: Retained, days: float, **more: object) -> dict[str, dict[str, int]]:
    found = policies.simulate(kept.facility, at=BEGIN + timedelta(days), principal=ADMIN, **more)  # type: ignore[arg-type]
    return found.by_store()


def test_a_simulation_says_what_goes_from_which_store(kept: Retained) -> None:
    assert simulated(kept, 40)["central"]["goes"] == 0
    assert simulated(kept, 70)["central"] == {
        "size": 8, "goes": 0, "under_pressure": 8, "held": 0, "lacks_copies": 0, "last_copies": 0,
    }  # fmt: skip
    assert simulated(kept, 100)["central"]["goes"] == 8
    assert simulated(kept, 10_000)["vault"]["goes"] == 0
    (effect,) = [
        each
        for each in policies.simulate(kept.facility, at=BEGIN + 100 * DAY, principal=ADMIN).effects
        if each.store_id == "central"
    ]
    assert (effect.experiment_id, effect.policy, effect.rule, effect.files) == (
        EXPERIMENT,
        "three-months@1",
        "raw",
        2,
    )


def test_a_simulation_knows_holds_and_missing_copies(kept: Retained) -> None:
    kept.dataset("alone", {"c.h5": b"cc"}, on=["central"])
    assert simulated(kept, 100)["central"]["lacks_copies"] == 2
    until = BEGIN + 90 * DAY
    holds.add(
        kept.facility, HoldScope.DATASET, kept.datasets["scan"].id, reason="x", principal=MANAGER, until=until
    )
    assert simulated(kept, 89.5)["central"]["held"] == 8
    assert simulated(kept, 100)["central"]["goes"] == 8


def test_another_policy_can_be_tried_before_it_is_adopted(kept: Retained) -> None:
    longer = policies.check(POLICY.replace("3 months", "1 year")).policy
    assert simulated(kept, 100, policies=[longer])["central"]["goes"] == 0
    other = Policy("other", stations=("8-ID*",))
    assert simulated(kept, 100, policies=[other])["central"]["goes"] == 0
    loose = policies.check(POLICY.replace("durable = true", "last_copy = true")).policy
    kept.dataset("alone", {"c.h5": b"cc"}, on=["central"])
    assert simulated(kept, 100, policies=[loose])["central"]["last_copies"] == 2


def test_a_simulation_shows_only_what_one_may_see(kept: Retained) -> None:
    at = BEGIN + 100 * DAY
    assert policies.simulate(kept.facility, at=at, principal=MEMBER).effects
    assert policies.simulate(kept.facility, at=at, principal=Principal("stranger")).effects == ()
    with pytest.raises(SignInRequired):
        policies.simulate(kept.facility, at=at, principal=ANONYMOUS)
    with pytest.raises(InvalidInput, match="past"):
        policies.simulate(kept.facility, at=BEGIN - DAY, principal=ADMIN)


def test_what_a_simulation_lets_go_is_what_a_plan_takes(kept: Retained) -> None:
    kept.facility = replace(
        kept.facility,
        config=replace(kept.facility.config, purge=replace(kept.facility.config.purge, max_fraction=1)),
    )
    kept.dataset("alone", {"c.h5": b"cc"}, on=["central"])
    goes = simulated(kept, 130)["central"]["goes"]
    later(kept, 130)
    kept.told()
    assert purge_plan.plan(kept.facility, "central", principal=ADMIN).size == goes == 8
