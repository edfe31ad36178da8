"""Planted bugs that must be found: each changes one line of what decides, deletes, verifies, guards or records.

    python tests/safety/mutants.py                all of them; one line of JSON at the end
    python tests/safety/mutants.py P1 expiry      those whose name holds one of the words
    python tests/safety/mutants.py 0/2            every second one, from the first

A mutant is planted into a package of links in a temporary folder; the tests named with it must then fail. A text
that is not found exactly once is an error: the list must follow the code.
"""

# ruff: noqa: E501 (one mutant, one line)

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Loaded once: each mutant runs in a fork that has them already, and the package of its own.
import alembic.command  # noqa: F401
import finufft  # noqa: F401
import h5py  # noqa: F401
import hypothesis  # noqa: F401
import numba  # noqa: F401
import pydantic  # noqa: F401
import pytest
import scipy.optimize  # noqa: F401
import sqlalchemy.dialects.sqlite  # noqa: F401

ROOT = Path(__file__).parents[2]
PURGE, RETENTION, SPANS = "policy/purge.py", "policy/retention.py", "policy/spans.py"
CASES, SESSION, DESTROY = (
    "catalog/cases.py",
    "lifecycle/retention/purge_session.py",
    "lifecycle/retention/purge_destroy.py",
)
RUN, PLANNER, GUARDS = (
    "lifecycle/retention/purge.py",
    "lifecycle/retention/purge_plan.py",
    "lifecycle/health/guards.py",
)
PURGER, PLANS, ACCESS = "lifecycle/retention/purger.py", "catalog/plans.py", "policy/access.py"
VERIFY, AUDIT, DOCUMENT = "lifecycle/replicas/verify.py", "catalog/audit.py", "policy/document.py"

RULES = ("tests/policy/test_purge.py",)
DATES = ("tests/policy/test_spans.py", "tests/policy/test_retention.py")
TEXTS = ("tests/policy/test_retention.py",)
MODEL = ("tests/safety/test_model_check.py",)
GATHERED = ("tests/catalog/test_cases.py",)
EXECUTED = ("tests/lifecycle/purge/test_purge.py",)
UNITS = ("tests/lifecycle/purge/test_units.py",)
EDGES = ("tests/lifecycle/purge/test_edges.py",)
GUARDED = ("tests/lifecycle/purge/test_guards.py",)
READ = ("tests/lifecycle/test_scrub.py",)
TRAIL = ("tests/catalog/test_audit.py",)
SEEN = ("tests/policy/test_access.py", "tests/catalog/test_visibility.py")


@dataclass(frozen=True)
class Mutant:
    """One planted bug."""

    name: str
    file: str
    """Below src/lightkeep."""
    old: str
    new: str
    tests: tuple[str, ...]


def executed(test: str) -> tuple[str, ...]:
    """Return a test of the executor: all of them take minutes."""
    return (f"{EXECUTED[0]}::{test}",)


def purge(name: str, old: str, new: str, tests: tuple[str, ...] = RULES) -> Mutant:
    """Return a mutant of the decision."""
    return Mutant(name, PURGE, old, new, tests)


DECISION = (
    purge("P1 a suspect copy counts", "copy.state is ReplicaState.VERIFIED\n", "copy.state is not None\n"),
    purge("P1 a copy never read back counts", "and copy.verified_at is not None\n", "and True\n"),
    purge("P1 a station's own disk counts", "and copy.store.is_managed\n", "and True\n"),
    purge("P1 the same store counts", "and copy.store.id != replica.store.id\n", "and True\n"),
    purge("P1 a planned copy counts", "and not copy.is_planned\n", "and True\n"),
    purge("P1 one copy less is enough", "len(stores) >= max(1, keep.min_copies)", "len(stores) >= keep.min_copies - 1"),
    purge("P1 copies and not stores are counted", "len(stores) >= max(1,", "len(list(copies)) >= max(1,"),
    purge("P1 domains do not matter", "for store in stores}) >= max(1, keep.min_domains)", "for store in stores}) >= 0"),
    purge("P1 durability does not matter", "not keep.durable or any(", "True or any("),
    purge("P1 too few copies are no matter", 'return Condition("P1", "copies", keep.last_copy,', 'return Condition("P1", "copies", True,'),
    purge("P2 a hold is passed over", "if hold.stands(work.now)]", "if False]"),
    purge("P2 holds on files and stores are passed over", "(*work.case.home.holds, *work.case.holds)", "work.case.home.holds"),
    purge("P2 holds on datasets are passed over", "(*work.case.home.holds, *work.case.holds)", "work.case.holds"),
    purge("P3 one notice of the rule is enough", "met = all(dates and min(dates) <= work.now", "met = any(dates and min(dates) <= work.now"),
    purge("P3 a notice counts at once", "timedelta(days if notice.sent_at else 0)", "timedelta(0)"),
    purge("P3 the announced day does not matter", ", notice.expires_at)\n", ", notice.sent_at or LATEST)\n"),
    purge("P3 a notice about other files counts", "if told.is_listed and _was_delivered", "if _was_delivered"),
    purge("P3 a mail that waits was delivered", "notice.state in (NoticeState.SENT, NoticeState.ACKNOWLEDGED)", "True"),
    purge("P3 a notice to nobody counts", "and bool(notice.recipients)", "and True"),
    purge("P3 a bounce does not matter", "n.sent_at > at for at in bounced", "True for at in bounced"),
    purge("P3 a bounce about other files does not matter", "for n in notices if n.state is NoticeState.BOUNCED]", "for n in notices if n.state is NoticeState.BOUNCED and n in [t.notice for t in work.case.told if t.is_listed]]"),
    purge("P4 every rule lets last copies go", "if not work.keep.last_copy:", "if False:"),
    purge("P4 people need not know that it is the last", "if notice.last_copy]", "if True]"),
    purge("P4 one notice is enough", "if len(set(days)) < 2:", "if len(set(days)) < 1:"),
    purge("P4 nobody needs to answer", "if not answered and (final is None or work.now < final):", "if False:"),
    purge("P4 the final days are not waited for", "timedelta(work.rule.final_days)", "timedelta(0)"),
    purge("P4 the final days count from the first notice", "max(days) + timedelta(work.rule", "min(days) + timedelta(work.rule"),
    purge("P4 the author approves alone", "in approvals if person != author]", "in approvals]"),
    purge("P4 no second person", "if not second:", "if False:"),
    purge("P5 other content on the list", "if found != (*here, case.size, case.sha256):", "if False:"),
    purge("P5 the checksum is not compared", "(*here, case.size, case.sha256)", "(*here, case.size, item.sha256)"),
    purge("P5 an item is dealt with twice", "if item.state is not wanted:", "if False:"),
    purge("P5 destroyed without a record", "if case.step is Step.DESTROY and not (item.evidence and item.trash_key):", "if False:"),
    purge("P6 the undo window is not waited for", "met = work.now >= at\n    text = f\"in the trash", "met = True\n    text = f\"in the trash"),
    purge("P6 the rule's undo days do not matter", "max(item.destroy_after, item.trashed_at + timedelta(work.rule.undo_days))", "item.destroy_after"),
    purge("P6 one person makes an emergency", "and len(case.plan.plan.people) > 1:", "and len(case.plan.plan.people) > 0:"),
    purge("P7 a plan may take everything", "if plan.size > budget.max_fraction * whole:", "if False:"),
    purge("P7 a plan may free more than it names", "elif plan.freed + size > plan.size:", "elif False:"),
    purge("P7 a unit counts as one of its files", "size = max(case.size, case.unit.size if case.unit else 0)", "size = case.size", UNITS),
    purge("P7 the watermark is overshot", "plan.freed >= plan.need:", "plan.freed > plan.need:"),
    purge("P7 a day has no limit", "if budget.max_bytes_per_day and budget.freed_today + size", "if not case and budget.freed_today + size"),
    purge("P8 a doubt about the clock is no matter", "doubt = guards.clock_doubt\n", 'doubt = ""\n'),
    purge("P8 a clock that fell back is trusted", "and work.now < guards.high_water:", "and False:"),
    purge("P9 a station's own disk is emptied", "if not store.is_managed:", "if False:"),
    purge("P9 a dataset that is still received", "elif not case.home.is_complete:", "elif False:"),
    purge("P9 any state may go", "elif replica.state is not wanted:", "elif False:"),
    purge("P9 another disk is mounted", "elif case.uuid_seen != store.uuid or planned", "elif planned"),
    purge("P9 the plan was made for another disk", "or planned != store.uuid:", "or False:"),
    purge("P10 a restored catalogue deletes", 'return Condition("P10", "catalogue", not doubt,', 'return Condition("P10", "catalogue", True,'),
    purge("P11 no date means now", "met = at is not None and work.now >= at\n", "met = at is None or work.now >= at\n"),
    purge("P11 a moment too early", "met = at is not None and work.now >= at\n", "met = at is not None and work.now >= at - timedelta(microseconds=1)\n"),
    purge("P11 the earlier date without pressure", "at = limit.at if work.reason is PlanReason.EXPIRY else limit.pressure_at", "at = limit.pressure_at"),
    purge("P11 a restored copy goes at once", "at = max(at, until)", "at = min(at, until)"),
    purge("P12 public data need no administrator", "if not (work.case.plan and work.case.plan.admins):", "if False:"),
    purge("P12 the last public copy goes", "if not work.staying:\n        return Condition(\"P12\"", "if False:\n        return Condition(\"P12\""),
    purge("P13 a changed list is run", "if case.plan.hash != plan.hash:", "if False:"),
    purge("P13 a plan that was only made is run", "elif plan.state not in allowed:", "elif False:"),
    purge("P13 nobody approved", "elif len(people) < (2 if", "elif len(people) < (0 if"),
    purge("P13 one approves an emergency", "(2 if plan.reason is PlanReason.EMERGENCY else 1)", "1"),
    purge("P13 a plan of yesterday is run", "case.step is Step.TRASH and work.now >= plan.expires_at:", "False:"),
    purge("P14 the switch does nothing", "met = work.case.guards.is_enabled\n", "met = True\n"),
    purge("P15 a unit goes for one member", "met = unit.on_plan == unit.members", "met = True"),
    purge("P16 an old read-back is enough", "met = _enough(just_read, work.keep) or (", "met = bool(fresh) or ("),
    purge("P16 no read-back at all", "oldest = work.now - timedelta(days)", "oldest = work.now - timedelta(9999)"),
    purge("P16 read back in the future", "and oldest <= copy.verified_at <= work.now]", "and oldest <= copy.verified_at]"),
    purge("P16 a copy to spare is taken for granted", "and all(_enough([copy for copy in fresh if copy is not each], work.keep) for each in fresh)", "and True"),
    purge("P17 a run is passed over", "if home.runs:", "if False:"),
    purge("P17 a download is passed over", "if work.now < lease.expires_at]", "if False]"),
    purge("the first refusal decides only itself", "return Verdict(refused is None,", "return Verdict(True,"),
)  # fmt: skip

MODELLED = (
    purge("model: a rotten copy is trusted", "met = _enough(just_read, work.keep) or (", "met = bool(fresh) or (", MODEL),
    purge("model: copies do not matter", "    return (\n        len(stores) >= max(1,", "    return bool(keep) or (\n        len(stores) >= max(1,", MODEL),
    purge("model: the trash is emptied over a hold", "if hold.stands(work.now)]", "if hold.stands(work.now) and work.case.step is Step.TRASH]", MODEL),
    purge("model: a unit goes for one member", "met = unit.on_plan == unit.members", "met = True", MODEL),
    purge("model: the clock jumped ahead", "doubt = guards.clock_doubt\n", 'doubt = ""\n', MODEL),
)  # fmt: skip

TIME = (
    Mutant("spans: the day of the week", SPANS, "end = start.replace(year, month)", "end = start.replace(year, month, start.weekday() + 1)", DATES),
    Mutant("spans: month ends run over", SPANS, "datetime.combine(start.replace(year, month, last), time.max, UTC)", "start.replace(year, month, last) + timedelta(1)", DATES),
    Mutant("spans: a later start ends earlier", SPANS, "datetime.combine(start.replace(year, month, last), time.max, UTC)", "start.replace(year, month, last)", DATES),
    Mutant("spans: February has 28 days", SPANS, "last = monthrange(year, month)[1]", "last = 28 if month == 2 else monthrange(year, month)[1]", DATES),
    Mutant("spans: days before months", SPANS, "start = start.astimezone(UTC)\n", "start = start.astimezone(UTC) + timedelta(self.days)\n", DATES),
    Mutant("spans: local time", SPANS, "start = start.astimezone(UTC)\n", "start = start.replace(tzinfo=UTC)\n", DATES),
    Mutant("spans: a month is 30 days", SPANS, '"month": (0, 1, 0),', '"month": (0, 0, 30),', DATES),
    Mutant("clock: it runs while the experiment is open", RETENTION, "if self.state not in RUNNING or self.closed_at is None:", "if self.closed_at is None and self.ends_at is None:", TEXTS),
    Mutant("clock: the earliest of the three", RETENTION, "return max(at for at in (self.ends_at,", "return min(at for at in (self.ends_at,", TEXTS),
    Mutant("clock: late raw data do not matter", RETENTION, "self.closed_at, self.newest_raw_at) if", "self.closed_at) if", TEXTS),
    Mutant("expiry: no policy means an old date", RETENTION, 'return Expiry(None, "no policy applies: kept for ever")', 'return Expiry(clock.closed_at, "no policy applies")', TEXTS),
    Mutant("expiry: a tier that is not named expires", RETENTION, "keep = rule.keep.get(tier)\n", "keep = rule.keep.get(tier) or next(iter(rule.keep.values()))\n", TEXTS),
    Mutant("expiry: pressure means later", RETENTION, "min(at, keep.pressure.after(start))", "keep.pressure.after(start)", TEXTS),
    Mutant("policy: the last rule decides", RETENTION, "next((rule for rule in self.rules if", "next((rule for rule in self.rules[::-1] if", TEXTS),
    Mutant("policy: a tie takes the first", RETENTION, "return best[0] if len(best) == 1 else None", "return best[0] if best else None", TEXTS),
    Mutant("policy: an unknown own policy means the station's", RETENTION, "    if policy_id:\n", "    if any(policy.id == policy_id for policy in policies):\n", TEXTS),
    Mutant("policy: N = 0", DOCUMENT, 'if table.get("min_copies") == 0:', "if False:", TEXTS),
    Mutant("policy: no notice at all", DOCUMENT, "isinstance(days, list) and days and all(", "isinstance(days, list) and all(", TEXTS),
    Mutant("policy: a missing span is no time", DOCUMENT, "    if not words:\n", "    if False:\n", TEXTS),
)  # fmt: skip

FACTS = (
    Mutant("case: a planned copy is not known", CASES, "live = and_(p.state.in_(_LIVE_PLANS), i.state.in_(_LIVE_ITEMS))", 'live = and_(p.state == "running", i.state.in_(_LIVE_ITEMS))', GATHERED),
    Mutant("case: deleted copies count", CASES, "if row.state != ReplicaState.DELETED:", "if True:", GATHERED),
    Mutant("case: station holds are not gathered", CASES, "(HoldScope.STATION, row.station_id),", '(HoldScope.STATION, ""),', GATHERED),
    Mutant("case: file holds are not gathered", CASES, "house.holds((HoldScope.FILE, row.file_id), (HoldScope.STORE, row.store_id)),", "house.holds((HoldScope.STORE, row.store_id)),", GATHERED),
    Mutant("case: leases are not gathered", CASES, "_l.expires_at > now)", "_l.expires_at > now, _l.id == '')", GATHERED),
    Mutant("case: parameters of runs are not read", CASES, "or dataset_id in run.params", "or False", GATHERED),
    Mutant("case: restores are forgotten", CASES, "cached.get((row.dataset_id, row.store_id)),", "None,", GATHERED),
    Mutant("case: a unit that nobody knows is whole", CASES, "_NEVER_WHOLE = 2**62", "_NEVER_WHOLE = 0", GATHERED),
    Mutant("case: unasked guards allow", CASES, 'clock_doubt="the clock was not checked", catalog_doubt="the catalogue was not checked"', "", GATHERED),
    Mutant("case: what is unseen is gathered", CASES, "true() if see is None else see", "true()", GATHERED),
)  # fmt: skip

ENGINE = (
    Mutant("run: no second decision", RUN, "                if all(verdicts):\n                    tx.move_items", "                if verdicts:\n                    tx.move_items", executed("test_a_hold_that_came_after_the_approval_is_obeyed")),
    Mutant("run: a list that was changed", RUN, "if self.session.hash != self.plan.hash:", "if False:", executed("test_a_list_that_somebody_changed_is_not_run")),
    Mutant("run: a file that changed goes", RUN, "if not strange and known is not None and known != found.mtime_ns:", "if False:", EDGES),
    Mutant("run: without an approval", RUN, "if plan.state is PlanState.RUNNING:\n        return plan", "if plan.state in (PlanState.RUNNING, PlanState.FROZEN):\n        return plan", executed("test_a_plan_runs_only_when_it_is_approved_and_not_over")),
    Mutant("run: twins are not looked for", RUN, "            if not twins:\n", "            if True:\n", executed("test_the_second_record_of_an_object_keeps_it")),
    Mutant("run: anybody may", RUN, "    facility.catalog.view(principal).require(Verb.DESTROY)\n    plan = ", "    plan = ", executed("test_people_may_only_what_their_role_allows")),
    Mutant("undo: anybody may", RUN, "if view.can(Verb.WRITE, experiment_id=each)}", "if view.can(Verb.SEE, experiment_id=each)}", executed("test_undo_is_for_those_who_may_write_the_experiment")),
    Mutant("destroy: no third decision", DESTROY, "        if not all(verdicts):\n", "        if not verdicts:\n", executed("test_a_hold_that_comes_while_the_bytes_are_in_the_trash_keeps_them_there")),
    Mutant("session: stores that are away count", SESSION, "if copy.store.id in self._seen)", "if copy)", executed("test_a_copy_on_a_store_that_is_away_does_not_count")),
    Mutant("session: the fence is not looked at", PURGER, "if kept is None or kept[0] != self.token:", "if kept is None:", executed("test_a_purger_that_slept_past_its_lease_commits_nothing_more")),
    Mutant("purger: two at once", PURGER, "if kept is not None and now < kept[2] <= now + LENGTH:", "if False:", executed("test_two_purgers_one_works_and_the_other_is_told")),
    Mutant("plan: one person twice", PLANNER, "if made.reason is PlanReason.EMERGENCY and len(people) < 2:", "if False:", executed("test_an_emergency_needs_two_people_and_empties_the_trash_at_once")),
    Mutant("plan: a store below its watermark loses", PLANNER, "if held > record.high * record.capacity else 0", "if held else 0", EDGES),
    Mutant("plan: no cap", PLANNER, "if self.size + size > self.cap:", "if False:", executed("test_a_wrong_list_is_stopped_by_the_cap")),
    Mutant("plan: conditions are not asked", PLANNER, "if not each.met and each.id not in waived]", "if False]", executed("test_nobody_was_told_so_nothing_can_be_planned")),
    Mutant("guards: a clock that goes back", GUARDS, "if now < high - SKEW:", "if False:", GUARDED),
    Mutant("guards: a clock that jumps", GUARDS, "if now > high + JUMP:", "if False:", GUARDED),
    Mutant("guards: another epoch", GUARDS, 'if (epoch or "") == (known or ""):', "if True:", GUARDED),
    Mutant("guards: an older catalogue", GUARDS, "if anchor[\"seq\"] and (event is None or event.hash != anchor[\"hash\"]):", "if False:", GUARDED),
    Mutant("plans: any state may follow", PLANS, "if state not in _ITEM_AFTER[row.state]:", "if False:", EDGES),
    Mutant("verify: other bytes are equal", VERIFY, "if (found.sha256, found.size) != (file.sha256, file.size):", "if found.size != file.size:", READ),
    Mutant("verify: two stores accuse the copies", VERIFY, "if not is_known_good and self._agree(wrong):", "if False:", READ),
    Mutant("audit: a changed event", AUDIT, "if event_hash(event) != event.hash:", "if False:", TRAIL),
    Mutant("audit: a cut tail", AUDIT, "if anchor is not None and anchor[0] >= expected:", "if False:", TRAIL),
    Mutant("access: everybody sees a station's experiments", ACCESS, 'OR EXISTS ({_scopes(verb, Scope.FACILITY)}))"\n    )\n    return Predicate(sql, {"access_person": principal.id})\n\n\ndef granted_on_facility', 'OR 1 = 1)"\n    )\n    return Predicate(sql, {"access_person": principal.id})\n\n\ndef granted_on_facility', SEEN),
    Mutant("access: an embargo does not matter", ACCESS, "experiment.released_at <= :access_now)", "experiment.released_at IS NOT NULL)", SEEN),
    Mutant("access: the public writes", ACCESS, "Role.PUBLIC: _COLLABORATOR,", "Role.PUBLIC: _SCIENTIST,", SEEN),
)  # fmt: skip

MUTANTS = (*DECISION, *MODELLED, *TIME, *FACTS, *ENGINE)


def plant(mutant: Mutant, folder: Path) -> None:
    """Make a package of links in a folder, with the one place changed. ValueError: it is not there exactly once."""
    source = ROOT / "src" / "lightkeep"
    text = (source / mutant.file).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.old!r} is {text.count(mutant.old)} times in {mutant.file}")
    real, linked = source, folder / "lightkeep"
    for name in Path(mutant.file).parts:
        linked.mkdir()
        for each in real.iterdir():
            if each.name not in (name, "__pycache__"):
                (linked / each.name).symlink_to(each)
        real, linked = real / name, linked / name
    with linked.open("x", encoding="utf-8") as file:  # never through a link, into the real source
        file.write(text.replace(mutant.old, mutant.new))


def survives(status: int, output: str) -> str:
    """Return how a mutant got away, or nothing when its tests found it."""
    code = os.waitstatus_to_exitcode(status)
    if code == pytest.ExitCode.TESTS_FAILED and " failed" in output:
        return ""
    return "no test failed" if code == 0 else f"pytest ended with {code}: {output[-400:]}"


def start(mutant: Mutant, folder: Path) -> int:
    """Fork a process that runs a mutant's tests against its package; return its id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    output = os.open(folder / "output", os.O_CREAT | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(ROOT)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)
    quiet = ("-q", "-x", "--no-header", "-p", "no:randomly", "-p", "no:cacheprovider", "-W", "ignore")
    is_pure = all(each.startswith(("tests/policy/", "tests/safety/")) for each in mutant.tests)
    code = 70
    try:
        code = int(pytest.main([*quiet, *(["--noconftest"] if is_pure else []), *mutant.tests]))
    finally:
        sys.stdout.flush()
        os._exit(code)


def run(chosen: Sequence[Mutant], *, at_once: int) -> dict[str, str]:
    """Run the tests of mutants, some at once; return those that got away, and how."""
    survivors: dict[str, str] = {}
    waiting, running = list(chosen), {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place:
        while waiting or running:
            while waiting and len(running) < at_once:
                mutant = waiting.pop(0)
                folder = Path(tempfile.mkdtemp(dir=place))
                try:
                    plant(mutant, folder)
                    running[start(mutant, folder)] = (mutant, folder)
                except ValueError as error:
                    survivors[mutant.name] = str(error)
                    print(f"SURVIVED {mutant.name}: {error}", flush=True)
            if not running:
                continue
            pid, status = os.wait()
            mutant, folder = running.pop(pid)
            how = survives(status, (folder / "output").read_text(errors="replace"))
            if how:
                survivors[mutant.name] = how
            print(f"{'SURVIVED' if how else 'killed  '} {mutant.name}{': ' + how if how else ''}", flush=True)
    return survivors


def main(words: list[str]) -> int:
    """Plant the mutants; return 0 when every one was found."""
    share = words[0].split("/") if words and "/" in words[0] else None
    if share:
        chosen = list(MUTANTS[int(share[0]) :: int(share[1])])
    else:
        chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    survivors = run(chosen, at_once=1 if share else os.cpu_count() or 1)
    figures = {"planted": len(chosen), "killed": len(chosen) - len(survivors), "survivors": survivors}
    print(json.dumps(figures))
    return 1 if survivors or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
