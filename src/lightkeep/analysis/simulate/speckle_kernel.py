"""Photons of speckle, many pixels at a time: the loops behind `speckle.Speckle`.

A pixel is looked at in some frames only. In a frame of Poisson mean mu I a photon is seen with probability
1 - exp(-mu I), which is below `cover` = 1 - exp(-mu B) as long as I < B. So the frames to look at are drawn with
probability `cover` each (a geometric step), the field is carried there in one exact Ornstein-Uhlenbeck step, and
photons are counted with the probability that is left. Where photons are plenty, `cover` is 1: every frame.

Random numbers are a hash of (seed, pixel, frame), so nothing depends on how frames and pixels are cut into blocks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray
from scipy.special import ndtri

LANES = 128
"""Pixels that one loop handles together; arrays of pixels are padded to whole groups of them."""
NEVER = 2**31 - 1
"""`due` of a pixel that sees nothing any more."""
_LANES, _FARTHEST = np.int64(LANES), np.float32(1e9)
_WEYL, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""Constants of splitmix64, Steele, Lea & Flood (2014)."""
_S11, _S12, _S24, _S27, _S30, _S31, _S33, _S36 = (np.uint64(n) for n in (11, 12, 24, 27, 30, 31, 33, 36))
_TWELVE, _TWENTY = np.uint64(0xFFF), np.uint64(0xFFFFF)
_UNIT20, _UNIT31 = np.float32(2.0**-20), np.float32(2.0**-31)
_NONE, _HALF, _TWO = np.float32(0), np.float32(0.5), np.float32(2)
_ROOT_HALF, _NEXT = np.float32(math.sqrt(0.5)), np.int32(1)


def _coefficients(function: Any, degree: int) -> tuple[np.float32, ...]:
    """Return the powers' coefficients of a function on [0, 1], interpolated at Chebyshev's points."""
    fit = Chebyshev.interpolate(function, degree, domain=[0, 1])
    return tuple(np.float32(each) for each in fit.convert(kind=Polynomial).coef)


_E0, _E1, _E2, _E3, _E4, _E5, _E6 = _coefficients(lambda y: -np.expm1(-y) / np.maximum(y, 1e-300), 6)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7 = _coefficients(np.log1p, 7)
_LN2, _SIXTEEN, _SIXTEENTH = np.float32(math.log(2)), np.float32(16), np.float32(1 / 16)


def normal_table() -> NDArray[np.float32]:
    """(4096,) normal deviates, equally likely, with variance 1 and fourth moment 3 as the normal distribution has.

    These two are what g2 depends on: with them the fourth cumulant of a field driven by the table is zero, and
    <I(t) I(t + tau)> is exactly that of a Gaussian field.
    """
    x = ndtri((np.arange(4096) + 0.5) / 4096)
    tail = 0.0
    for _ in range(50):  # fixed point: x + tail x^3 has the right kurtosis
        y = x + tail * x**3
        kurtosis = np.mean(y**4) / np.mean(y**2) ** 2
        tail += (3 - kurtosis) / 24
    y = x + tail * x**3
    return np.asarray(y / np.sqrt(np.mean(y**2)), np.float32)


@intrinsic
def _bits(_context: Any, _value: Any) -> Any:
    """int32 with the bits of a float32."""

    def code(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), code


@njit(inline="always")
def _mix(z: Any) -> Any:
    """64 well-mixed bits of z (splitmix64's finaliser)."""
    z = (z ^ (z >> _S30)) * _MIX1
    z = (z ^ (z >> _S27)) * _MIX2
    return z ^ (z >> _S31)


@njit(inline="always")
def _faded(x: Any) -> Any:
    """1 - exp(-x) for x >= 0, to 1e-6 of its value: on [0, 1] a polynomial, four doublings up to x = 16."""
    y = min(x, _SIXTEEN) * _SIXTEENTH
    d = y * (_E0 + y * (_E1 + y * (_E2 + y * (_E3 + y * (_E4 + y * (_E5 + y * _E6))))))
    d = d * (_TWO - d)
    d = d * (_TWO - d)
    d = d * (_TWO - d)
    return d * (_TWO - d)


@njit(inline="always")
def _log(u: Any) -> Any:
    """Natural logarithm of a float32 in (0, 1], to 1e-6."""
    bits: Any = _bits(u)  # type: ignore[call-arg]
    y = np.float32(bits & 0x7FFFFF) * np.float32(2.0**-23)
    series = _L0 + y * (_L1 + y * (_L2 + y * (_L3 + y * (_L4 + y * (_L5 + y * (_L6 + y * _L7))))))
    return np.float32((bits >> 23) - 127) * _LN2 + series


@njit(nogil=True, cache=True)
def _photons(rate: float, share: float, key: np.uint64) -> int:
    """Poisson number whose survival function first falls to `share` or below it; 0 where share is above all.

    Above 60 the mean is cut into equal parts, which draw for themselves and add.
    """
    few = 0.5 * rate * rate  # more than the probability of two, and rate - few less than that of one
    if few < share < rate - few:
        return 1
    if rate <= 60.0:
        return _invert(rate, share)
    parts = int(rate / 60.0) + 1
    total = 0
    for _ in range(parts):
        key = _mix(key + _WEYL)
        total += _invert(rate / parts, (np.float64(key >> _S11) + 0.5) * 2.0**-53)
    return total


@njit(nogil=True, cache=True)
def _invert(rate: float, share: float) -> int:
    term, count = math.exp(-rate), 0
    left = 1.0 - term
    while share < left and term > 0.0:
        count += 1
        term *= rate / count
        left -= term
    return count


@njit(nogil=True, cache=True)
def begin_fields(seed: Any, normals: Any, gap: Any, key: Any, due: Any, moving: Any, still: Any) -> None:
    """Fill key and due (group, LANES), and the fields at frame 0, (group, modes, 2, LANES), mean |E|^2 = 1."""
    for g in range(key.shape[0]):
        for j in range(LANES):
            key[g, j] = _mix(_mix(seed) + np.uint64(g * LANES + j) * _WEYL)
            z = _mix(key[g, j] ^ _MIX1)
            if due[g, j] != NEVER:
                frames = gap[g, j] * math.log((np.float64(z >> _S11) + 0.5) * 2.0**-53)
                due[g, j] = np.int32(min(frames, _FARTHEST))
            for mode in range(moving.shape[1]):
                z = _mix(z + _WEYL)
                moving[g, mode, 0, j] = normals[z & _TWELVE] * _ROOT_HALF
                moving[g, mode, 1, j] = normals[(z >> _S12) & _TWELVE] * _ROOT_HALF
                if still.shape[1]:
                    still[g, mode, 0, j] = normals[(z >> _S24) & _TWELVE] * _ROOT_HALF
                    still[g, mode, 1, j] = normals[(z >> _S36) & _TWELVE] * _ROOT_HALF


_FUSED = {"contract", "nsz"}
# The steps are functions of their own, and types are narrow: only then does LLVM turn each loop into vectors.


@njit(nogil=True, cache=True, fastmath=_FUSED)
def _look(end: Any, due: Any, looked: Any) -> Any:
    """Set the frame that each pixel is looked at in next; return how many of them are before the end."""
    busy = np.int32(0)
    for j in range(_LANES):
        looked[j] = due[j]
        busy += np.int32(due[j] < end)
    return busy


@njit(nogil=True, cache=True, fastmath=_FUSED)
def _draw(looked: Any, key: Any, stride: Any, step: Any, drawn: Any) -> None:
    """Set 64 random bits for each pixel and the frame that it is looked at in."""
    for j in range(_LANES):
        drawn[j] = _mix(key[j] + (np.uint64(looked[j]) * stride + step) * _WEYL)


@njit(nogil=True, cache=True, fastmath=_FUSED)
def _fade(end: Any, looked: Any, seen: Any, rate: Any, clock: Any, work: Any) -> None:
    """Set how much of each field is lost since it was last seen (work[0]), and what comes instead (work[1])."""
    fade, kick = work[0], work[1]
    if clock.size:
        for j in range(_LANES):
            at = looked[j] if looked[j] < end else end - _NEXT
            fade[j] = np.float32(clock[at] - clock[min(seen[j], at)]) * rate[j]
    else:
        for j in range(_LANES):
            fade[j] = np.float32(np.int32(looked[j] - seen[j])) * rate[j]
    for j in range(_LANES):
        fade[j] = _faded(fade[j]) if looked[j] < end else _NONE
    for j in range(_LANES):
        kick[j] = np.sqrt(fade[j] * (_TWO - fade[j])) * _ROOT_HALF


@njit(nogil=True, cache=True, fastmath=_FUSED)
def _turn(moving: Any, mode: int, part: int, drawn: Any, shift: Any, normals: Any, work: Any) -> None:
    """Carry one part of a field, real or imaginary, to the frame that is looked at."""
    fade, kick = work[0], work[1]
    for j in range(_LANES):
        old = moving[mode, part, j]
        moving[mode, part, j] = old + kick[j] * normals[(drawn[j] >> shift) & _TWELVE] - fade[j] * old


@njit(nogil=True, cache=True, fastmath=_FUSED)
def _shine(moving: Any, still: Any, mode: int, part: int, amplitudes: Any, work: Any) -> None:
    """Add the square of one part of a field to the intensity (work[2])."""
    light = work[2]
    if still.shape[0]:
        dynamic, static = amplitudes
        for j in range(_LANES):
            x = dynamic * moving[mode, part, j] + static * still[mode, part, j]
            light[j] += x * x
    else:
        for j in range(_LANES):
            light[j] += moving[mode, part, j] * moving[mode, part, j]


@njit(nogil=True, cache=True, fastmath=_FUSED)
def _decide(
    end: Any, looked: Any, drawn: Any, cover: Any, mean: Any, beam: Any, share: Any, work: Any, hit: Any
) -> None:
    """Set the mean number of photons (work[2]), the random share to compare with (work[3]), and who hits."""
    light, want = work[2], work[3]
    for j in range(_LANES):
        want[j] = (np.float32(np.int32((drawn[j] >> _S24) & _TWENTY)) + _HALF) * _UNIT20 * cover[j]
    for j in range(_LANES):
        light[j] *= share * mean[j] * beam[np.uint32(looked[j] if looked[j] < end else end - _NEXT)]
    for j in range(_LANES):
        hit[j] = np.uint8(looked[j] < end) & np.uint8(want[j] < light[j])


@njit(nogil=True, cache=True, fastmath=_FUSED)
def _go_on(end: Any, looked: Any, drawn: Any, gap: Any, seen: Any, due: Any, work: Any) -> None:
    """Set when each pixel is looked at next."""
    wait = work[4]
    for j in range(_LANES):
        wait[j] = (np.float32(np.int32(drawn[j] >> _S33)) + _HALF) * _UNIT31
    for j in range(_LANES):
        frames = gap[j] * _log(wait[j])
        wait[j] = min(_FARTHEST, frames)
    for j in range(_LANES):
        on = looked[j] < end
        seen[j] = looked[j] if on else seen[j]
        due[j] = np.int32(looked[j] + _NEXT + np.int32(wait[j])) if on else looked[j]


@njit(nogil=True, cache=True)
def _illuminate(looked: Any, group: Any, normals: Any, amplitudes: Any, drawn: Any, more: Any, work: Any) -> None:
    """Carry every mode's field to the frame that is looked at, and add up its intensity (work[2]).

    The bits of a draw: 24 for the first mode (12 each for real and imaginary part), 20 to decide on a photon, 20
    (and 11 of those again, as the finest ones) for the next frame; then 48 for each two further modes.
    """
    key, moving, still, stride = group
    work[2] = 0
    for mode in range(moving.shape[0]):
        if mode % 2 == 1:
            _draw(looked, key, stride, np.uint64(mode // 2 + 1), more)
        bits = more if mode else drawn
        for part in range(2):
            shift = np.uint64(12 * part + (24 if mode and mode % 2 == 0 else 0))
            _turn(moving, mode, part, bits, shift, normals, work)
            _shine(moving, still, mode, part, amplitudes, work)


@njit(nogil=True, cache=True)
def measure(
    first: int, last: int, begin: int, end: int, optics: Any, state: Any, law: Any, normals: Any,
    amplitudes: Any, most: int, stack: Any, events: Any,
) -> Any:  # fmt: skip
    """Count the photons of frames begin..end in the groups of pixels first..last, into stack or into events.

    Parameters
    ----------
    optics: rate, mean, cover, gap: (group, LANES) float32; decay of the field per frame, photons per frame,
        probability to be looked at, and 1 / log(1 - cover).
    state: key uint64, seen and due int32: (group, LANES); moving, still: (group, modes, 2, LANES) float32, still
        (1, 0, ...) without a static field. Moved on.
    law: beam (frame,) float32; clock (frame,) float64, or (0,) for one that does not age.
    normals: `normal_table`. amplitudes: of the moving and of the still field, float32. most: greatest count.
    stack: (frame, pixel) uint16, zeros; (0, 0) to write events.
    events: when uint32, where uint32, count uint16: room for events, used up to the number returned.

    Returns
    -------
    : number of events, and the first group that was left because there was no room.
    """
    rate, mean, cover, gap = optics
    key, seen, due, moving, still = state
    beam, clock = law
    used, stop, modes = 0, np.int32(end), moving.shape[1]
    stride, share = np.uint64(1 + modes // 2), np.float32(1 / modes)
    work, drawn, more = np.empty((5, LANES), np.float32), np.empty(LANES, np.uint64), np.empty(LANES, np.uint64)
    looked, hit = np.empty(LANES, np.int32), np.empty(LANES, np.uint8)
    room = 0 if stack.size else LANES * (end - begin)
    found = np.empty((LANES, room // LANES), np.uint32), np.empty((LANES, room // LANES), np.uint16)
    filled = np.zeros(LANES, np.int64)
    for g in range(first, last):
        if used + room > events[0].size:
            return used, g
        keys, last_seen, next_due, mean_g, rate_g, cover_g, gap_g = (
            key[g], seen[g], due[g], mean[g], rate[g], cover[g], gap[g],
        )  # fmt: skip
        group = keys, moving[g], still[min(g, still.shape[0] - 1)], stride
        while _look(stop, next_due, looked):
            _draw(looked, keys, stride, np.uint64(0), drawn)
            _fade(stop, looked, last_seen, rate_g, clock, work)
            _illuminate(looked, group, normals, amplitudes, drawn, more, work)
            _decide(stop, looked, drawn, cover_g, mean_g, beam, share, work, hit)
            _go_on(stop, looked, drawn, gap_g, last_seen, next_due, work)
            _note(begin, g, looked, drawn, hit, work, most, stack, found, filled)
        used = _hand_over(g, found, filled, events, used)
    return used, last


@njit(nogil=True, cache=True)
def _note(
    begin: int,
    g: int,
    looked: Any,
    drawn: Any,
    hit: Any,
    work: Any,
    most: int,
    stack: Any,
    found: Any,
    filled: Any,
) -> None:
    """Count the photons of the pixels that may have seen one."""
    light, want = work[2], work[3]
    for j in range(_LANES):
        if not hit[j]:
            continue
        photons = min(_photons(np.float64(light[j]), np.float64(want[j]), drawn[j]), most)
        if photons == 0:
            continue
        if stack.size:
            stack[looked[j] - begin, g * _LANES + j] = photons
        else:
            at = filled[j]
            found[0][j, at], found[1][j, at] = looked[j], photons
            filled[j] = at + 1


@njit(nogil=True, cache=True)
def _hand_over(g: int, found: Any, filled: Any, events: Any, used: int) -> int:
    """Append a group's events, pixel by pixel; return how many there are by now."""
    when, where, value = events
    for j in range(_LANES):
        for n in range(filled[j]):
            when[used], where[used], value[used] = found[0][j, n], g * _LANES + j, found[1][j, n]
            used += 1
        filled[j] = 0
    return used


@njit(nogil=True, cache=True)
def by_frame(begin: int, found: Any, places: Any, out: Any) -> None:
    """Move events (when, where, value) to `places` (frame,), the next free place of each frame, in out."""
    when, where, value = found
    out_when, out_where, out_value = out
    for n in range(when.size):
        at = places[when[n] - begin]
        places[when[n] - begin] = at + 1
        out_when[at], out_where[at], out_value[at] = when[n], where[n], value[n]
