"""The FFT of a batch of slices: an element is a complex number of every lane, so there is nothing to shuffle.

Stockham's self-sorting algorithm (Cochran et al. 1967) with the radices 4, 2, 3 and 5. An element is two vectors,
real and imaginary. The inverse, without 1 / n, is the same with the two exchanged: each function takes their
offsets.
"""

from __future__ import annotations

from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.lanes import fmuladd, load, splat, store
from lightkeep.analysis.simd.memory import get_f32, get_i64
from lightkeep.analysis.simd.width import LANES

IMAGINARY = 4 * LANES
"""Bytes from an element's real to its imaginary part."""
ELEMENT = 8 * LANES
"""Bytes of an element."""
MAX_RADICES = 24


@part
def store_turned(at: int, real: int, imaginary: int, x, y, twiddle: int) -> int:  # type: ignore[no-untyped-def]
    """Store x + iy times the complex number at `twiddle`."""
    c, s = splat(get_f32(twiddle, 0)), splat(get_f32(twiddle, 1))
    store(at + real, fmuladd(x, c, splat(0.0) - y * s))
    store(at + imaginary, fmuladd(x, s, y * c))
    return 0


@part
def pass_2(x: int, y: int, m: int, s: int, twiddles: int, re: int, im: int) -> int:
    """Combine two halves."""
    far, out = m * s * ELEMENT, s * ELEMENT
    for p in range(m):
        w = twiddles + 8 * p
        for q in range(s):
            a = x + (p * s + q) * ELEMENT
            z = y + (2 * p * s + q) * ELEMENT
            ar, ai, br, bi = load(a + re), load(a + im), load(a + far + re), load(a + far + im)
            store(z + re, ar + br)
            store(z + im, ai + bi)
            store_turned(z + out, re, im, ar - br, ai - bi, w)
    return 0


@part
def pass_3(x: int, y: int, m: int, s: int, twiddles: int, re: int, im: int) -> int:
    """Combine three thirds."""
    far, out = m * s * ELEMENT, s * ELEMENT
    half, root = splat(-0.5), splat(0.8660254037844386)
    for p in range(m):
        w = twiddles + 16 * p
        for q in range(s):
            a = x + (p * s + q) * ELEMENT
            z = y + (3 * p * s + q) * ELEMENT
            ar, ai = load(a + re), load(a + im)
            br, bi = load(a + far + re), load(a + far + im)
            cr, ci = load(a + 2 * far + re), load(a + 2 * far + im)
            sr, si, dr, di = br + cr, bi + ci, (br - cr) * root, (bi - ci) * root
            store(z + re, ar + sr)
            store(z + im, ai + si)
            er, ei = fmuladd(sr, half, ar), fmuladd(si, half, ai)
            store_turned(z + out, re, im, er + di, ei - dr, w)
            store_turned(z + 2 * out, re, im, er - di, ei + dr, w + 8)
    return 0


@part
def pass_4(x: int, y: int, m: int, s: int, twiddles: int, re: int, im: int) -> int:
    """Combine four quarters."""
    far, out = m * s * ELEMENT, s * ELEMENT
    for p in range(m):
        w = twiddles + 24 * p
        c1, s1, c2 = splat(get_f32(w, 0)), splat(get_f32(w, 1)), splat(get_f32(w, 2))
        s2, c3, s3 = splat(get_f32(w, 3)), splat(get_f32(w, 4)), splat(get_f32(w, 5))
        for q in range(s):
            a = x + (p * s + q) * ELEMENT
            z = y + (4 * p * s + q) * ELEMENT
            ar, ai = load(a + re), load(a + im)
            br, bi = load(a + far + re), load(a + far + im)
            cr, ci = load(a + 2 * far + re), load(a + 2 * far + im)
            dr, di = load(a + 3 * far + re), load(a + 3 * far + im)
            er, ei, fr, fi = ar + cr, ai + ci, ar - cr, ai - ci
            gr, gi, hr, hi = br + dr, bi + di, br - dr, bi - di
            store(z + re, er + gr)
            store(z + im, ei + gi)
            ur, ui, vr, vi = fr + hi, fi - hr, fr - hi, fi + hr
            kr, ki = er - gr, ei - gi
            store(z + out + re, ur * c1 - ui * s1)
            store(z + out + im, ur * s1 + ui * c1)
            store(z + 2 * out + re, kr * c2 - ki * s2)
            store(z + 2 * out + im, kr * s2 + ki * c2)
            store(z + 3 * out + re, vr * c3 - vi * s3)
            store(z + 3 * out + im, vr * s3 + vi * c3)
    return 0


@part
def pass_5(x: int, y: int, m: int, s: int, twiddles: int, re: int, im: int) -> int:
    """Combine five fifths."""
    far, out = m * s * ELEMENT, s * ELEMENT
    c1, c2 = splat(0.30901699437494745), splat(-0.8090169943749475)
    s1, s2 = splat(0.9510565162951535), splat(0.5877852522924731)
    for p in range(m):
        w = twiddles + 32 * p
        for q in range(s):
            a = x + (p * s + q) * ELEMENT
            z = y + (5 * p * s + q) * ELEMENT
            ar, ai = load(a + re), load(a + im)
            br, bi = load(a + far + re), load(a + far + im)
            er, ei = load(a + 4 * far + re), load(a + 4 * far + im)
            cr, ci = load(a + 2 * far + re), load(a + 2 * far + im)
            dr, di = load(a + 3 * far + re), load(a + 3 * far + im)
            pr, pi, qr, qi = br + er, bi + ei, br - er, bi - ei
            tr, ti, ur, ui = cr + dr, ci + di, cr - dr, ci - di
            store(z + re, ar + pr + tr)
            store(z + im, ai + pi + ti)
            fr, fi = fmuladd(tr, c2, fmuladd(pr, c1, ar)), fmuladd(ti, c2, fmuladd(pi, c1, ai))
            gr, gi = fmuladd(ur, s2, qr * s1), fmuladd(ui, s2, qi * s1)
            store_turned(z + out, re, im, fr + gi, fi - gr, w)
            store_turned(z + 4 * out, re, im, fr - gi, fi + gr, w + 24)
            fr, fi = fmuladd(tr, c1, fmuladd(pr, c2, ar)), fmuladd(ti, c1, fmuladd(pi, c2, ai))
            gr, gi = qr * s2 - ur * s1, qi * s2 - ui * s1
            store_turned(z + 2 * out, re, im, fr + gi, fi - gr, w + 8)
            store_turned(z + 3 * out, re, im, fr - gi, fi + gr, w + 16)
    return 0


@part
def transform(x: int, y: int, plan: int, re: int, im: int) -> int:
    """FFT of the elements at x, with those at y to work in; return at which of them the result is.

    plan: address of what `plan` made.
    """
    n, count = get_i64(plan, 0), get_i64(plan, 1)
    twiddles = get_i64(plan, 2)
    s = 1
    for i in range(count):
        r = get_i64(plan, 3 + i)
        m = n // (r * s)
        if r == 4:
            pass_4(x, y, m, s, twiddles, re, im)
        elif r == 2:
            pass_2(x, y, m, s, twiddles, re, im)
        elif r == 3:
            pass_3(x, y, m, s, twiddles, re, im)
        else:
            pass_5(x, y, m, s, twiddles, re, im)
        twiddles += 8 * (r - 1) * m
        s *= r
        x, y = y, x
    return x
