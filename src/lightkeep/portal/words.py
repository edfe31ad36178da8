"""How values read on a page: SI prefixes, relative times, states as one word with a colour and a shape."""

from __future__ import annotations

import datetime as calendar
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from markupsafe import Markup, escape

_BYTES = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_AGO = ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h"), (30 * 86_400, 86_400, "d"))
_JUST_NOW_S = 5
_MINUS = "\u2212"
_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
_UNITS = {
    "um": "µm",
    "deg": "°",
    "angstrom": "Å",
    "1/angstrom": "Å⁻¹",
    "1/nm": "nm⁻¹",
    "1/m": "m⁻¹",
    "1/cm": "cm⁻¹",
    "1/pixel": "pixel⁻¹",
}


class Mark(NamedTuple):
    """How a state looks, everywhere the same."""

    word: str
    hue: str
    """`good`, `active`, `waiting`, `bad`, or empty for grey."""
    shape: str
    """Name of the symbol."""


_MARKS: Mapping[str, Mark] = {
    "done": Mark("done", "good", "disc"),
    "complete": Mark("complete", "good", "disc"),
    "verified": Mark("verified", "good", "tick"),
    "open": Mark("open", "good", "disc"),
    "released": Mark("released", "good", "ring-dot"),
    "running": Mark("running", "active", "half"),
    "receiving": Mark("receiving", "active", "half"),
    "copying": Mark("copying", "active", "half"),
    "queued": Mark("queued", "waiting", "ring"),
    "waiting": Mark("waits", "", "ring"),
    "ready": Mark("waits", "", "ring"),
    "left_out": Mark("left out", "", "dash"),
    "not_begun": Mark("not begun", "", "dash"),
    "on": Mark("on", "good", "disc"),
    "off": Mark("off", "", "ring"),
    "defined": Mark("defined", "", "ring"),
    "stopped": Mark("stopped", "", "square"),
    "planned": Mark("planned", "waiting", "ring"),
    "present": Mark("present", "waiting", "ring-dot"),
    "held": Mark("held", "active", "square"),
    "retained": Mark("retained", "", "square"),
    "due": Mark("due", "waiting", "ring"),
    "sent": Mark("sent", "good", "tick"),
    "acknowledged": Mark("acknowledged", "good", "disc"),
    "bounced": Mark("bounced", "bad", "cross"),
    "void": Mark("void", "", "dash"),
    "frozen": Mark("to be approved", "waiting", "ring"),
    "approved": Mark("approved", "active", "ring-dot"),
    "trashed": Mark("in the trash", "waiting", "hourglass"),
    "skipped": Mark("kept", "good", "disc"),
    "undone": Mark("undone", "", "square"),
    "destroyed": Mark("deleted", "", "dash"),
    "expiring": Mark("expiring", "waiting", "hourglass"),
    "delete_pending": Mark("to be deleted", "waiting", "hourglass"),
    "failed": Mark("failed", "bad", "cross"),
    "corrupt": Mark("corrupt", "bad", "cross"),
    "suspect": Mark("suspect", "bad", "triangle"),
    "cancelled": Mark("cancelled", "", "square"),
    "stopped_early": Mark("stopped early", "good", "square"),
    "withdrawn": Mark("withdrawn", "", "square"),
    "closed": Mark("closed", "", "square"),
    "expired": Mark("expired", "", "dash"),
    "deleted": Mark("deleted", "", "dash"),
}


def mark(state: str) -> Mark:
    """Return how a state looks; one that is not known is grey."""
    return _MARKS.get(str(state), Mark(str(state).replace("_", " "), "", "square"))


def state(value: str) -> Markup:
    """Return a state as word, colour and shape."""
    found = mark(value)
    return Markup(
        '<span class="state {}"><svg viewBox="0 0 12 12" aria-hidden="true"><use href="#m-{}"/></svg>{}</span>'
    ).format(found.hue, found.shape, found.word)


def sign(value: str) -> Markup:
    """Return a state as colour and shape, for where its word stands beside."""
    found = mark(value)
    return Markup(
        '<span class="state {}"><svg viewBox="0 0 12 12" aria-hidden="true"><use href="#m-{}"/></svg></span>'
    ).format(found.hue, found.shape)


def prose(text: str) -> Markup:
    """Return a sentence with what stands between backticks as code.

    >>> str(prose("Patterns, e.g. `*.h5`; all < any"))
    'Patterns, e.g. <code>*.h5</code>; all &lt; any'
    """
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 (escaped before)


def size(value: int) -> Markup:
    """Return bytes with three digits and an SI prefix.

    >>> str(size(1_234_567))
    '<span class="num">1.23<span class="unit">MB</span></span>'
    """
    number, unit = size_parts(value)
    return Markup('<span class="num">{}<span class="unit">{}</span></span>').format(number, unit)


def size_parts(value: int) -> tuple[str, str]:
    """Return (number, unit) of bytes.

    >>> size_parts(999), size_parts(999_999), size_parts(0)
    (('999', 'B'), ('1.00', 'MB'), ('0', 'B'))
    """
    left, power = float(value), 0
    while left >= 999.5 and power < len(_BYTES) - 1:
        left, power = left / 1000, power + 1
    digits = 0 if power == 0 or left >= 99.95 else 1 if left >= 9.995 else 2
    return f"{left:.{digits}f}", _BYTES[power]


def count(value: int) -> Markup:
    """Return a whole number with thin spaces between thousands.

    >>> str(count(12345))
    '<span class="num">12\u2009345</span>'
    """
    return Markup('<span class="num">{}</span>').format(f"{value:,}".replace(",", "\u2009"))


def plural(value: int, one: str, many: str = "") -> Markup:
    """Return a number with its noun.

    >>> str(plural(1, "file")), str(plural(2, "file"))
    ('<span class="num">1</span> file', '<span class="num">2</span> files')
    """
    return count(value) + " " + (one if value == 1 else many or one + "s")


def number(value: float) -> str:
    """Return a measured number without noise: six significant digits at most.

    >>> number(24.900000001), number(3)
    ('24.9', '3')
    """
    if not isinstance(value, float):
        return str(value)
    return _printed(f"{value:.6g}")


def brief(value: float) -> str:
    """Return a number for the end of a scale: three digits, a power of ten below 0.001 and from 100 000 on.

    >>> brief(0.0088957), brief(1234.5), brief(-15.04) == _MINUS + "15"
    ('0.0089', '1230', True)
    """
    short = float(f"{value:.3g}")
    if short == 0 or 1e-3 <= abs(short) < 1e5:
        return _printed(f"{short:.5g}")
    digits, _, power = f"{short:.2e}".partition("e")
    return _printed(f"{float(digits):g}e{power}")


def rounded(value: float, error: float) -> str:
    """Return a number to the place where its error begins: one digit of it, two where it begins with 1.

    >>> rounded(134.7934, 0.05), rounded(0.05, 0.05), rounded(134.7934, 0.12), rounded(134.7934, 0.0)
    ('134.79', '0.05', '134.79', '134.793')
    """
    if not error > 0:
        return number(value)
    begins = math.floor(math.log10(error))
    places = -begins + (error < 2 * 10.0**begins)
    return _printed(f"{value:.{min(max(0, places), 6)}f}")


def _printed(text: str) -> str:
    """Return what Python writes for a number as it is printed: a minus, and a raised power of ten."""
    digits, _, power = text.partition("e")
    raised = f"\u00d710{str(int(power)).translate(_RAISED)}" if power else ""
    return digits.replace("-", _MINUS) + raised


def unit(symbol: str) -> str:
    """Return a unit as it is printed.

    >>> unit("um"), unit("1/pixel")
    ('µm', 'pixel⁻¹')
    """
    return _UNITS.get(symbol, symbol)


def verb(technique: str) -> str:
    """Return what the button that starts a technique says.

    >>> verb("tomography"), verb("denoise")
    ('Reconstruct', 'Run denoise')
    """
    return {"tomography": "Reconstruct", "xpcs": "Correlate", "average": "Average"}.get(
        technique, f"Run {technique}"
    )


def title(technique: str) -> str:
    """Return a technique's name as it begins a line.

    >>> title("tomography"), title("xpcs")
    ('Tomography', 'XPCS')
    """
    return {"xpcs": "XPCS"}.get(technique, technique.capitalize())


def quantity(value: Any) -> Markup:
    """Return a Quantity as number and unit."""
    return Markup('<span class="num">{}<span class="unit">{}</span></span>').format(
        number(value.value), unit(value.unit)
    )


def ago(at: datetime | None, now: datetime) -> Markup:
    """Return a time relative to now, with the exact one on hover; after 30 days, the date."""
    if at is None:
        return Markup('<span class="faint">—</span>')
    seconds = max(0.0, (now - at).total_seconds())
    text = "just now" if seconds < _JUST_NOW_S else f"{at:%Y-%m-%d}"
    for limit, unit, name in _AGO:
        if _JUST_NOW_S <= seconds < limit:
            text = f"{int(seconds // unit)} {name} ago"
            break
    exact = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}" data-ago class="num">{}</time>').format(
        at.isoformat(), exact, text
    )


def day(at: datetime | None) -> Markup:
    """Return a date, with the exact time on hover."""
    if at is None:
        return Markup('<span class="faint">—</span>')
    exact = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}" class="num">{}</time>').format(
        at.isoformat(), exact, f"{at:%Y-%m-%d}"
    )


def date(day: calendar.date) -> Markup:
    """Return a day that is no point in time, such as one of a forecast."""
    return Markup('<span class="num">{}</span>').format(day.isoformat())


def listed(parts: Sequence[str]) -> Markup:
    """Return names as a list in words.

    >>> str(listed(["a", "b", "c"])), str(listed(["a"]))
    ('a, b and c', 'a')
    """
    return Markup(" and ").join([Markup(", ").join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def span(seconds: float) -> str:
    """Return a length of time.

    >>> span(0.42), span(61), span(7260)
    ('0.4 s', '1 min 1 s', '2 h 1 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def copyable(value: str, shown: str = "") -> Markup:
    """Return an id or a path in mono that one click copies."""
    return Markup('<button type="button" class="copy" data-copy="{}" title="Copy">{}</button>').format(
        value, shown or value
    )


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    """Percent along the axis."""
    text: str


def ticks(length: int, step: float = 1.0, *, most: int = 6) -> list[Tick]:
    """Return round marks along `length` pixels of `step` units each, from 0.

    >>> [tick.text for tick in ticks(512)]
    ['0', '100', '200', '300', '400', '500']
    """
    whole = length * step
    if not whole > 0:
        return []
    rough = whole / (most - 1)
    power = 10.0 ** len(str(int(rough))) / 10 if rough >= 1 else 10.0 ** -len(f"{1 / rough:.0f}")
    unit = next(m * power for m in (1, 2, 2.5, 5, 10, 20, 50, 100) if m * power >= rough * 0.83)
    found = []
    at = 0.0
    while at <= whole * 1.0001:
        found.append(Tick(round(100 * at / whole, 3), f"{at:g}"))
        at += unit
    return found


def plain(value: Any) -> Markup:
    """Return any JSON value as text for a table."""
    if isinstance(value, Mapping):
        return Markup(", ").join(Markup("{}: {}").format(key, plain(each)) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return Markup(", ").join(plain(each) for each in value)
    if value is None:
        return Markup('<span class="faint">not given</span>')
    if isinstance(value, bool):
        return escape("yes" if value else "no")
    return escape(number(value) if isinstance(value, float) else str(value))
