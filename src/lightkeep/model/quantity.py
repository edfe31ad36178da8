"""A number with its unit, and the same in SI so that a search can compare."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Symbol -> (factor to SI, SI symbol). Electronvolt and dalton-like constants: CODATA 2018, exact since 2019.
_BASE: dict[str, tuple[float, str]] = {
    "m": (1.0, "m"),
    "s": (1.0, "s"),
    "g": (1e-3, "kg"),
    "A": (1.0, "A"),
    "K": (1.0, "K"),
    "mol": (1.0, "mol"),
    "eV": (1.602176634e-19, "J"),
    "J": (1.0, "J"),
    "Hz": (1.0, "Hz"),
    "Pa": (1.0, "Pa"),
    "bar": (1e5, "Pa"),
    "V": (1.0, "V"),
    "W": (1.0, "W"),
    "N": (1.0, "N"),
    "T": (1.0, "T"),
    "rad": (1.0, "rad"),
    "B": (1.0, "B"),
}
_PREFIX = {"Y": 1e24, "Z": 1e21, "E": 1e18, "P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1.0,
           "d": 1e-1, "c": 1e-2, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15}  # fmt: skip
_NAMED: dict[str, tuple[float, str]] = {
    "": (1.0, ""),
    "deg": (math.pi / 180, "rad"),
    "mrad": (1e-3, "rad"),
    "angstrom": (1e-10, "m"),
    "1/angstrom": (1e10, "1/m"),
    "1/nm": (1e9, "1/m"),
    "1/m": (1.0, "1/m"),
    "min": (60.0, "s"),
    "h": (3600.0, "s"),
    "pixel": (1.0, "pixel"),
    "counts": (1.0, "counts"),
    "%": (0.01, ""),
    "kg": (1.0, "kg"),
}
_SPELLINGS = {
    "µm": "um", "μm": "um", "micron": "um", "microns": "um", "micrometer": "um", "mum": "um",
    "degree": "deg", "degrees": "deg", "°": "deg", "Å": "angstrom", "A-1": "1/angstrom", "Å-1": "1/angstrom",
    "1/A": "1/angstrom", "nm-1": "1/nm", "sec": "s", "second": "s", "seconds": "s", "meter": "m", "metre": "m",
    "ev": "eV", "kev": "keV", "Kev": "keV", "KeV": "keV", "msec": "ms", "pixels": "pixel", "px": "pixel",
    "Angstrom": "angstrom", "radian": "rad", "radians": "rad", "minutes": "min", "hours": "h", "count": "counts",
    "dimensionless": "", "none": "", "mA": "mA",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value in the unit that it was given in, and in SI."""

    value: float
    unit: str
    value_si: float
    unit_si: str

    @classmethod
    def of(cls, value: float, unit: str = "") -> Quantity:
        """Return the quantity; a unit that is not known stays as it is, with itself as its SI unit.

        >>> Quantity.of(24.9, "keV").unit_si
        'J'
        >>> Quantity.of(0.65, "micron").value_si
        6.5e-07
        >>> Quantity.of(3.0, "furlong").unit_si
        'furlong'
        """
        unit = _SPELLINGS.get(unit.strip(), unit.strip())
        factor, unit_si = si_factor(unit) or (1.0, unit)
        return cls(value, unit, float(f"{value * factor:.15g}"), unit_si)

    def __str__(self) -> str:
        return f"{self.value:.6g} {self.unit}".rstrip()


def si_factor(unit: str) -> tuple[float, str] | None:
    """Return (factor, SI unit) of a unit symbol, or None when it is not known."""
    unit = _SPELLINGS.get(unit.strip(), unit.strip())
    if unit in _NAMED:
        return _NAMED[unit]
    if unit in _BASE:
        return _BASE[unit]
    prefix, base = unit[:1], unit[1:]
    if prefix in _PREFIX and base in _BASE:
        factor, unit_si = _BASE[base]
        return float(f"{_PREFIX[prefix] * factor:.15g}"), unit_si
    return None


def bytes_in_words(count: float) -> str:
    """Return an amount of bytes for a person, in decimal units.

    >>> bytes_in_words(1), bytes_in_words(1_500_000)
    ('1 byte', '1.5 MB')
    """
    if count < 1000:
        return f"{count:.0f} {'byte' if count == 1 else 'bytes'}"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.3g} {unit}"
    return f"{count / 1000:.4g} PB"
