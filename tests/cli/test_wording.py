"""What people stumbled over: every line says what is so, in 80 columns, and what to do next."""

from __future__ import annotations

import pytest


def narrow(text: str) -> bool:
    return all(len(line) <= 80 for line in text.splitlines())


def test_the_stores_are_listed_with_tier_capacity_and_domain(cli):
    assert cli("store", "set", "central", "--capacity", "1.5 PB", "--domain", "hall-1", "--durable").code == 0
    head, line = cli("store", "list").out.splitlines()[:2]
    assert {"tier", "capacity", "free", "domain"} <= set(head.split())
    assert "hot" in line
    assert "1.50 PB" in line


def test_a_store_that_fails_together_with_another_is_said_in_80_columns(cli, home):
    (home / "second").mkdir()
    added = cli("store", "add", "second", "second")
    assert "fails together with central" in " ".join(added.out.split())
    assert narrow(added.out.replace(str(home), "")) or len(str(home)) > 40


def test_suspended_purges_give_their_reason_in_80_columns(cli):
    cli(
        "purge",
        "off",
        "--reason",
        "The archive moves to another building and nothing may go until it is back there",
    )
    assert narrow(cli("purge", "status").out)


def test_nothing_to_restore_is_said(cli):
    assert "Nothing was asked for" in cli("restore", "--list").out
    assert cli("restore", "--list", "--json").data["total"] == 0


def test_a_hold_is_released_with_a_reason_that_the_trail_keeps(cli):
    made = cli("hold", "add", "experiment", "2026-11-lee-1", "--days", "90", "--reason", "Thesis", "--json").data
    assert cli("hold", "release", made["id"], "--reason", "The thesis is out").code == 0


def test_the_packaged_policy_is_simulated_before_it_is_adopted(cli):
    assert "if nothing else changes" in cli("policy", "simulate", "--default").out
    assert cli("policy", "simulate", "x.toml", "--default").code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "p.toml"), "add --proposal NUMBER"),
        (("e", "--from", "p.toml", "--proposal", "1"), "brings its own name, title and dates"),
    ],
)
def test_an_experiment_from_a_proposal_says_what_is_missing(cli, words, said):
    found = cli("experiment", "create", *words)
    assert found.code == 2
    assert said in " ".join(found.err.split())


def test_every_state_of_a_plan_an_item_and_a_notice_has_its_shape():
    from lightkeep.cli.output import STATES
    from lightkeep.model.retention import ItemState, NoticeState, PlanState, RestoreState

    for kind in (PlanState, ItemState, NoticeState, RestoreState):
        assert not {each.value for each in kind} - set(STATES)
