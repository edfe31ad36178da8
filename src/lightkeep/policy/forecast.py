"""When which store is full: the policy run forward, day by day.

What lies on the stores now is a list of lots with the day on which each may leave; what will be measured is a
growth for each stream. On every day, in this order: new data arrive, links move copies, room is added, lots whose
day has come leave (as far as the copy that they need has been made), and a store above its high watermark loses
lots that may leave early until it is at the low one. Bytes are whole numbers, so that nothing is lost in rounding:
with constant growth g and a span of n days a store holds exactly g * n.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from itertools import pairwise

from lightkeep.model.errors import InvalidInput
from lightkeep.model.usage import Growth
from lightkeep.policy.spans import Span

YEAR = 365.25
"""Days of a year of growth."""
MOST_DAYS = 100 * 366
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Depot:
    """A store, as far as room goes."""

    id: str
    capacity: int = 0
    """Bytes; 0: not known, so that it is never full."""
    high: float = 0.9
    low: float = 0.8
    upgrades: tuple[tuple[date, int], ...] = ()
    """From that day on it has that capacity."""


@dataclass(frozen=True, slots=True)
class Stay:
    """How long data stay on a store, counted from when their experiment is closed."""

    store_id: str
    keep: Span | None = None
    """None: for ever."""
    pressure: Span | None = None
    """What may leave already when the store is above its high watermark; None: the same as `keep`."""
    trash_days: int = 0
    """How long they take room in the trash after that."""
    notice_days: int = 0
    """How long before people are told; not before the clock of their experiment starts."""
    needs_copy: bool = False
    """True: leaves only when the copy that the stream makes is complete."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What one station produces of one technique and kind, and where it goes."""

    growth: Growth
    first: Stay
    copy: Stay | None = None
    """A copy of everything goes there, over the link if there is one."""
    closing_days: int = 0
    """From when data are written until the clock of their experiment starts."""


@dataclass(frozen=True, slots=True)
class Lot:
    """Bytes that lie on a store at the beginning, and when they may leave it."""

    store_id: str
    size: int
    leaves_on: date | None = None
    """None: never."""
    early_on: date | None = None
    """From then on under pressure; None: not before `leaves_on`."""
    copy: Stay | None = None
    """They are still to be copied there, and leave only then."""
    copy_leaves_on: date | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """How much can be copied from one store to another in a day."""

    source: str
    target: str
    bytes_per_day: int


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a forecast starts from."""

    begin: date
    depots: tuple[Depot, ...]
    lots: tuple[Lot, ...] = ()
    streams: tuple[Stream, ...] = ()
    links: tuple[Link, ...] = ()
    """Between stores without one copies arrive on the same day."""


@dataclass(frozen=True, slots=True)
class Path:
    """How one store fills, at the end of each day."""

    depot: Depot
    days: tuple[date, ...]
    used: tuple[int, ...]
    """Bytes."""
    capacity: tuple[int, ...]
    waiting: tuple[int, ...]
    """Bytes on it that are still to be copied elsewhere."""
    squeezed: int = 0
    """Bytes that left early, under pressure, in all."""
    left: int = 0
    """Bytes that left, in all."""

    @property
    def full_on(self) -> date | None:
        """The first day at whose end it would hold more than it has room for."""
        return self._first(1.0)

    @property
    def high_on(self) -> date | None:
        """The first day at whose end it is above its high watermark."""
        return self._first(self.depot.high)

    @property
    def peak(self) -> int:
        """The most that it holds at the end of any day, in bytes."""
        return max(self.used, default=0)

    def _first(self, fraction: float) -> date | None:
        pairs = zip(self.days, self.used, self.capacity, strict=True)
        return next((day for day, used, room in pairs if room and used > fraction * room), None)


def total(growth: Growth, days: int, *, begin: date) -> int:
    """Return the bytes that arrive in the first so many days.

    The rate is r * f ** (t / 365.25), times the factor of each step from its day on; this is its integral, rounded
    down. Constant growth is exact at any size.
    """
    if growth.per_year == 1 and not growth.steps:
        return math.floor(Fraction(growth.bytes_per_day) * days)
    edges = [0, *(min(max((step.at - begin).days, 0), days) for step in growth.steps), days]
    factor, exact, grown = Fraction(1), Fraction(0), 0.0
    for index, (first, last) in enumerate(pairwise(edges)):
        if index:
            factor *= Fraction(growth.steps[index - 1].factor)
        if growth.per_year == 1:
            exact += Fraction(growth.bytes_per_day) * factor * (last - first)
        elif last > first:
            slope = math.log(growth.per_year) / YEAR
            area = math.exp(slope * first) * math.expm1(slope * (last - first)) / slope
            grown += growth.bytes_per_day * float(factor) * area
    return math.floor(exact) + math.floor(grown)


def first_day_after(at: datetime) -> date:
    """Return the first day in whose last minute a time has passed.

    >>> first_day_after(datetime(2026, 2, 28, 12, tzinfo=UTC)).isoformat()
    '2026-02-28'
    """
    return (min(at, datetime.max.replace(tzinfo=UTC) - _MINUTE).astimezone(UTC) + _MINUTE).date()


def run(situation: Situation, *, days: int) -> tuple[Path, ...]:
    """Return how each store fills over so many days.

    Raises
    ------
    InvalidInput: something lies on, or goes to, a store that is not among the depots; or days are out of range.
    """
    if not 1 <= days <= MOST_DAYS:
        raise InvalidInput(f"a forecast looks 1 to {MOST_DAYS} days ahead, not {days}")
    world = _World(situation)
    before = [0] * len(situation.streams)
    for index in range(days):
        day = situation.begin + timedelta(days=index)
        for number, stream in enumerate(situation.streams):
            upto = total(stream.growth, index + 1, begin=situation.begin)
            world.arrive(day, stream, upto - before[number])
            before[number] = upto
        world.end_of(day)
    return world.paths()


@dataclass(slots=True)
class _Part:
    """Bytes on a store that leave together."""

    size: int
    leaves_on: date | None
    early_on: date | None
    link: _Queue | None = None
    """The copy that must be made before they leave: their place in its queue begins at `begin`."""
    begin: int = 0

    def free(self) -> int:
        """Bytes that may leave as far as the copy goes; those are at the front."""
        return self.size if self.link is None else max(0, min(self.size, self.link.moved - self.begin))

    def take(self, size: int) -> None:
        """Let so many bytes go."""
        self.size -= size
        self.begin += size


@dataclass(slots=True)
class _Queue:
    """Copies waiting for a link, first come first served."""

    target: _Shelf
    per_day: int | None
    moved: int = 0
    asked: int = 0
    waiting: deque[tuple[int, date | None]] = field(default_factory=deque)
    """Bytes, and when they will leave the target."""

    def add(self, size: int, leaves_on: date | None) -> int:
        """Queue bytes; return where they begin."""
        begin = self.asked
        self.asked += size
        self.waiting.append((size, leaves_on))
        return begin

    def move(self) -> None:
        """Move what the link can in a day."""
        room = self.asked - self.moved if self.per_day is None else min(self.per_day, self.asked - self.moved)
        self.moved += room
        while room:
            size, leaves_on = self.waiting.popleft()
            piece = min(size, room)
            self.target.put(_Part(piece, leaves_on, None))
            room -= piece
            if piece < size:
                self.waiting.appendleft((size - piece, leaves_on))


@dataclass(slots=True)
class _Shelf:
    """A store during the run."""

    depot: Depot
    capacity: int = 0
    used: int = 0
    squeezed: int = 0
    left: int = 0
    due: list[tuple[date, int, _Part]] = field(default_factory=list)
    """Heap by the day on which they leave."""
    early: list[tuple[date, int, _Part]] = field(default_factory=list)
    """Heap by the day from which they may leave under pressure."""
    held: list[_Part] = field(default_factory=list)
    """Their day has come, the copy has not."""
    series: list[tuple[date, int, int, int]] = field(default_factory=list)
    _count: int = 0

    def put(self, part: _Part) -> None:
        """Lay bytes down."""
        self.used += part.size
        self._count += 1
        if part.leaves_on is not None:
            heapq.heappush(self.due, (part.leaves_on, self._count, part))
        if part.early_on is not None:
            heapq.heappush(self.early, (part.early_on, self._count, part))

    def let_go(self, day: date) -> None:
        """Take away what may leave on a day, as far as copies are made."""
        while self.due and self.due[0][0] <= day:
            self.held.append(heapq.heappop(self.due)[2])
        for part in self.held:
            self._take(part, part.free())
        self.held = [part for part in self.held if part.size]

    def relieve(self, day: date) -> None:
        """Above the high watermark: take away what may leave early, oldest first, down to the low one."""
        if not self.capacity or self.used <= self.depot.high * self.capacity:
            return
        need = self.used - math.floor(self.depot.low * self.capacity)
        kept: list[tuple[date, int, _Part]] = []
        while self.early and self.early[0][0] <= day and need > 0:
            entry = heapq.heappop(self.early)
            size = min(entry[2].free(), need)
            self._take(entry[2], size)
            self.squeezed += size
            need -= size
            if entry[2].size:
                kept.append(entry)
        for entry in kept:
            heapq.heappush(self.early, entry)

    def _take(self, part: _Part, size: int) -> None:
        part.take(size)
        self.used -= size
        self.left += size


class _World:
    """Every store and link during the run."""

    def __init__(self, situation: Situation) -> None:
        self._shelves = {depot.id: _Shelf(depot, depot.capacity) for depot in situation.depots}
        self._speeds = {(link.source, link.target): link.bytes_per_day for link in situation.links}
        self._queues: dict[tuple[str, str], _Queue] = {}
        for lot in situation.lots:
            self._place(lot)

    def arrive(self, day: date, stream: Stream, size: int) -> None:
        """Lay down what was measured on a day."""
        if size <= 0:
            return
        closed = datetime.combine(day, time(), UTC) + timedelta(days=stream.closing_days)
        leaves_on, early_on = _days(stream.first, closed)
        copy_leaves, _ = _days(stream.copy, closed) if stream.copy else (None, None)
        lot = Lot(stream.first.store_id, size, leaves_on, early_on, stream.copy, copy_leaves)
        self._place(lot, needs_copy=stream.first.needs_copy)

    def _place(self, lot: Lot, *, needs_copy: bool = True) -> None:
        part = _Part(lot.size, lot.leaves_on, lot.early_on)
        shelf = self._shelf(lot.store_id)
        if lot.copy is not None:
            queue = self._queue(lot.store_id, lot.copy.store_id)
            begin = queue.add(lot.size, lot.copy_leaves_on)
            if needs_copy:
                part.link, part.begin = queue, begin
        shelf.put(part)

    def end_of(self, day: date) -> None:
        """Do what happens every day, and write down how it ends."""
        for queue in self._queues.values():
            queue.move()
        for shelf in self._shelves.values():
            for at, capacity in shelf.depot.upgrades:
                if at <= day:
                    shelf.capacity = capacity
            shelf.let_go(day)
            shelf.relieve(day)
        for id_, shelf in self._shelves.items():
            waiting = sum(q.asked - q.moved for (source, _), q in self._queues.items() if source == id_)
            shelf.series.append((day, shelf.used, shelf.capacity, waiting))

    def paths(self) -> tuple[Path, ...]:
        """Return what was written down."""
        found = []
        for shelf in self._shelves.values():
            days, used, capacity, waiting = zip(*shelf.series, strict=True)
            found.append(Path(shelf.depot, days, used, capacity, waiting, shelf.squeezed, shelf.left))
        return tuple(found)

    def _shelf(self, store_id: str) -> _Shelf:
        if store_id not in self._shelves:
            raise InvalidInput(f"the forecast knows no store {store_id}", remedy="add it to the scenario")
        return self._shelves[store_id]

    def _queue(self, source: str, target: str) -> _Queue:
        key = (source, target)
        if key not in self._queues:
            self._queues[key] = _Queue(self._shelf(target), self._speeds.get(key))
        return self._queues[key]


def _days(stay: Stay, closed: datetime) -> tuple[date | None, date | None]:
    """Return when data leave, and from when they may under pressure."""
    if stay.keep is None:
        return None, None
    trash = timedelta(days=stay.trash_days)
    told = closed + timedelta(days=stay.notice_days)
    leaves_on = first_day_after(max(stay.keep.after(closed), told)) + trash
    early_on = first_day_after(max(stay.pressure.after(closed), told)) + trash if stay.pressure else None
    return leaves_on, min(early_on, leaves_on) if early_on else None
