"""What makes a tomography scan's arrays fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Array

Float64 = NDArray[np.float64]
_MOST_GLITCHES = 0.05
"""Share of backward steps above which they are the order of the scan (golden angle: 38 %), not a fault."""


def darks_or_zero(darks: Array | None, projections: Array, *, name: str, notes: list[str]) -> Array:
    """Return the darks; one of zeros, with a note, where there is none: detectors that count photons need none."""
    if darks is not None and darks.shape[:1] != (0,):
        return darks
    notes.append(f"no darks ({name}): taken as 0")
    return np.broadcast_to(np.uint8(0), (1, *projections.shape[1:]))


def check_scan(path: Path, arrays: Mapping[str, Array], names: Mapping[str, str]) -> None:
    """Raise BadFile for the first array that does not fit the others; reads none of them.

    Parameters
    ----------
    path: for the message.
    arrays: `projections`, `flats`, `darks`, `theta_deg`, as in `model.formats.Source`.
    names: how the file calls each of them.
    """
    projections = arrays["projections"]
    if len(projections.shape) != 3 or 0 in projections.shape:
        raise BadFile(
            f"{path}: {names['projections']} has shape {projections.shape}, not (angle, row, column)",
            remedy="check that the scan wrote its frames, in these three dimensions",
        )
    for role in ("flats", "darks"):
        _check_frames(path, arrays[role].shape, projections.shape, role=role, name=names[role])
    theta = arrays["theta_deg"]
    if tuple(theta.shape) != projections.shape[:1]:
        raise BadFile(
            f"{path}: {names['theta_deg']} has {np.prod(theta.shape)} angles for"
            f" {projections.shape[0]} projections",
            remedy=f"write one angle per projection to {names['theta_deg']}",
            role="theta",
        )


def _check_frames(path: Path, shape: tuple[int, ...], like: tuple[int, ...], *, role: str, name: str) -> None:
    if 0 in shape[:1]:
        beam = "with the beam on and the sample out" if role == "flats" else "with the shutter closed"
        raise BadFile(f"{path}: holds no {role} ({name})", remedy=f"add frames taken {beam} as {name}", role=role)
    if len(shape) != 3 or shape[1:] != like[1:]:
        raise BadFile(
            f"{path}: {role} ({name}) have shape {shape} and do not fit projections of shape {like}",
            remedy=f"use {role} taken with the same detector region",
            role=role,
        )


def check_angles(path: Path, theta_deg: Float64, *, name: str) -> None:
    """Raise BadFile for angles that cannot be those of a scan; see `theta_problem`."""
    problem, remedy = theta_problem(theta_deg)
    if problem:
        raise BadFile(f"{path}: {name} {problem}", remedy=remedy, role="theta")


def theta_problem(theta_deg: Float64) -> tuple[str, str]:
    """Return (what is wrong, what to do) for the angles of a scan, or two empty strings.

    Angles in increasing order are fine, and so are golden-angle, interlaced and wrapped (359 -> 1) orders: many
    backward steps, or steps back by half of the range and more. A few short backward steps among forward ones are
    a stage or encoder fault; only backward steps are most often a wrong sign, which would mirror the slices.

    >>> theta_problem(np.array([0.0, 1.0, 0.5, 2.0, 3.0, 4.0] + list(range(5, 40))))[0]
    'has a negative step at index 2 (1 to 0.5 deg)'
    >>> theta_problem(np.array([0.0, 60.0, 120.0, 30.0, 90.0, 150.0]))
    ('', '')
    """
    finite = np.isfinite(theta_deg)
    if not finite.all():
        bad = int(np.argmin(finite))
        return f"is {theta_deg[bad]} at index {bad}", "write the measured angle there"
    steps = np.diff(theta_deg)
    if steps.size == 0:
        return "", ""
    if not steps.any():
        return f"is {theta_deg[0]:g} deg for every projection", "write the measured angles"
    backward = np.flatnonzero(steps < 0)
    if backward.size == np.count_nonzero(steps):
        return (
            f"has a negative step: it runs from {theta_deg[0]:g} to {theta_deg[-1]:g} deg",
            "write increasing angles; if the stage did turn backwards, reverse the order of frames and angles",
        )
    short = backward[-steps[backward] < np.ptp(theta_deg) / 2]
    if 0 < short.size <= max(1, _MOST_GLITCHES * steps.size):
        at = int(short[0])
        return (
            f"has a negative step at index {at + 1} ({theta_deg[at]:g} to {theta_deg[at + 1]:g} deg)",
            "correct that angle, or leave the frame out",
        )
    return "", ""
