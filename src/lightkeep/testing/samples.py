"""Samples for the simulated beamlines, nice to look at and exactly known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.simulate import Phantom

Float64 = NDArray[np.float64]
_PASTE = 0.55
"""Density of the cement; everything inside it is drawn as a difference to that."""
_TUBE_RADIUS, _CORE_RADIUS = 0.96, 0.83
_TRIES, _ROUNDS, _AHEAD = 16, 20, 5
"""Places tried in a round for a grain, rounds at most, and rounds that are looked at together."""


@dataclass(frozen=True)
class _Ellipsoids:
    """What a phantom is made of: middles (n, 3), semi-axes (n, 3), rotations (n, 3, 3), densities (n,)."""

    centres: Float64
    semi_axes: Float64
    rotations: Float64
    densities: Float64


def concrete(rng: np.random.Generator, *, height: float = 0.3, radius: float = _TUBE_RADIUS) -> Phantom:
    """A drilled core of concrete in a glass tube: aggregate of three minerals, iron ore, air voids and a crack.

    Parameters
    ----------
    rng: decides where everything is.
    height: grains fill z from -height to height, in half-widths of the field of view; above and below it is paste.
    radius: of the tube, in half-widths; everything else is in proportion.
    """
    scale = radius / _TUBE_RADIUS
    tube = _Ellipsoids(
        np.array([[0, 0, 0], [0, 0, 0], [0.015, -0.01, 0]]),
        np.array(
            [
                [_TUBE_RADIUS, _TUBE_RADIUS, np.inf],
                [0.91, 0.91, np.inf],
                [_CORE_RADIUS, _CORE_RADIUS - 0.02, np.inf],
            ]
        ),
        np.broadcast_to(np.eye(3), (3, 3, 3)),
        np.array([0.4, -0.4, _PASTE]),
    )
    crack = _crack(rng)
    parts = [tube, crack, _grains(rng, crack, height / scale)]
    return Phantom.of(
        scale * np.concatenate([part.centres for part in parts]),
        scale * np.concatenate([part.semi_axes for part in parts]),
        np.concatenate([part.densities for part in parts]),
        np.concatenate([part.rotations for part in parts]),
    )


def _crack(rng: np.random.Generator) -> _Ellipsoids:
    """Flat ellipsoids, one after the other, that wander through the core."""
    at, phi = np.array([-0.62, rng.uniform(-0.1, 0.2)]), rng.uniform(-10, 10)
    middles, sizes, turns = [], [], []
    while at[0] < 0.5:
        phi = float(np.clip(0.4 * phi + rng.normal(0, 28), -50, 50))
        half = rng.uniform(0.05, 0.11)
        cos, sin = np.cos(np.deg2rad(phi)), np.sin(np.deg2rad(phi))
        along = half * np.array([cos, sin])
        middles.append([*(at + along), 0.0])
        sizes.append([half, rng.uniform(0.008, 0.015), 0.9])
        turns.append([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        at = at + 2 * along  # tip to tip: where two overlapped, the density would be below zero
    return _Ellipsoids(np.array(middles), np.array(sizes), np.array(turns), np.full(len(middles), -_PASTE))


def _grains(rng: np.random.Generator, crack: _Ellipsoids, height: float) -> _Ellipsoids:
    """Large ones first, each where it touches neither another nor the crack; some find no place."""
    radii = np.concatenate(
        [rng.uniform(0.075, 0.15, 70), rng.uniform(0.035, 0.075, 250), rng.uniform(0.012, 0.035, 380)]
    )
    placed, kept, count = np.empty((radii.size, 3)), np.empty(radii.size), 0
    for radius in np.sort(radii)[::-1]:
        for _ in range(0, _ROUNDS, _AHEAD):
            state = rng.bit_generator.state
            places = _inside(rng.random((_AHEAD, 3, _TRIES)), radius, height)
            apart = _squares(places, placed[:count]) > (0.97 * (kept[:count] + radius)) ** 2
            free = np.flatnonzero(apart.all(axis=1))
            if free.size:  # seldom: only then the crack is looked at, which takes longer
                free = free[~_touches(places[free], crack, 0.9 * radius)]
            if free.size:
                placed[count], kept[count], count = places[free[0]], radius, count + 1
                rng.bit_generator.state = state
                rng.random((1 + free[0] // _TRIES, 3, _TRIES))  # as if no round had been drawn ahead
                break
    placed, kept = placed[:count], kept[:count]
    return _Ellipsoids(
        placed,
        kept[:, None] * rng.uniform(0.72, 1, (kept.size, 3)),
        np.linalg.qr(rng.normal(size=(kept.size, 3, 3)))[0],
        _minerals(rng, kept),
    )


def _squares(ones: Float64, others: Float64) -> Float64:
    """(ones, others) Squares of the distances between places (n, 3)."""
    squares: Float64 = (ones**2).sum(axis=1)[:, None] - 2 * (ones @ others.T) + (others**2).sum(axis=1)
    return squares


def _inside(uniform: Float64, radius: float, height: float) -> Float64:
    """(rounds * tries, 3) Places from numbers in 0..1, (rounds, 3, tries)."""
    rho = (_CORE_RADIUS - 0.03 - radius) * np.sqrt(uniform[:, 0].ravel())
    phi = 2 * np.pi * uniform[:, 1].ravel()
    z = 2 * height * uniform[:, 2].ravel() - height
    return np.column_stack([0.015 + rho * np.cos(phi), -0.01 + rho * np.sin(phi), z])


def _touches(places: Float64, crack: _Ellipsoids, radius: float) -> NDArray[np.bool_]:
    """(places,) True where a sphere would reach into the crack."""
    offsets = places[:, None] - crack.centres
    local = np.einsum("pci,cij->pcj", offsets, crack.rotations) / (crack.semi_axes + radius)
    touching: NDArray[np.bool_] = ((local**2).sum(axis=2) < 1).any(axis=1)
    return touching


def _minerals(rng: np.random.Generator, radii: Float64) -> Float64:
    """Densities against the paste: quartz, feldspar, limestone; among the small ones also air and iron ore."""
    kind = rng.uniform(size=radii.size)
    rock = np.select([kind < 0.72, kind < 0.9], [0.22, 0.36], 0.58) + rng.normal(0, 0.02, radii.size)
    small = radii < 0.055
    return np.select([small & (kind < 0.33), small & (kind < 0.42)], [-_PASTE, 1.25], rock)
