"""Multi-tau correlation from memory to g2, against boost-corr, scikit-beam and a kernel in C.

The peers are measured where this interpreter can import them, and named as absent where not: boost-corr 0.1.7
(`pip install --no-deps --ignore-requires-python boost-corr`, it needs torch) and scikit-beam.
`python -c "from bench import xpcs; xpcs.figure()"` draws docs/explanation/xpcs-scaling.svg.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench._harness import Figure, interleaved
from lightkeep.analysis import xpcs

PART = "xpcs"
SIZE, FRAMES, THREADS = 512, 1000, 2
PER_PIXEL, SPARSE = 0.05, 0.002
SHARE = 128
"""scikit-beam takes 20 ms and more per frame: it is given this many frames, and its time is scaled."""

Frames = NDArray[np.uint8]


def run() -> list[Figure]:
    """Ratios to the peers and to C, for dense frames and events; time against frames; first calls; latency."""
    print(f"xpcs: {', '.join(_absent()) or 'no peer'} absent from this interpreter", file=sys.stderr)
    qmap, frames = a_map(), counts(FRAMES)
    figures = _dense(qmap, frames)
    figures += _sparse(qmap)
    figures += _linear(qmap)
    figures += _latency()
    return [*figures, *_first_calls()]


def a_map(height: int = SIZE, width: int = SIZE) -> xpcs.QMap:
    """16 dynamic rings of 4 static ones each, on three quarters of the detector."""
    y, x = np.mgrid[:height, :width]
    r = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) / (min(height, width) / 2)
    static = np.where((r > 0.12) & (r < 0.98), 1 + (r - 0.12) / 0.86 * 64, 0).astype(np.int32)
    return xpcs.QMap(dynamic=(static + 3) // 4, static=static, mask=np.ones((height, width), bool))


def counts(frames: int, mean: float = PER_PIXEL, shape: tuple[int, int] = (SIZE, SIZE)) -> Frames:
    """Poisson counts. No kernel's time depends on whether they are correlated."""
    made = np.empty((frames, *shape), np.uint8)
    rng = np.random.default_rng(0)
    for begin in range(0, frames, 64):
        made[begin : begin + 64] = rng.poisson(mean, made[begin : begin + 64].shape)
    return made


def _absent() -> list[str]:
    return [name for name in ("boost_corr", "skbeam") if importlib.util.find_spec(name) is None]


def _boost(frames: Frames | Callable[[], Frames], count: int, shape: tuple[int, int]) -> Callable[[], Any]:
    """boost-corr as its command line runs it (`max_count` 7: bfloat16), from memory, without its normalisation."""
    import torch
    from boost_corr.multitau import MultitauCorrelator

    torch.set_num_threads(THREADS)

    def work() -> Any:
        correlator = MultitauCorrelator(shape, count, device="cpu", auto_queue=True, max_memory=6)
        dense = frames() if callable(frames) else frames
        for begin in range(0, count, 64):
            correlator.process(torch.from_numpy(dense[begin : begin + 64].reshape(-1, shape[0] * shape[1])))
        correlator.post_process()
        return correlator.g2

    return work


def _scikit_beam(frames: Frames, qmap: xpcs.QMap) -> Callable[[], Any]:
    from skbeam.core.correlation import multi_tau_auto_corr

    levels = max(level for level, _ in xpcs.levels(len(frames), scheme="sutton")) + 1
    return lambda: multi_tau_auto_corr(levels, 8, qmap.dynamic, frames)


def _dense(qmap: xpcs.QMap, frames: Frames) -> list[Figure]:
    note = f"{SIZE} x {SIZE}, {FRAMES} frames of uint8, {PER_PIXEL} photons/pixel"
    functions: dict[str, Callable[[], Any]] = {
        "ours": lambda: xpcs.multitau(frames, qmap, threads=THREADS),
        "plain": lambda: xpcs.multitau(frames, qmap, threads=THREADS, kernel="plain"),
    }
    with tempfile.TemporaryDirectory() as folder:
        if library := compiled_c(Path(folder)):
            functions["C"] = c_kernel(library, frames, qmap)
        absent = _absent()
        if "boost_corr" not in absent:
            functions["boost-corr"] = _boost(frames, FRAMES, (SIZE, SIZE))
        if "skbeam" not in absent:
            functions["scikit-beam"] = _scikit_beam(frames[:SHARE], qmap)
        timings = dict(zip(functions, interleaved(*functions.values()), strict=True))
    seconds = {name: timing.median for name, timing in timings.items()}
    shared: dict[str, Any] = {"repetitions": len(timings["ours"].seconds), "threads": THREADS}
    wide = bool(_features().get("avx512f"))
    figures = []
    if "boost-corr" in seconds:
        goal, boost = ("ratio >= 150" if wide else "ratio >= 80"), seconds["boost-corr"]
        figures.append(Figure("dense vs boost-corr", seconds["ours"], boost, goal, note=note, **shared))
        figures.append(
            Figure("plain numba vs boost-corr", seconds["plain"], boost, "ratio >= 60", note=note, **shared)
        )
    if "scikit-beam" in seconds:
        scaled = seconds["scikit-beam"] * FRAMES / SHARE
        figures.append(
            Figure("dense vs scikit-beam", seconds["ours"], scaled, "ratio >= 500",
                   note=f"{note}; peer: time of {SHARE} frames, scaled", **shared)
        )  # fmt: skip
    if "C" in seconds:
        figures.append(Figure("dense vs C kernel", seconds["ours"], seconds["C"], "ratio >= 0.8",
                              note=f"{note}; C makes no intensity, segments nor image", **shared))  # fmt: skip
    if len(figures) == 0:
        figures.append(Figure("dense", seconds["ours"], None, "", note=note, **shared))
    return figures


def _features() -> dict[str, bool]:
    import llvmlite.binding

    return dict(llvmlite.binding.get_host_cpu_features())


def compiled_c(folder: Path) -> ctypes.CDLL | None:
    """The kernel in xpcs_kernel.c for this machine, or None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / "xpcs_kernel.so"
    source = Path(__file__).with_name("xpcs_kernel.c")
    subprocess.run(
        [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", str(library), str(source)], check=True
    )
    return ctypes.CDLL(str(library))


def c_kernel(library: ctypes.CDLL, frames: Frames, qmap: xpcs.QMap) -> Callable[[], NDArray[np.float64]]:
    """A function that gives (n_static, 5, n_tau) sums over pairs and pixels; for detectors of whole tiles."""
    count, pixels = len(frames), qmap.static.size
    delays = xpcs.levels(count)
    table = np.array([(level, lag, (count >> level) - lag) for level, lag in delays], np.int64)
    labels = qmap.static.ravel() - np.int32(1)
    cuts = [*(pixels * share // (8 * THREADS) // 256 * 256 for share in range(8 * THREADS)), pixels]
    long, pointer = ctypes.c_long, ctypes.c_void_p

    def work() -> NDArray[np.float64]:
        ranges = iter(list(itertools.pairwise(cuts)))

        def one(_: int) -> NDArray[np.float64]:
            out, room = np.zeros((qmap.n_static, 5, len(delays))), np.zeros(40 * len(delays))
            for begin, end in ranges:
                library.multitau(
                    pointer(frames.ctypes.data), long(count), long(pixels), pointer(labels.ctypes.data),
                    pointer(table.ctypes.data), long(len(delays)), long(begin), long(end),
                    pointer(room.ctypes.data), pointer(out.ctypes.data),
                )  # fmt: skip
            return out

        with ThreadPoolExecutor(THREADS) as pool:
            return sum(pool.map(one, range(THREADS)), np.zeros(()))

    return work


def _sparse(qmap: xpcs.QMap) -> list[Figure]:
    """0.2 % of the pixels have an event in each frame; boost-corr makes frames of them, as it always does."""
    frames = counts(FRAMES, SPARSE)
    frame, pixel = np.nonzero(frames.reshape(FRAMES, -1))
    value = frames.reshape(FRAMES, -1)[frame, pixel].astype(np.uint16)
    block = xpcs.EventBlock(0, FRAMES, (SIZE, SIZE), frame.astype(np.uint32), pixel.astype(np.uint32), value)
    note = f"{SIZE} x {SIZE}, {FRAMES} frames, {len(frame)} events"
    functions = [lambda: xpcs.multitau([block], qmap, threads=THREADS)]
    if "boost_corr" not in _absent():

        def dense() -> Frames:
            made = np.zeros((FRAMES, SIZE * SIZE), np.uint8)
            made[frame, pixel] = value
            return made

        functions.append(_boost(dense, FRAMES, (SIZE, SIZE)))
    timings = interleaved(*functions)
    peer = timings[1].median if len(timings) > 1 else None
    goal = "ratio >= 150" if peer else ""
    return [
        Figure("events vs boost-corr", timings[0].median, peer, goal, len(timings[0].seconds), THREADS, note=note)
    ]


def _linear(qmap: xpcs.QMap) -> list[Figure]:
    frames = counts(2 * FRAMES)
    one, two = interleaved(
        lambda: xpcs.multitau(frames[:FRAMES], qmap, threads=THREADS),
        lambda: xpcs.multitau(frames, qmap, threads=THREADS),
    )
    ratio = two.median / one.median
    note = f"time of {2 * FRAMES} frames over that of {FRAMES}"
    return [Figure("t(2N) / t(N)", ratio, None, "ours <= 2.2", len(one.seconds), THREADS, unit="", note=note)]


def _latency() -> list[Figure]:
    """From the last frame of 512 x 1024 pixels to the result; of 1100 frames 76 wait in the unfinished chunk."""
    shape, count = (512, 1024), 1100
    qmap, frames = a_map(*shape), counts(count, shape=shape)
    live = xpcs.MultiTau(qmap, threads=THREADS)
    live.push(xpcs.FrameBlock(0, frames))
    (timing,) = interleaved(live.finish)
    message = len(live.sums().to_bytes()) / 1e6
    note = "512 x 1024 pixels, 1100 frames"
    repetitions = len(timing.seconds)
    return [
        Figure("last frame to result", timing.median, None, "ours <= 1", repetitions, THREADS, note=note),
        Figure("message of a shard", message, None, "ours <= 1", 1, THREADS, unit="MB", note=note),
    ]


def _first_calls() -> list[Figure]:
    """Seconds of the first call in a process, machine code not yet and already on disk; imports not counted."""
    script = (
        "import time, numpy as np\nfrom bench.xpcs import a_map\nfrom lightkeep.analysis import xpcs\n"
        "q, f = a_map(256, 256), np.ones((600, 256, 256), np.uint8)\nbegin = time.perf_counter()\n"
        "xpcs.multitau(f, q, threads=1)\nprint(time.perf_counter() - begin)"
    )

    def seconds(folder: str) -> float:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
        )
        return float(done.stdout)

    with tempfile.TemporaryDirectory() as folder:
        cold = seconds(folder)
        cached = sorted(seconds(folder) for _ in range(5))[2]
    return [
        Figure("first call, cold", cold, None, "ours <= 6", 1, 1),
        Figure("first call, cached", cached, None, "ours <= 0.5", 5, 1),
    ]


def figure(most: int = 4000, path: str = "docs/explanation/xpcs-scaling.svg") -> None:
    """Draw the time of a reduction against the number of frames, ours and the peers'."""
    qmap, frames = a_map(), counts(most)
    steps = [most // 16, most // 8, most // 4, most // 2, most]
    lines: dict[str, list[tuple[int, float]]] = {"Lightkeep": []}
    for count in steps:
        part = frames[:count]
        ours = partial(xpcs.multitau, part, qmap, threads=THREADS)
        lines["Lightkeep"].append((count, _best(ours, 5)))
        if "boost_corr" not in _absent() and count <= most // 2:
            seconds = _best(_boost(part, count, (SIZE, SIZE)), 1)
            lines.setdefault("boost-corr", []).append((count, seconds))
    if "skbeam" not in _absent():
        lines["scikit-beam"] = [(n, _best(_scikit_beam(frames[:n], qmap), 1)) for n in (32, 64, 128)]
    Path(path).write_text(_svg(lines))


def _best(function: Callable[[], Any], repetitions: int) -> float:
    found = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        function()
        found.append(time.perf_counter() - begin)
    return min(found)


def _svg(lines: dict[str, list[tuple[int, float]]]) -> str:
    """A log-log plot: frames 30 .. 10 000, seconds 0.001 .. 100."""
    width, height, left, bottom = 640, 400, 70, 50
    colours = ("#0f62fe", "#b28600", "#8a3ffc")

    def at(frames: float, seconds: float) -> tuple[float, float]:
        x = left + (np.log10(frames) - np.log10(30)) / np.log10(10_000 / 30) * (width - left - 20)
        y = height - bottom - (np.log10(seconds) + 3) / 5 * (height - bottom - 20)
        return float(x), float(y)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="13" fill="currentColor" role="img" aria-label="Seconds of a reduction against frames">'
    ]
    for seconds in (0.001, 0.01, 0.1, 1, 10, 100):
        _, y = at(100, seconds)
        parts.append(f'<path d="M{left} {y:.1f}H{width - 20}" stroke="#8888" stroke-width="0.5"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{seconds:g}</text>')
    for frames in (100, 1000, 10_000):
        x, _ = at(frames, 1)
        parts.append(f'<path d="M{x:.1f} 20V{height - bottom}" stroke="#8888" stroke-width="0.5"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">{frames}</text>')
    parts.append(f'<text x="{(left + width) / 2:.0f}" y="{height - 8}" text-anchor="middle">frames</text>')
    parts.append(f'<text x="14" y="{height / 2:.0f}" transform="rotate(-90 14 {height / 2:.0f})">seconds</text>')
    for colour, (name, points) in zip(colours, lines.items(), strict=False):
        places = [at(*point) for point in points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        x, y = places[-1]
        parts.append(f'<text x="{x:.1f}" y="{y - 10:.1f}" text-anchor="end" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])
