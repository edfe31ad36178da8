"""The FFT of a batch of slices: an element is a complex number of every lane, so there is nothing to shuffle.

A length is split in two factors A B of about the same size (Bailey 1990, J. Supercomput. 4, 23): DFTs of A
elements that lie B apart, then of B side by side. Each is short enough for the innermost cache and goes through
the passes of Stockham's self-sorting algorithm (Cochran et al. 1967) with the radices 8, 5, 4, 3 and 2, so
elements come from farther away twice only, and may lie any step apart. An element is two vectors, real and
imaginary. The inverse, without 1 / n, is the same in reverse: its number k is this one's number n - k.
"""

from __future__ import annotations

from lightkeep.analysis.simd.compile import part, woven
from lightkeep.analysis.simd.lanes import fmuladd, load, splat, store
from lightkeep.analysis.simd.memory import get_f32, get_i64, prefetch
from lightkeep.analysis.simd.width import LANES

IMAGINARY = 4 * LANES
"""Bytes from an element's real to its imaginary part."""
ELEMENT = 8 * LANES
"""Bytes of an element."""


@woven
def store_turned(at: int, x, y, twiddle: int) -> int:  # type: ignore[no-untyped-def]
    """Store x + iy times the complex number at `twiddle`."""
    c, s = splat(get_f32(twiddle, 0)), splat(get_f32(twiddle, 1))
    store(at, fmuladd(x, c, splat(0.0) - y * s))
    store(at + IMAGINARY, fmuladd(x, s, y * c))
    return 0


@woven
def dft_2(a: int, far: int, z: int, out: int, w: int, wide: int) -> int:
    """DFT of two elements, `far` bytes apart, times the numbers at w; to z, `out` bytes apart."""
    ar, ai, br, bi = load(a), load(a + IMAGINARY), load(a + far), load(a + far + IMAGINARY)
    store_turned(z, ar + br, ai + bi, w)
    store_turned(z + out, ar - br, ai - bi, w + wide)
    return 0


@woven
def dft_3(a: int, far: int, z: int, out: int, w: int, wide: int) -> int:
    """Of three."""
    half, root = splat(-0.5), splat(0.8660254037844386)
    ar, ai = load(a), load(a + IMAGINARY)
    br, bi = load(a + far), load(a + far + IMAGINARY)
    cr, ci = load(a + 2 * far), load(a + 2 * far + IMAGINARY)
    sr, si, dr, di = br + cr, bi + ci, (br - cr) * root, (bi - ci) * root
    store_turned(z, ar + sr, ai + si, w)
    er, ei = fmuladd(sr, half, ar), fmuladd(si, half, ai)
    store_turned(z + out, er + di, ei - dr, w + wide)
    store_turned(z + 2 * out, er - di, ei + dr, w + 2 * wide)
    return 0


@woven
def dft_4(a: int, far: int, z: int, out: int, w: int, wide: int) -> int:
    """Of four."""
    ar, ai = load(a), load(a + IMAGINARY)
    br, bi = load(a + far), load(a + far + IMAGINARY)
    cr, ci = load(a + 2 * far), load(a + 2 * far + IMAGINARY)
    dr, di = load(a + 3 * far), load(a + 3 * far + IMAGINARY)
    er, ei, fr, fi = ar + cr, ai + ci, ar - cr, ai - ci
    gr, gi, hr, hi = br + dr, bi + di, br - dr, bi - di
    store_turned(z, er + gr, ei + gi, w)
    store_turned(z + out, fr + hi, fi - hr, w + wide)
    store_turned(z + 2 * out, er - gr, ei - gi, w + 2 * wide)
    store_turned(z + 3 * out, fr - hi, fi + hr, w + 3 * wide)
    return 0


@woven
def dft_5(a: int, far: int, z: int, out: int, w: int, wide: int) -> int:
    """Of five."""
    c1, c2 = splat(0.30901699437494745), splat(-0.8090169943749475)
    s1, s2 = splat(0.9510565162951535), splat(0.5877852522924731)
    ar, ai = load(a), load(a + IMAGINARY)
    br, bi = load(a + far), load(a + far + IMAGINARY)
    er, ei = load(a + 4 * far), load(a + 4 * far + IMAGINARY)
    cr, ci = load(a + 2 * far), load(a + 2 * far + IMAGINARY)
    dr, di = load(a + 3 * far), load(a + 3 * far + IMAGINARY)
    pr, pi, qr, qi = br + er, bi + ei, br - er, bi - ei
    tr, ti, ur, ui = cr + dr, ci + di, cr - dr, ci - di
    store_turned(z, ar + pr + tr, ai + pi + ti, w)
    fr, fi = fmuladd(tr, c2, fmuladd(pr, c1, ar)), fmuladd(ti, c2, fmuladd(pi, c1, ai))
    gr, gi = fmuladd(ur, s2, qr * s1), fmuladd(ui, s2, qi * s1)
    store_turned(z + out, fr + gi, fi - gr, w + wide)
    store_turned(z + 4 * out, fr - gi, fi + gr, w + 4 * wide)
    fr, fi = fmuladd(tr, c1, fmuladd(pr, c2, ar)), fmuladd(ti, c1, fmuladd(pi, c2, ai))
    gr, gi = qr * s2 - ur * s1, qi * s2 - ui * s1
    store_turned(z + 2 * out, fr + gi, fi - gr, w + 2 * wide)
    store_turned(z + 3 * out, fr - gi, fi + gr, w + 3 * wide)
    return 0


@woven
def dft_8(a: int, far: int, z: int, out: int, w: int, wide: int) -> int:
    """Of eight: four of even and four of odd number, then pairs of both."""
    root = splat(0.7071067811865476)
    ar, ai = load(a), load(a + IMAGINARY)
    br, bi = load(a + 4 * far), load(a + 4 * far + IMAGINARY)
    cr, ci = load(a + 2 * far), load(a + 2 * far + IMAGINARY)
    dr, di = load(a + 6 * far), load(a + 6 * far + IMAGINARY)
    sr, si, tr, ti = ar + br, ai + bi, ar - br, ai - bi
    ur, ui, vr, vi = cr + dr, ci + di, cr - dr, ci - di
    e0r, e0i, e2r, e2i = sr + ur, si + ui, sr - ur, si - ui
    e1r, e1i, e3r, e3i = tr + vi, ti - vr, tr - vi, ti + vr
    ar, ai = load(a + far), load(a + far + IMAGINARY)
    br, bi = load(a + 5 * far), load(a + 5 * far + IMAGINARY)
    cr, ci = load(a + 3 * far), load(a + 3 * far + IMAGINARY)
    dr, di = load(a + 7 * far), load(a + 7 * far + IMAGINARY)
    sr, si, tr, ti = ar + br, ai + bi, ar - br, ai - bi
    ur, ui, vr, vi = cr + dr, ci + di, cr - dr, ci - di
    fr, fi = sr + ur, si + ui
    store_turned(z, e0r + fr, e0i + fi, w)
    store_turned(z + 4 * out, e0r - fr, e0i - fi, w + 4 * wide)
    fr, fi = si - ui, ur - sr
    store_turned(z + 2 * out, e2r + fr, e2i + fi, w + 2 * wide)
    store_turned(z + 6 * out, e2r - fr, e2i - fi, w + 6 * wide)
    gr, gi = tr + vi, ti - vr
    fr, fi = (gr + gi) * root, (gi - gr) * root
    store_turned(z + out, e1r + fr, e1i + fi, w + wide)
    store_turned(z + 5 * out, e1r - fr, e1i - fi, w + 5 * wide)
    gr, gi = tr - vi, ti + vr
    fr, fi = (gi - gr) * root, (splat(0.0) - gr - gi) * root
    store_turned(z + 3 * out, e3r + fr, e3i + fi, w + 3 * wide)
    store_turned(z + 7 * out, e3r - fr, e3i - fi, w + 7 * wide)
    return 0


@part
def first_pass(radix: int, x: int, apart: int, y: int, table: int, m: int) -> int:
    """From radix m elements that are `apart` bytes apart."""
    far = m * apart
    if radix == 8:
        for p in range(m):
            dft_8(x + p * apart, far, y + 8 * p * ELEMENT, ELEMENT, table + 64 * p, 8)
    elif radix == 4:
        for p in range(m):
            dft_4(x + p * apart, far, y + 4 * p * ELEMENT, ELEMENT, table + 32 * p, 8)
    elif radix == 5:
        for p in range(m):
            dft_5(x + p * apart, far, y + 5 * p * ELEMENT, ELEMENT, table + 40 * p, 8)
    elif radix == 3:
        for p in range(m):
            dft_3(x + p * apart, far, y + 3 * p * ELEMENT, ELEMENT, table + 24 * p, 8)
    else:
        for p in range(m):
            dft_2(x + p * apart, far, y + 2 * p * ELEMENT, ELEMENT, table + 16 * p, 8)
    return 0


@part
def middle_pass(radix: int, x: int, s: int, y: int, table: int, m: int) -> int:
    """From radix m s elements side by side to others."""
    far, out = m * s * ELEMENT, s * ELEMENT
    if radix == 8:
        for p in range(m):
            for q in range(s):
                at, to = x + (p * s + q) * ELEMENT, y + (8 * p * s + q) * ELEMENT
                dft_8(at, far, to, out, table + 64 * p, 8)
    elif radix == 4:
        for p in range(m):
            for q in range(s):
                at, to = x + (p * s + q) * ELEMENT, y + (4 * p * s + q) * ELEMENT
                dft_4(at, far, to, out, table + 32 * p, 8)
    elif radix == 5:
        for p in range(m):
            for q in range(s):
                at, to = x + (p * s + q) * ELEMENT, y + (5 * p * s + q) * ELEMENT
                dft_5(at, far, to, out, table + 40 * p, 8)
    elif radix == 3:
        for p in range(m):
            for q in range(s):
                at, to = x + (p * s + q) * ELEMENT, y + (3 * p * s + q) * ELEMENT
                dft_3(at, far, to, out, table + 24 * p, 8)
    else:
        for p in range(m):
            for q in range(s):
                at, to = x + (p * s + q) * ELEMENT, y + (2 * p * s + q) * ELEMENT
                dft_2(at, far, to, out, table + 16 * p, 8)
    return 0


@part
def last_pass(radix: int, x: int, step: int, s: int, y: int, apart: int, table: int, wide: int) -> int:
    """To radix s elements that are `apart` bytes apart; the numbers at `table` are `wide` bytes apart."""
    far, out, wider = s * step, s * apart, s * wide
    if radix == 8:
        for q in range(s):
            dft_8(x + q * step, far, y + q * apart, out, table + q * wide, wider)
    elif radix == 4:
        for q in range(s):
            dft_4(x + q * step, far, y + q * apart, out, table + q * wide, wider)
    elif radix == 5:
        for q in range(s):
            dft_5(x + q * step, far, y + q * apart, out, table + q * wide, wider)
    elif radix == 3:
        for q in range(s):
            dft_3(x + q * step, far, y + q * apart, out, table + q * wide, wider)
    else:
        for q in range(s):
            dft_2(x + q * step, far, y + q * apart, out, table + q * wide, wider)
    return 0


@part
def short(x: int, apart: int, z: int, out: int, factors: int, wide: int, stage: int, work: int) -> int:
    """DFT of the elements at x, `apart` bytes apart, times the factors at `wide` bytes, to z, `out` bytes apart.

    stage: address of what `FftPlan` made of the length. work: 2 of the length, in the innermost cache.
    """
    count, length, twiddles = get_i64(stage, 0), get_i64(stage, 1), get_i64(stage, 2)
    radix, m = get_i64(stage, 3), get_i64(stage, 4)
    if count == 1:
        last_pass(radix, x, apart, 1, z, out, factors, wide)
        return 0
    at, to, s = work, work + length * ELEMENT, radix
    first_pass(radix, x, apart, at, twiddles, m)
    for i in range(1, count - 1):
        twiddles += radix * m * 8
        radix, m = get_i64(stage, 2 * i + 3), get_i64(stage, 2 * i + 4)
        middle_pass(radix, at, s, to, twiddles, m)
        s *= radix
        at, to = to, at
    last_pass(get_i64(stage, 2 * count + 1), at, ELEMENT, s, z, out, factors, wide)
    return 0


@part
def fetch(at: int, apart: int, count: int) -> int:
    """Have elements in the cache soon."""
    for i in range(count):
        for line in range(0, ELEMENT, 64):
            prefetch(at + i * apart + line)
    return 0


@part
def transform(
    x: int, apart: int, z: int, out: int, factors: int, wide: int, plan: int, work: int, ahead: int, ahead_out: int
) -> int:
    """FFT of the elements at x, `apart` bytes apart, to z, `out` bytes apart; x stays, unless z is the same.

    factors: complex64, `wide` bytes apart: what the results are multiplied by. plan: address of what `FftPlan`
    made. work: its `work_elements`. ahead, ahead_out: how many bytes on those are that come next, or 0.
    """
    a, b, turns, pitch = get_i64(plan, 0), get_i64(plan, 1), get_i64(plan, 2), (get_i64(plan, 1) + 1) * ELEMENT
    inner, outer = plan + 32, plan + 32 + get_i64(plan, 3)
    grid = work + 2 * max(a, b) * ELEMENT
    if b == 1:
        short(x, apart, z, out, factors, wide, inner, work)
        return 0
    for i in range(b):
        if ahead:
            fetch(x + i * apart + ahead, b * apart, a)
        if ahead_out:
            fetch(z + i * out + ahead_out, b * out, a)
        short(x + i * apart, b * apart, grid + i * ELEMENT, pitch, turns + i * a * 8, 8, inner, work)
    for i in range(a):
        short(grid + i * pitch, ELEMENT, z + i * out, a * out, factors + i * wide, a * wide, outer, work)
    return 0
