"""Scans that stop themselves: dose saved and quality kept, over many samples and three levels of noise.

Each scan of 600 golden angles is reconstructed while it comes, and judged every 16 projections without the truth;
then what it had when it stopped is compared with the truth, and so is the whole scan. The head is that of
Shepp and Logan with 80 small ellipses; the concrete is another kind of sample, on which nothing was tuned.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench._harness import BUILD, Figure
from lightkeep.analysis.simulate import Phantom, golden_angles, shepp_logan
from lightkeep.analysis.tomography import reconstruct
from lightkeep.analysis.tomography.quality import ssim
from lightkeep.analysis.tomography.stop_rule import Check, StopRule, Verdict, decide
from lightkeep.analysis.tomography.streaming import StreamingReconstruction
from lightkeep.testing.samples import concrete

PART = "mona"
SIZE, PLANNED, SEEDS, THREADS = 256, 600, 20, 2
PHOTONS = (1e3, 1e4, 1e5)
ABSORPTION = 2.0
MIDDLE = (SIZE - 1) / 2

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Ended:
    """How one scan ended."""

    verdict: Verdict
    kept: float
    """SSIM when it stopped over that of the whole scan, both against the truth."""

    @property
    def saved(self) -> float:
        """Share of the dose that was not needed."""
        return 1 - self.verdict.used / PLANNED


def head(rng: np.random.Generator) -> Phantom:
    """Shepp and Logan's head with 80 small ellipses in it."""
    base = shepp_logan()
    rho, phi = 0.6 * np.sqrt(rng.uniform(size=80)), rng.uniform(0, 2 * np.pi, 80)
    turn, turns = rng.uniform(0, np.pi, 80), np.tile(np.eye(3), (80, 1, 1))
    turns[:, 0, 0] = turns[:, 1, 1] = np.cos(turn)
    turns[:, 1, 0] = np.sin(turn)
    turns[:, 0, 1] = -turns[:, 1, 0]
    small = Phantom.of(
        np.column_stack([rho * np.cos(phi), rho * np.sin(phi), np.zeros(80)]),
        np.column_stack([rng.uniform(0.01, 0.05, (80, 2)), np.full(80, np.inf)]),
        0.3 * rng.uniform(0.3, 1, 80) * rng.choice([-1, 1], 80),
        turns,
    )
    parts = [np.concatenate([getattr(each, name) for each in (base, small)])
             for name in ("centres", "forms", "densities")]  # fmt: skip
    return Phantom(*parts)


SAMPLES: dict[str, Callable[[np.random.Generator], Phantom]] = {"head": head, "concrete": concrete}


def measured(sample: Phantom, photons: float, rng: np.random.Generator, theta: NDArray[np.float64]) -> Array:
    """(angles, columns) line integrals with the noise of counted photons."""
    exact = sample.projections(theta, columns=SIZE)[:, 0].astype(float)
    counts = np.maximum(rng.poisson(photons * np.exp(-exact)), 0.5)
    return np.asarray(-np.log(counts / photons), np.float32)


def follow(rows: Array, theta: NDArray[np.float64], rule: StopRule) -> tuple[Verdict, Array]:
    """Reconstruct a scan while it comes; return how it ended, and the slice then."""
    stream = StreamingReconstruction((1, SIZE), center=MIDDLE, filter_="hann", threads=1)
    checks: list[Check] = []
    while True:
        begin = stream.projections
        new = slice(begin, begin + rule.step)
        stream.add(rows[new, None], theta[new])
        found = stream.quality()
        checks.append(Check(found.projections, found.rings.mean(rule.resolution_px), found.change))
        verdict = decide(rule, checks, theta_deg=stream.theta_deg, planned=len(rows))
        if verdict.stop or stream.projections == len(rows):
            return verdict, stream.step()[0]


def ended(seed: int, kind: str, photons: float, rule: StopRule) -> Ended:
    """Measure one sample until the rule stops it."""
    rng, theta = np.random.default_rng(seed), golden_angles(PLANNED)
    sample = SAMPLES[kind](rng)
    sample = sample.scaled(ABSORPTION / float(sample.projections(theta[::10], columns=SIZE).max()))
    rows = measured(sample, photons, rng, theta)
    verdict, image = follow(rows, theta, rule)
    whole = reconstruct(rows[None], theta, MIDDLE, window="hann", threads=THREADS)[0]
    truth = sample.slices(SIZE)[0]
    return Ended(verdict, ssim(image, truth) / ssim(whole, truth))


def run() -> list[Figure]:
    """Stop scans; write the table to build/bench/mona.md."""
    rule = StopRule()
    figures, lines = [], [
        "| Sample | Photons per pixel | Stopped early | Projections used (median, range) | Dose saved (median) "
        "| SSIM kept (median, least) |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for kind in SAMPLES:
        for photons in PHOTONS:
            all_ = [ended(seed, kind, photons, rule) for seed in range(SEEDS)]
            used = [each.verdict.used for each in all_]
            saved, kept = [each.saved for each in all_], [each.kept for each in all_]
            early = sum(each.verdict.stop for each in all_)
            lines.append(
                f"| {kind} | {photons:,.0f} | {early} of {SEEDS} | {np.median(used):.0f}, {min(used)}-{max(used)} "
                f"| {np.median(saved):.0%} | {np.median(kept):.1%}, {min(kept):.1%} |"
            )
            figures += _figures(kind, photons, saved, kept)
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "mona.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))
    return [_step(), *figures]


def _step() -> Figure:
    """Time to take up 16 projections into 64 slices of 512 x 512, and make fresh images of all of them."""
    rows, size, count = 64, 512, 480
    theta = golden_angles(count)
    data = np.random.default_rng(0).normal(size=(count, rows, size)).astype(np.float32)
    stream = StreamingReconstruction((rows, size), center=(size - 1) / 2, threads=THREADS)
    stream.add(data[:240], theta[:240])
    stream.step()
    times = []
    for begin in range(240, count, 16):
        started = time.perf_counter()
        stream.add(data[begin : begin + 16], theta[begin : begin + 16])
        stream.step()
        times.append(time.perf_counter() - started)
    note = f"64 slices of 512 x 512, after 240 golden angles; median of {len(times)}"
    return Figure("16 new projections and fresh images", 1e3 * float(np.median(times)), None, "ours <= 100",
                  len(times), THREADS, "ms", note=note)  # fmt: skip


def _figures(kind: str, photons: float, saved: list[float], kept: list[float]) -> list[Figure]:
    name, note = f"{kind}, {photons:,.0f} photons", f"{SEEDS} samples, {PLANNED} golden angles, {SIZE} x {SIZE}"
    is_middle, is_dark = photons == 1e4 and kind == "head", photons == 1e3
    return [
        Figure(f"{name}: dose saved, median", float(np.median(saved)), None, "ours >= 0.5" if is_middle else "",
               SEEDS, THREADS, "", is_rate=True, note=note),
        Figure(f"{name}: dose saved, most", max(saved), None, "ours <= 0.4" if is_dark else "", SEEDS, THREADS, "",
               note=note),
        Figure(f"{name}: SSIM kept, median", float(np.median(kept)), None, "ours >= 0.97" if is_middle else "",
               SEEDS, THREADS, "", is_rate=True, note=note),
        Figure(f"{name}: SSIM kept, least", min(kept), None, "ours >= 0.95", SEEDS, THREADS, "", is_rate=True,
               note=note),
    ]  # fmt: skip
