"""Retention policies: how long which data stay where, and when the clock of an experiment runs.

`expiry` is the one function that makes a date of a policy: purge, explain, simulate, forecast and notices ask it.
What no policy or no rule speaks of is kept for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase

from lightkeep.model.datasets import DatasetKind
from lightkeep.model.experiments import ExperimentState
from lightkeep.model.retention import PolicyVersion
from lightkeep.model.stores import Tier
from lightkeep.policy.spans import Span


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rule looks at in a dataset."""

    station_id: str
    technique: str = ""
    kind: DatasetKind = DatasetKind.RAW
    size: int = 0
    """Bytes of the dataset."""


@dataclass(frozen=True, slots=True)
class Match:
    """Which datasets a rule speaks of. An empty part matches everything."""

    stations: tuple[str, ...] = ()
    """Globs on the station's id, e.g. `8-ID*`."""
    techniques: tuple[str, ...] = ()
    kinds: tuple[DatasetKind, ...] = ()
    at_least: int = 0
    """Bytes: smaller datasets are not meant."""
    below: int | None = None
    """Bytes: datasets of this size or larger are not meant."""

    def __call__(self, facts: Facts) -> bool:
        """Return whether a dataset is meant."""
        return (
            (not self.stations or any(fnmatchcase(facts.station_id, glob) for glob in self.stations))
            and (not self.techniques or facts.technique in self.techniques)
            and (not self.kinds or facts.kind in self.kinds)
            and facts.size >= self.at_least
            and (self.below is None or facts.size < self.below)
        )


@dataclass(frozen=True, slots=True)
class Keep:
    """What a rule says of replicas on the stores of one tier."""

    span: Span | None = None
    """From the start of the experiment's clock; None: for ever."""
    pressure: Span | None = None
    """Shorter: what a store above its high watermark may lose already; None: the same as `span`."""
    min_copies: int = 2
    """Good copies on other stores that must stay; 1 or more."""
    min_domains: int = 2
    """Failure domains that these must lie in; as many as copies where the policy says nothing."""
    durable: bool = False
    """True: one of them must lie on a store whose medium is kept for years."""
    verified_days: int = 30
    """A copy counts when all its bytes were read back not longer ago than this."""
    read_back_days: int = 1
    """And not longer ago than this where no copy is to spare."""
    last_copy: bool = False
    """True: may go although too few copies stay, after an acknowledgement and a second person's approval (P4)."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a rule wants a copy: on any store of a tier, or on one store."""

    tier: Tier | None = None
    store_id: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; the first of a policy that matches decides."""

    name: str
    match: Match = field(default_factory=Match)
    keep: Mapping[Tier, Keep] = field(default_factory=dict)
    """A tier that is absent here is kept for ever."""
    copies: tuple[Target, ...] = ()
    """Where complete datasets are copied to."""
    notice_days: tuple[int, ...] = (30, 7, 1)
    """Days before the expiry at which people are told, falling; at least one."""
    undo_days: int = 14
    """Days in the trash before bytes are destroyed."""
    final_days: int = 90
    """Days after the last notice after which a last copy may go without an acknowledgement."""
    embargo: Span | None = None
    """From the start of the clock until the data may be released; None: never by itself."""


@dataclass(frozen=True, slots=True)
class Approval:
    """Which purge plans a policy approves by itself."""

    after_hours: int
    """How long such a plan can be looked at, and cancelled, first: 1 to 23, as a plan is good for a day."""
    up_to: int | None = None
    """Bytes: so much in a day, over all stores; None: any amount."""
    kinds: tuple[DatasetKind, ...] = ()
    """Only of these; empty: of all."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One version of a retention policy."""

    id: str
    version: int = 0
    """0: a draft that was not adopted."""
    author: str = ""
    stations: tuple[str, ...] = ()
    """Globs on the stations that follow it unless an experiment has a policy of its own."""
    rules: tuple[Rule, ...] = ()
    description: str = ""
    approval: Approval | None = None
    """None: people approve every plan."""

    @property
    def stamp(self) -> str:
        """What every decision under it carries, e.g. `aps-default@3`."""
        return PolicyVersion(self.id, self.version, "").stamp

    def rule_for(self, facts: Facts) -> Rule | None:
        """Return the first rule that matches, or None: kept for ever."""
        return next((rule for rule in self.rules if rule.match(facts)), None)


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """What the clock of an experiment runs by."""

    state: ExperimentState
    ends_at: datetime | None = None
    """End of the beam-time window."""
    closed_at: datetime | None = None
    newest_raw_at: datetime | None = None
    """When its newest raw dataset was completed."""

    @property
    def started_at(self) -> datetime | None:
        """When the clock started: the latest of the three. None while the experiment is not closed."""
        if self.state not in RUNNING or self.closed_at is None:
            return None
        return max(at for at in (self.ends_at, self.closed_at, self.newest_raw_at) if at is not None)


RUNNING = frozenset(
    {ExperimentState.CLOSED, ExperimentState.RETAINED, ExperimentState.EXPIRING, ExperimentState.EXPIRED}
)
"""States in which the clock of an experiment runs."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """Until when a replica stays, and what says so."""

    at: datetime | None
    """It stays at least until then; None: for ever, or until something in `text` happens."""
    text: str
    """One sentence for a person."""
    pressure_at: datetime | None = None
    """From then on it may go when its store is above the high watermark; never after `at`."""
    policy: str = ""
    """Stamp `id@version`; empty where no policy applies."""
    rule: str = ""
    """Name of the rule; empty where none matches."""


def applicable(policies: Iterable[Policy], *, policy_id: str, station_id: str) -> Policy | None:
    """Return the policy that an experiment follows, or None: kept for ever.

    Parameters
    ----------
    policies: one version of each, the newest.
    policy_id: the experiment's own policy; one that does not exist means none, not the station's.

    Notes: among the policies of stations the longest glob that matches decides, and an exact name beats any glob.
    Where two are equally good neither applies: nothing is deleted on a doubt.
    """
    if policy_id:
        return next((policy for policy in policies if policy.id == policy_id), None)
    ranked: dict[tuple[bool, int], list[Policy]] = {}
    for policy in policies:
        fits = [_rank(glob) for glob in policy.stations if fnmatchcase(station_id, glob)]
        if fits:
            ranked.setdefault(max(fits), []).append(policy)
    best = ranked[max(ranked)] if ranked else []
    return best[0] if len(best) == 1 else None


def _rank(glob: str) -> tuple[bool, int]:
    literal = sum(char not in "*?[]" for char in glob)
    return literal == len(glob), literal


def expiry(policy: Policy | None, clock: ClockFacts, facts: Facts, *, tier: Tier) -> Expiry:
    """Return until when a replica of a dataset on a store of a tier stays, and which rule says so."""
    if policy is None:
        return Expiry(None, "no policy applies: kept for ever")
    rule = policy.rule_for(facts)
    if rule is None:
        return Expiry(None, f"no rule of {policy.stamp} matches: kept for ever", policy=policy.stamp)
    keep = rule.keep.get(tier)
    named = f"rule {rule.name} of {policy.stamp}"
    if keep is None or keep.span is None:
        return Expiry(None, f"{named} keeps it for ever on {tier} stores", policy=policy.stamp, rule=rule.name)
    start = clock.started_at
    if start is None:
        text = f"{named}: {keep.span} after the experiment is closed; it is {clock.state}"
        return Expiry(None, text, policy=policy.stamp, rule=rule.name)
    at = keep.span.after(start)
    early = at if keep.pressure is None else min(at, keep.pressure.after(start))
    text = f"{named}: {keep.span} on {tier} stores, counted from {start:%Y-%m-%d}"
    return Expiry(at, text, early, policy.stamp, rule.name)


def release_at(policy: Policy | None, clock: ClockFacts, facts: Facts) -> datetime | None:
    """Return when a dataset may become public by its policy's embargo; None: not by itself."""
    rule = policy.rule_for(facts) if policy else None
    start = clock.started_at
    return rule.embargo.after(start) if rule and rule.embargo and start else None
