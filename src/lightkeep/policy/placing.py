"""Where a run ends first: an estimate per place, from what is known of the queue, the link and past runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

GUESSED_WAIT_S = 300.0
"""Seconds in a queue that tells nothing and where nothing ran yet: an unknown place must promise much."""
GUESSED_RATE = 10e6
"""Bytes per second over a link that nobody has measured."""
NEWEST = 20
"""Past runs of a place that count: a queue of last month says little."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a run is, before it is placed."""

    technique: str
    seconds: float
    """On one core, as its preflight says."""
    moved_bytes: float
    """What would travel to a place that does not share the files, and back."""
    pieces: int = 1
    """At most so many tasks at once."""


@dataclass(frozen=True, slots=True)
class Place:
    """An engine as it is now."""

    name: str
    workers: int
    """Tasks at once."""
    wait_s: float | None = 0.0
    """Seconds until a job handed in now would start; None: it does not say."""
    is_far: bool = False
    """True when the files must travel."""
    rate: float = 0.0
    """Bytes per second that its configuration promises; 0: nothing."""
    held_bytes: float = 0.0
    """What lies there already of the bytes that the run moves."""
    start_s: float = 0.0
    """Seconds until its processes have loaded the numerics; past runs there have it in their computing."""
    refusal: str = ""
    """Why it cannot take the run; empty: it can."""


@dataclass(frozen=True, slots=True)
class Past:
    """What a run that is done took, and what its preflight had said."""

    technique: str
    place: str
    work_s: float
    wait_s: float
    transfer_s: float
    moved_bytes: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """When a run would end at a place, in seconds from now."""

    place: str
    wait_s: float
    transfer_s: float
    compute_s: float
    reason: str
    """Where the figures come from, or why the place cannot take the run."""
    is_possible: bool = True

    @property
    def total_s(self) -> float:
        """Seconds until the result is here."""
        return self.wait_s + self.transfer_s + self.compute_s


def estimates(work: Work, places: Iterable[Place], past: Sequence[Past]) -> tuple[Estimate, ...]:
    """Return an estimate per place, the earliest end first; places that cannot take the run come last.

    Parameters
    ----------
    past: newest first; those of other techniques count for waiting and transfer only. Where a technique never ran,
        what its preflight says is corrected by what it took at the other places.

    Notes: each figure is the median of the newest past runs, scaled: transfer by bytes, computing by what the
    preflights said. The queue's own word comes before past waits. Equal ends: the place that moves less, then the
    first by name, so that two planners choose the same.
    """
    known = list(places)
    here = {place.name: [each for each in past if each.place == place.name] for place in known}
    shares = [(place, each) for place in known for each in _same(work, here[place.name])]
    slowness = median([_share(work, place) * each.compute_s / each.work_s for place, each in shares] or [1.0])
    found = [_estimate(work, place, here[place.name], slowness) for place in known]
    return tuple(sorted(found, key=lambda e: (not e.is_possible, e.total_s, e.transfer_s, e.place)))


def _estimate(work: Work, place: Place, past: Sequence[Past], slowness: float) -> Estimate:
    if place.refusal:
        return Estimate(place.name, 0.0, 0.0, 0.0, place.refusal, is_possible=False)
    wait_s, wait_from = _wait(place, past)
    transfer_s, transfer_from = _transfer(work, place, past)
    compute_s, compute_from = _compute(work, place, past, slowness)
    reason = "; ".join(each for each in (wait_from, transfer_from, compute_from) if each)
    return Estimate(place.name, wait_s, transfer_s, compute_s, reason)


def _wait(place: Place, past: Sequence[Past]) -> tuple[float, str]:
    if place.wait_s is not None:
        return place.wait_s, "wait: its queue says so" if place.wait_s else ""
    if past:
        return _median(past, lambda each: each.wait_s), f"wait: of {_runs(past)}"
    return GUESSED_WAIT_S, "wait: a guess"


def _transfer(work: Work, place: Place, past: Sequence[Past]) -> tuple[float, str]:
    if not place.is_far:
        return 0.0, ""
    travels = max(0.0, work.moved_bytes - place.held_bytes)
    moved = [each for each in past if each.transfer_s > 0 and each.moved_bytes > 0]
    if moved:
        rate, known = _median(moved, lambda each: each.moved_bytes / each.transfer_s), f"of {_runs(moved)}"
    else:
        rate, known = (place.rate, "as configured") if place.rate else (GUESSED_RATE, "a guess")
    left = f", {place.held_bytes / 1e6:.3g} MB there" if place.held_bytes else ""
    return travels / rate, f"transfer: {rate / 1e6:.3g} MB/s, {known}{left}"


def _compute(work: Work, place: Place, past: Sequence[Past], slowness: float) -> tuple[float, str]:
    if same := _same(work, past):
        scale = _median(same, lambda each: each.compute_s / each.work_s)
        return work.seconds * scale, f"computing: of {_runs(same)}"
    corrected = ", by runs elsewhere" if slowness != 1.0 else ""
    seconds = work.seconds * slowness / _share(work, place)
    return place.start_s + seconds, f"computing: {place.workers} at once{corrected}"


def _same(work: Work, past: Sequence[Past]) -> list[Past]:
    return [each for each in past if each.technique == work.technique and each.work_s > 0][:NEWEST]


def _share(work: Work, place: Place) -> int:
    return max(1, min(place.workers, work.pieces))


def _median(past: Sequence[Past], value: Callable[[Past], float]) -> float:
    return median(value(each) for each in past[:NEWEST])


def _runs(past: Sequence[Past]) -> str:
    count = len(past[:NEWEST])
    return f"{count} past run{'s' if count > 1 else ''}"
