"""From the raw file to OME-Zarr: ours, and the same chain written with algotom and zarr.

Both read Data Exchange, divide by the flats, take the logarithm, find the rotation centre, reconstruct by filtered
back-projection and write every size down to 128 voxels. algotom's chain is as its documentation writes it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bench._harness import Figure, interleaved
from lightkeep import formats
from lightkeep.analysis import simulate
from lightkeep.formats import ome_zarr
from lightkeep.formats.data_exchange import ScanHeader, write_scan
from lightkeep.model.formats import Output, Result
from lightkeep.techniques import tomography

PART = "tomography"
SIZE, ANGLES, SLICES, THREADS, REPETITIONS = 512, 720, 16, 2, 5
CENTER = 254.3

Image = NDArray[Any]


def run() -> list[Figure]:
    """Time of a slice, and how far both agree."""
    import numba

    numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))
    with tempfile.TemporaryDirectory(dir=Path(__file__).parents[1] / "build") as folder:
        return _measured(Path(folder))


def _measured(folder: Path) -> list[Figure]:
    scan = _scan(folder / "scan.h5", SLICES)
    ours, peer = interleaved(
        lambda: _ours(scan, folder / "ours"), lambda: _algotom(scan, folder / "peer"), repetitions=REPETITIONS
    )
    each, others = 1e3 * ours.median / SLICES, 1e3 * peer.median / SLICES
    note = f"raw Data Exchange to OME-Zarr, {SIZE} x {SIZE}, {ANGLES} angles; peer: algotom, zarr"
    at = np.arange(SIZE) - (SIZE - 1) / 2
    inside = np.hypot(at[:, None], at) < 0.9 * SIZE / 2
    alike = float(np.corrcoef(ours.result[inside], peer.result[inside])[0, 1])
    return [
        Figure("raw to OME-Zarr, slice", each, others, "ratio >= 3", REPETITIONS, THREADS, "ms", note=note),
        Figure("raw to OME-Zarr, correlation with the peer's slice", alike, None, "ours >= 0.98", REPETITIONS,
               THREADS, "", note=note),
    ]  # fmt: skip


def _scan(path: Path, rows: int) -> Path:
    made = simulate.tomography_scan(
        simulate.shepp_logan(),
        np.arange(ANGLES) * 180 / ANGLES,
        rows=1,
        columns=SIZE,
        rng=np.random.default_rng(5),
        center=CENTER,
        i0=4e4,
    )
    stacks = {name: np.repeat(getattr(made, name), rows, axis=1) for name in ("projections", "flats", "darks")}
    return write_scan(path, ScanHeader(made.theta_deg, rows, SIZE, title="head"), **stacks)


def _ours(path: Path, folder: Path) -> Image:
    shutil.rmtree(folder, ignore_errors=True)
    with formats.get("data-exchange").open(path) as source:
        found = tomography.preflight(source, tomography.Params())
        params = tomography.Params(**found.params)
        pieces = [
            tomography.run(source, params, lambda _fraction, _text: None, begin, min(begin + found.piece, SLICES))
            for begin in range(0, SLICES, found.piece)
        ]
    slices = np.concatenate([piece["slices"] for piece in pieces])
    output = Output(slices, tomography.OUTPUTS["slices"].axes, "1/pixel")
    ome_zarr.FORMAT.write(folder, Result("tomography", "head", {"slices": output}, "slices", {}, "lightkeep"))
    return np.asarray(slices[0])


def _algotom(path: Path, folder: Path) -> Image:
    import zarr
    from algotom.prep.calculation import find_center_vo
    from algotom.prep.correction import flat_field_correction
    from algotom.rec.reconstruction import fbp_reconstruction

    shutil.rmtree(folder, ignore_errors=True)
    with h5py.File(path) as file:
        data, theta = file["exchange/data"][:], np.deg2rad(file["exchange/theta"][:])
        flat, dark = file["exchange/data_white"][:].mean(axis=0), file["exchange/data_dark"][:].mean(axis=0)
    through = flat_field_correction(data, flat, dark)
    sinograms = np.moveaxis(through, 1, 0)
    center = find_center_vo(sinograms[len(sinograms) // 2])
    slices = np.stack(
        [
            fbp_reconstruction(each, center, -theta, ratio=1, filter_name=None, apply_log=True, gpu=False)
            for each in sinograms
        ]
    ).astype(np.float32)
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    level, number = slices, 0
    while True:
        chunks = (min(64, level.shape[0]), min(64, level.shape[1]), min(64, level.shape[2]))
        group.create_array(str(number), data=level, chunks=chunks)
        if max(level.shape) <= 128:
            break
        z, y, x = (length // 2 for length in level.shape)
        level = level[: 2 * z, : 2 * y, : 2 * x].reshape(max(z, 1), -1, y, 2, x, 2).mean(axis=(1, 3, 5))
        number += 1
    return np.asarray(slices[0])
