"""Until when something is kept, who asked for more, and the way back from the archive and the trash."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from html import unescape

import pytest
from starlette.testclient import TestClient

from lightkeep.lifecycle.replicas import restore
from lightkeep.lifecycle.retention import purge, purge_plan
from lightkeep.model.datasets import Dataset
from lightkeep.model.mail import Mail
from lightkeep.model.people import SERVICE, Person, Principal
from lightkeep.model.retention import HoldScope, Notice, NoticeState
from lightkeep.model.stores import ReplicaState
from lightkeep.testing.retained import ADMIN, EXPERIMENT, MANAGER, MEMBER, PI, Retained, listing_of

from .conftest import As, read

TOKEN = "t" * 43


def _in_trash(kept: Retained) -> None:
    plan_id = purge_plan.plan(kept.facility, "central", principal=ADMIN).id
    purge_plan.approve(kept.facility, plan_id, principal=ADMIN)
    purge.run(kept.facility, plan_id, principal=ADMIN)


def _flat(kept: Retained) -> Dataset:
    """Return the dataset that has no copy near but the one on `central`."""
    return kept.datasets["flat"]


def _standing(kept: Retained, dataset: Dataset) -> list[str]:
    return [each.reason for each in kept.facility.catalog.view(SERVICE).holds_over(dataset.id)]


def test_the_safety_tab_begins_with_the_copies_and_when_one_may_go(kept: Retained, as_: As) -> None:
    page = f"/datasets/{kept.datasets['scan'].id}/safety"
    text = read(as_(PI).get(page).text)
    assert "Three verified copies, on central, second and vault." in text
    assert "It may leave central as soon as a plan for it is approved." in text
    as_(PI).post(page.replace("/safety", "/extend"))
    until = f"{kept.clock.at + timedelta(days=90):%Y-%m-%d}"
    for where in (page, page.replace("/safety", "")):
        assert f"Nothing of it leaves central before {until}." in read(as_(PI).get(where).text)


def test_one_press_extends_and_the_hold_is_released_again(kept: Retained, as_: As) -> None:
    dataset = kept.datasets["scan"]
    assert as_(MEMBER).post(f"/datasets/{dataset.id}/extend").status_code == 403
    assert not _standing(kept, dataset)
    as_(PI).post(f"/datasets/{dataset.id}/extend")
    assert _standing(kept, dataset) == ["more time was asked for in the portal"]
    page = as_(PI).get(f"/datasets/{dataset.id}/safety").text
    release = re.search(r'action="(/holds/[^"]+/release)"', page)
    assert release
    as_(PI).post(release[1], data={"back": f"/datasets/{dataset.id}/safety"})
    assert not _standing(kept, dataset)


def test_a_hold_until_a_day_ends_with_that_day_and_a_wrong_day_is_refused(kept: Retained, as_: As) -> None:
    dataset = kept.datasets["scan"]
    address = f"/datasets/{dataset.id}/hold"
    assert as_(PI).post(address, data={"reason": "a paper", "until": "soon"}).status_code == 422
    assert as_(PI).post(address, data={"reason": "a paper", "until": "2027-01-31"}).status_code == 303
    (hold,) = kept.facility.catalog.view(SERVICE).holds_over(dataset.id)
    assert f"{hold.until:%Y-%m-%d %H:%M}" == "2027-02-01 00:00"
    assert as_(PI).post(address, data={"reason": "for ever"}).status_code == 403  # that takes the station's staff
    assert as_(MANAGER).post(address, data={"reason": "for ever"}).status_code == 303


def test_releasing_a_hold_never_leads_to_another_site(kept: Retained, as_: As) -> None:
    from lightkeep.lifecycle.retention import holds

    for back in ("//evil.example", "https://evil.example", "/datasets/\\evil", "/datasets//evil.example"):
        until = kept.clock.at + timedelta(days=1)
        hold = holds.extend(kept.facility, EXPERIMENT, until=until, principal=PI)
        assert as_(PI).post(f"/holds/{hold.id}/release", data={"back": back}).headers["location"] == "/"


def test_the_keeping_tab_says_what_leaves_first_and_stays_elsewhere(kept: Retained, as_: As) -> None:
    page = f"/experiments/{EXPERIMENT}/keeping"
    text = read(as_(PI).get(page).text)
    assert "3 files may leave central as soon as a plan is approved. Verified copies stay elsewhere." in text
    assert "no end" in text
    as_(PI).post(f"/experiments/{EXPERIMENT}/extend")
    assert "It is held: nothing of it goes before" in read(as_(PI).get(page).text)


def test_what_a_team_decided_and_who_was_told_is_not_for_the_public(kept: Retained, as_: As) -> None:
    as_(PI).post(f"/experiments/{EXPERIMENT}/extend")
    with kept.facility.catalog.change(SERVICE) as tx:
        tx.add_person(Person("stranger", "Stranger"))
        tx.release_experiment(EXPERIMENT, at=kept.clock.at)
    for who in (None, Principal("stranger")):
        pages = [f"/experiments/{EXPERIMENT}/keeping", f"/datasets/{kept.datasets['scan'].id}/safety", "/storage"]
        for page in pages:
            answer = as_(who).get(page)
            assert answer.status_code == 200
            for secret in ("lee@example.org", "more time was asked for", "May go soon", "Release"):
                assert secret not in answer.text, (who, page, secret)
    assert "lee@example.org" in as_(PI).get(f"/experiments/{EXPERIMENT}/keeping").text


# ---- the way back


def test_what_is_in_the_trash_says_so_and_comes_back_in_one_press(kept: Retained, as_: As) -> None:
    dataset = _flat(kept)
    page = f"/datasets/{dataset.id}"
    assert "in the archive" not in as_(PI).get(page).text
    _in_trash(kept)
    text = read(as_(PI).get(page).text)
    assert "It is in the archive, on vault; what was near is in the trash." in text
    assert "No picture: its files are not near." in text
    assert f'action="{page}/undo"' not in as_(MEMBER).get(page).text
    assert as_(MEMBER).post(f"{page}/undo").status_code == 403
    assert as_(PI).post(f"{page}/undo").status_code == 303
    states = {each.store_id: each.state for each in kept.facility.catalog.view(SERVICE).replicas(dataset.id)}
    assert states["central"] is ReplicaState.VERIFIED
    assert kept.states().count("delete_pending") == 2  # the other dataset's stay where they are
    assert as_(PI).post(f"{page}/undo").status_code == 409


def test_a_restore_is_asked_for_followed_and_done(kept: Retained, as_: As) -> None:
    dataset = _flat(kept)
    page = f"/datasets/{dataset.id}"
    _in_trash(kept)
    assert f'action="{page}/restore"' in as_(MEMBER).get(page).text
    assert as_(MEMBER).post(f"{page}/restore").status_code == 303
    text = read(as_(MEMBER).get(page).text)
    assert "It is on its way back: queued 0 of 1 files" in text
    assert f'action="{page}/restore"' not in as_(MEMBER).get(page).text
    assert "On its way back queued" in re.sub(r"State .* Asked ", "", read(as_(PI).get("/storage").text))
    assert "On its way back" not in as_(None).get("/storage").text
    (done,) = restore.run_queue(kept.facility)
    assert done.error == ""
    assert "on its way back" not in as_(MEMBER).get(page).text
    assert "0 of 1" not in read(as_(PI).get("/storage").text)


def test_who_may_not_read_gets_no_button_and_no_restore(kept: Retained, as_: As) -> None:
    _in_trash(kept)
    page = f"/datasets/{_flat(kept).id}"
    assert as_(None).post(f"{page}/restore").status_code == 401
    assert as_(None).get(page).status_code == 303
    assert not kept.facility.catalog.view(SERVICE).restores().total


# ---- the link in the mail


@pytest.fixture
def link(kept: Retained) -> str:
    """Return the address in a mail that was sent seven days before something may go."""
    ids = [each.id for each in kept.facility.catalog.view(SERVICE).replicas(kept.datasets["scan"].id)][:1]
    at = kept.clock.at + timedelta(days=7)
    policy = "three-months@1"
    notice = Notice(
        "notice_7", EXPERIMENT, "central", 7, listing_of(ids), 2, 3500, at, ("lee@example.org",), policy=policy
    )
    with kept.facility.catalog.change(SERVICE) as tx:
        secret = hashlib.sha256(TOKEN.encode()).hexdigest()
        tx.add_notice(notice, members=ids, token_hash=secret, mail=Mail("m", notice.recipients, "", ""))
        tx.set_notice_state(notice.id, NoticeState.SENT)
    return f"/extend/{TOKEN}"


def test_the_link_of_a_mail_shows_what_goes_and_keeps_it_without_a_sign_in(
    kept: Retained, as_: As, link: str
) -> None:
    browser: TestClient = as_(None)
    day = f"{kept.clock.at + timedelta(days=7):%Y-%m-%d}"
    assert f"2 files, 3.50 kB, leave central on {day}." in read(browser.get(link).text)
    assert "Keep all of it 90 days more" in browser.get(link).text
    assert not kept.facility.catalog.view(SERVICE).holds(scope=HoldScope.EXPERIMENT).total  # looking kept nothing
    assert browser.post(link).headers["location"] == link
    until = f"{kept.clock.at + timedelta(days=97):%Y-%m-%d}"
    page = browser.get(link).text
    assert f"All of it is kept until {until}. There is nothing more to do." in read(page)
    assert "<button" not in page.split("<main", 1)[1]


def test_a_link_that_was_made_up_says_so(as_: As) -> None:
    answer = as_(None).get(f"/extend/{'x' * 43}")
    assert answer.status_code == 404
    assert "This link is not good" in unescape(answer.text)


def test_a_manager_asks_for_a_copy_and_sees_that_it_is_still_to_be_made(kept: Retained, as_: As) -> None:
    dataset = _flat(kept)
    page = f"/datasets/{dataset.id}"
    assert "Copy or archive" not in as_(PI).get(f"{page}/safety").text
    assert as_(PI).post(f"{page}/copy", data={"store": "second"}).status_code == 403
    assert "Copy or archive" in as_(MANAGER).get(f"{page}/safety").text
    done = as_(MANAGER).post(f"{page}/copy", data={"store": "second", "units": "true"})
    assert done.status_code == 303
    assert "Archive units on second are still to be made" in read(as_(MANAGER).get(f"{page}/safety").text)
    assert "still to be made" not in read(as_(PI).get(f"{page}/safety").text)
