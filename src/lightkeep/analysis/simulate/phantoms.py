"""Samples made of ellipsoids, whose line integrals are known exactly.

Geometry, the same in all of `analysis.tomography`
---------------------------------------------------
Lengths are in detector pixels. The sample turns about z, which is parallel to the detector's columns; the beam is
parallel. A volume is `(row, y, x)`, and both y and x grow with their array index. The rotation axis passes through
the middle of every slice, index `(N - 1) / 2` in x and in y, and meets the detector at column `center`, a 0-based
pixel index (0 is the middle of the first pixel). A point (x, y), measured from the axis, is seen at

    column = center + x cos(theta) + y sin(theta)

so at 0 degrees the detector shows x, and at 90 degrees it shows y.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Phantom:
    """Ellipsoids whose densities add where they overlap.

    Lengths are in half-widths of the field of view: x and y from -1 to 1 fill the slice, and z has the same scale.
    """

    centres: Float64
    """(n, 3): x, y, z of each middle."""
    forms: Float64
    """(n, 3, 3): symmetric A of (r - centre)' A (r - centre) <= 1; a row of zeros is an endless cylinder."""
    densities: Float64
    """(n,): attenuation per pixel length that each one adds."""

    @classmethod
    def of(cls, centres: ArrayLike, semi_axes: ArrayLike, densities: ArrayLike, rotations: ArrayLike) -> Phantom:
        """Return the phantom of n ellipsoids.

        Parameters
        ----------
        centres: (n, 3). semi_axes: (n, 3), infinity for an endless axis. densities: (n,).
        rotations: (n, 3, 3), columns are the directions of the semi-axes.
        """
        frame = np.asarray(rotations, float)
        weights = 1.0 / np.asarray(semi_axes, float) ** 2
        forms = np.einsum("nij,nj,nkj->nik", frame, weights, frame)
        return cls(np.asarray(centres, float), forms, np.asarray(densities, float))

    def scaled(self, factor: float) -> Phantom:
        """Return the same shapes with densities times factor."""
        return replace(self, densities=self.densities * factor)

    def projections(
        self,
        theta_deg: ArrayLike,
        *,
        columns: int,
        rows: int = 1,
        center: float | None = None,
        tilt_deg: float = 0.0,
    ) -> Float32:
        """Exact line integrals, averaged over the width of each detector pixel as a detector does.

        Exact along the column axis; along rows the line through the middle of the pixel is taken.

        Parameters
        ----------
        theta_deg: (angles,) in degrees, any order.
        columns: width of the detector; the field of view is as wide.
        rows: height of the detector; its middle sees z = 0.
        center: column where the rotation axis is seen, in the middle row; None: the middle, (columns - 1) / 2.
        tilt_deg: of the axis against the detector's columns, about the beam: `row` rows below the middle one it is
          seen tan(tilt) * row columns further on.

        Returns
        -------
        : (angles, rows, columns) float32, dimensionless (density times pixel lengths).
        """
        theta = np.deg2rad(np.atleast_1d(np.asarray(theta_deg, float)))
        axis = (columns - 1) / 2 if center is None else float(center)
        out = np.zeros((theta.size, rows, columns), np.float32)
        if tilt_deg == 0:
            _project(self.centres, self.forms, self.densities, theta, axis, 2.0 / columns, out)
            return out
        for i in range(theta.size):
            turned = self._tilted(theta[i], np.deg2rad(tilt_deg))
            _project(*turned, self.densities, theta[i : i + 1], axis, 2.0 / columns, out[i : i + 1])
        return out

    def _tilted(self, theta: float, tilt: float) -> tuple[Float64, Float64]:
        """Centres and forms turned by the tilt about the beam's direction at theta."""
        across, beam = np.array([np.cos(theta), np.sin(theta), 0]), np.array([-np.sin(theta), np.cos(theta), 0])
        up = np.array([0.0, 0.0, 1.0])
        turn = np.outer(across, np.cos(tilt) * across + np.sin(tilt) * up) + np.outer(beam, beam)
        turn += np.outer(up, np.cos(tilt) * up - np.sin(tilt) * across)
        return self.centres @ turn.T, turn @ self.forms @ turn.T

    def slices(self, size: int, *, rows: int = 1, oversample: int = 8, columns: int | None = None) -> Float32:
        """True slices, averaged over each pixel: exactly along x, over `oversample` lines along y.

        Parameters
        ----------
        size: width of the slice in pixels, the axis in its middle.
        rows: height of the detector. oversample: lines in each pixel.
        columns: width of the detector, where it is not the slice's: a stitched scan sees more than the detector.

        Returns
        -------
        : (rows, size, size) float32 in 1/pixel, at the heights that `projections` with the same rows looks at.
        """
        out = np.zeros((rows, size, size), np.float32)
        _rasterise(self.centres, self.forms, self.densities, 2.0 / (columns or size), oversample, out)
        return out


@njit(parallel=True, cache=True)
def _project(
    centres: Float64, forms: Float64, densities: Float64, theta: Float64, axis: float, step: float, out: Float32
) -> None:
    """Add each ellipsoid's chord lengths: the ray u + t d cuts u'Au + 2t d'Au + t^2 d'Ad = 1."""
    rows, columns = out.shape[1], out.shape[2]
    for i in prange(theta.size):
        cos, sin = np.cos(theta[i]), np.sin(theta[i])
        for n in range(densities.size):
            a = forms[n]
            dd = a[0, 0] * sin * sin - 2 * a[0, 1] * sin * cos + a[1, 1] * cos * cos
            ee = a[0, 0] * cos * cos + 2 * a[0, 1] * sin * cos + a[1, 1] * sin * sin
            ed = (a[1, 1] - a[0, 0]) * sin * cos + a[0, 1] * (cos * cos - sin * sin)
            ez, dz = a[0, 2] * cos + a[1, 2] * sin, a[1, 2] * cos - a[0, 2] * sin
            middle = centres[n, 0] * cos + centres[n, 1] * sin
            # The shadow on the detector: dd - (se ss + 2 sz s z + zz z z) >= 0, with d eliminated.
            se, sz, zz = ee * dd - ed * ed, ez * dd - ed * dz, a[2, 2] * dd - dz * dz
            for row in range(rows):
                z = (row - (rows - 1) / 2) * step - centres[n, 2]
                root = (sz * z) ** 2 - se * (zz * z * z - dd)
                if root <= 0:
                    continue
                # With u = s - shadow: 2 density sqrt(se (radius^2 - u^2)) / dd, over the pixel's width.
                shadow, radius = middle - sz * z / se, np.sqrt(root) / se
                first = max(0, int(np.floor((shadow - radius) / step + axis + 0.5)))
                last = min(columns - 1, int(np.floor((shadow + radius) / step + axis + 0.5)))
                for column in range(first, last + 1):
                    begin = (column - 0.5 - axis) * step - shadow
                    area = _disc(begin + step, radius) - _disc(begin, radius)
                    out[i, row, column] += densities[n] * 2 * np.sqrt(se) * area / (dd * step * step)


@njit(cache=True)
def _disc(u: float, radius: float) -> float:
    """Integral of sqrt(radius^2 - t^2) from the left edge to u."""
    u = min(max(u, -radius), radius)
    chord = np.sqrt(max(radius * radius - u * u, 0.0))
    area: float = 0.5 * (u * chord + radius * radius * (np.arcsin(u / radius) + np.pi / 2))
    return area


@njit(parallel=True, cache=True)
def _rasterise(
    centres: Float64, forms: Float64, densities: Float64, step: float, oversample: int, out: Float32
) -> None:
    """Add each ellipsoid's share of every pixel: exact along x, the mean of oversample lines along y."""
    rows, size = out.shape[0], out.shape[1]
    for job in prange(rows * size):
        row, j = job // size, job % size
        for n in range(densities.size):
            a, share = forms[n], densities[n] / oversample
            z = (row - (rows - 1) / 2) * step - centres[n, 2]
            for line in range(oversample):
                y = (j - size / 2 + (line + 0.5) / oversample) * step - centres[n, 1]
                slope = a[0, 1] * y + a[0, 2] * z
                root = slope * slope - a[0, 0] * (a[1, 1] * y * y + a[2, 2] * z * z + 2 * a[1, 2] * y * z - 1)
                if root <= 0:
                    continue
                middle, half = centres[n, 0] - slope / a[0, 0], np.sqrt(root) / a[0, 0]
                begin = min(max((middle - half) / step + size / 2, 0.0), float(size))
                end = min(max((middle + half) / step + size / 2, 0.0), float(size))
                for i in range(int(begin), min(int(end) + 1, size)):
                    out[row, j, i] += share * (min(end, i + 1.0) - max(begin, float(i)))


def _turns_about_z(phi_deg: Float64) -> Float64:
    """(n, 3, 3) rotations by phi about z."""
    phi, turn = np.deg2rad(phi_deg), np.zeros((len(phi_deg), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(phi)
    turn[:, 1, 0], turn[:, 0, 1] = np.sin(phi), -np.sin(phi)
    turn[:, 2, 2] = 1
    return turn


def shepp_logan() -> Phantom:
    """Shepp & Logan (1974) head with the contrast of Toft (1996), endless along z; densities 0 to 1."""
    table = np.array(
        # x, y, semi-axes, phi, density; y grows downwards, as the array index does
        [
            (0.0, 0.0, 0.69, 0.92, 0.0, 1.0),
            (0.0, 0.0184, 0.6624, 0.874, 0.0, -0.8),
            (0.22, 0.0, 0.11, 0.31, 18.0, -0.2),
            (-0.22, 0.0, 0.16, 0.41, -18.0, -0.2),
            (0.0, -0.35, 0.21, 0.25, 0.0, 0.1),
            (0.0, -0.1, 0.046, 0.046, 0.0, 0.1),
            (0.0, 0.1, 0.046, 0.046, 0.0, 0.1),
            (-0.08, 0.605, 0.046, 0.023, 0.0, 0.1),
            (0.0, 0.606, 0.023, 0.023, 0.0, 0.1),
            (0.06, 0.605, 0.023, 0.046, 0.0, 0.1),
        ]
    )
    centres = np.column_stack([table[:, :2], np.zeros(len(table))])
    semi_axes = np.column_stack([table[:, 2:4], np.full(len(table), np.inf)])
    return Phantom.of(centres, semi_axes, table[:, 5], _turns_about_z(table[:, 4]))


def shepp_logan_3d() -> Phantom:
    """The head of `shepp_logan` as ellipsoids, semi-axes along z of Kak & Slaney (1988), table 3.1."""
    table = np.array(
        [
            (0.0, 0.0, 0.0, 0.69, 0.92, 0.9, 0.0, 1.0),
            (0.0, 0.0, 0.0, 0.6624, 0.874, 0.88, 0.0, -0.8),
            (-0.22, 0.0, -0.25, 0.41, 0.16, 0.21, 72.0, -0.2),
            (0.22, 0.0, -0.25, 0.31, 0.11, 0.22, -72.0, -0.2),
            (0.0, -0.35, -0.25, 0.21, 0.25, 0.5, 0.0, 0.2),
            (0.0, -0.1, -0.25, 0.046, 0.046, 0.046, 0.0, 0.2),
            (-0.08, 0.65, -0.25, 0.046, 0.023, 0.02, 0.0, 0.1),
            (0.06, 0.65, -0.25, 0.046, 0.023, 0.02, 90.0, 0.1),
            (0.06, 0.105, 0.625, 0.056, 0.04, 0.1, 90.0, 0.2),
            (0.0, -0.1, 0.625, 0.056, 0.056, 0.1, 0.0, -0.2),
        ]
    )
    return Phantom.of(table[:, :3], table[:, 3:6], table[:, 7], _turns_about_z(table[:, 6]))


def materials_sample(rng: np.random.Generator, *, grains: int = 220, pores: int = 260) -> Phantom:
    """A rock-like core in a glass capillary: grains, bright inclusions, pores and a crack; densities 0 to 3.

    Parameters
    ----------
    rng: decides where everything is.
    grains, pores: how many to try to place; none overlaps another or the crack, so fewer may fit.
    """
    straight = np.eye(3)
    parts: list[tuple[float, ...]] = [(0, 0, 0, 0.95, 0.95, np.inf, 0.35), (0, 0, 0, 0.90, 0.90, np.inf, -0.35)]
    parts += [(0.02, -0.015, 0, 0.80, 0.74, np.inf, 1.0)]
    turns = [straight, straight, straight]
    crack = _crack(rng)
    for middle, semi_axes, turn in crack:
        parts.append((*middle, *semi_axes, -1.0))
        turns.append(turn)
    placed: list[tuple[Float64, float]] = []
    for number in range(grains + pores):
        is_pore = number >= grains
        radius = rng.uniform(0.012, 0.045) if is_pore else rng.uniform(0.05, 0.14)
        place = _free_place(rng, radius, placed, crack)
        if place is None:
            continue
        placed.append((place, radius))
        inclusion = not is_pore and number % 12 == 0
        semi_axes = radius * (0.35 if inclusion else 1.0) * rng.uniform(0.6, 1.0, 3)
        parts.append((*place, *semi_axes, -1.0 if is_pore else 2.0 if inclusion else rng.uniform(0.2, 0.6)))
        turns.append(np.linalg.qr(rng.normal(size=(3, 3)))[0])
    table = np.array(parts)
    return Phantom.of(table[:, :3], table[:, 3:6], table[:, 6], np.array(turns))


def _crack(rng: np.random.Generator) -> list[tuple[Float64, Float64, Float64]]:
    """(middle, semi-axes, rotation) of flat ellipsoids that run zigzag through the core, edge to edge."""
    pieces, length, x = [], 0.13, -0.45
    y = rng.uniform(-0.15, 0.15)
    for number in range(5):
        phi = (-1) ** number * rng.uniform(15, 35)
        along = np.array([np.cos(np.deg2rad(phi)), np.sin(np.deg2rad(phi))])
        middle = np.array([x, y]) + along * length
        turn = _turns_about_z(np.array([phi]))[0]
        pieces.append((np.array([*middle, 0.0]), np.array([length, 0.014, 0.7]), turn))
        x, y = middle + along * length
    return pieces


def _free_place(
    rng: np.random.Generator,
    radius: float,
    placed: list[tuple[Float64, float]],
    crack: list[tuple[Float64, Float64, Float64]],
) -> Float64 | None:
    """A middle inside the core where a sphere of this radius touches nothing; None after 60 tries."""
    others = np.array([middle for middle, _ in placed]).reshape(-1, 3)
    radii = np.array([other for _, other in placed])
    for _ in range(60):
        rho, phi = (0.72 - radius) * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        middle = np.array([rho * np.cos(phi), rho * np.sin(phi), rng.uniform(-1, 1)])
        touches = bool(np.any(np.linalg.norm(others - middle, axis=1) < radii + radius))
        touches |= any(
            np.sum((turn.T @ (middle - at) / (semi_axes + radius)) ** 2) < 1 for at, semi_axes, turn in crack
        )
        if not touches:
            return middle
    return None
