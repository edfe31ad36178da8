"""Holds, purges, notices and upkeep at the keyboard."""

from __future__ import annotations


def test_a_hold_is_made_listed_and_released(cli):
    made = cli("hold", "add", "experiment", "2026-11-lee-1", "--days", "90", "--reason", "Thesis", "--json").data
    assert (made["scope"], made["reason"]) == ("experiment", "Thesis")
    assert made["id"] in cli("hold", "list").out
    assert cli("hold", "release", made["id"]).code == 0
    assert "Nothing is held" in cli("hold", "list").out
    assert cli("hold", "release", made["id"]).code == 6


def test_a_hold_on_what_is_not_there_is_an_error_with_a_hint(cli):
    found = cli("hold", "add", "experiment", "nowhere", "--reason", "x")
    assert found.code == 3
    assert found.err.startswith("error: ")
    assert (
        cli(
            "hold", "add", "experiment", "2026-11-lee-1", "--days", "1", "--until", "2030-01-01", "--reason", "x"
        ).code
        == 2
    )


def test_without_a_policy_nothing_can_be_planned_and_the_error_says_why(cli):
    found = cli("purge", "plan", "central")
    assert found.code == 6
    assert "nothing can go" in found.err
    assert "No plan yet" in cli("purge", "list").out


def test_status_says_whether_purges_may_run_and_the_switch_works(cli):
    assert "purges may run" in cli("purge", "status").out
    assert cli("purge", "off", "--reason", "The archive moves").code == 0
    assert "The archive moves" in cli("purge", "status").out
    assert cli("purge", "status", "--json").data["suspended"]
    assert cli("purge", "on").code == 0
    assert cli("purge", "status", "--json").data["suspended"] == []
    assert "UTC" in cli("purge", "confirm-clock").out


def test_unknown_plans_and_notices_are_not_found(cli):
    for words in (
        ("purge", "show"),
        ("purge", "approve"),
        ("purge", "run"),
        ("purge", "undo"),
        ("purge", "cancel"),
    ):
        assert cli(*words, "plan_none").code == 3
    assert cli("notices", "acknowledge", "notice_none").code == 3
    assert "Nobody had to be told" in cli("notices", "list").out
    assert cli("purge", "destroy").code == 0


def test_a_mail_that_is_no_bounce_is_refused(cli, home):
    (home / "mail.eml").write_text("Subject: hello\n\nhello\n")
    assert cli("notices", "bounced", "mail.eml").code == 2


def test_upkeep_tells_what_it_did(cli):
    done = cli("upkeep", "--json")
    assert done.code == 0
    assert done.data["failed"] == {}
