"""Bugs planted into the purge decision: a simulator that does not find them proves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from lightkeep.policy import purge
from lightkeep.policy.case import Case, Verdict


@contextmanager
def dropped(*ids: str) -> Iterator[None]:
    """Take some conditions of `may_delete` for met, for everybody in this process, as long as the block lasts."""
    real = purge.may_delete

    def loose(case: Case, now: datetime) -> Verdict:
        verdict = real(case, now)
        conditions = tuple(replace(each, met=each.met or each.id in ids) for each in verdict.conditions)
        return replace(verdict, allow=all(each.met for each in conditions), conditions=conditions)

    purge.may_delete = loose
    try:
        yield
    finally:
        purge.may_delete = real
