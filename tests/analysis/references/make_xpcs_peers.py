"""Writes xpcs_peers.npz: what boost-corr and scikit-beam make of one small run.

Run it in an environment of its own: numpy, h5py, scikit-beam 0.0.27, boost-corr 0.1.7 (--no-deps) and torch.
boost-corr is made to compute in float32 (`max_count`) and to hold the whole run in its queue.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

SHAPE, FRAMES = (24, 20), 333


def run() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(FRAMES, H, W) uint8 counts of a decaying speckle, the dynamic and the static labels."""
    rng = np.random.default_rng(20261122)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    static = (rows // 3) * 2 + columns // 10 + 1
    dynamic = (static - 1) // 4 + 1
    for labels in (static, dynamic):
        labels[:, 9] = labels[0] = 0
    keep = np.exp(-dynamic / 40.0)
    field = rng.normal(size=(2, *SHAPE))
    frames = np.empty((FRAMES, *SHAPE), np.uint8)
    for frame in frames:
        frame[:] = rng.poisson((field**2).sum(axis=0))
        field = keep * field + np.sqrt(1 - keep**2) * rng.normal(size=field.shape)
    return frames, dynamic, static


def boost_corr(frames: np.ndarray, dynamic: np.ndarray, static: np.ndarray) -> dict[str, np.ndarray]:
    import h5py
    import torch
    from boost_corr.multitau import MultitauCorrelator
    from boost_corr.xpcs_aps_8idi.xpcs_qpartitionmap import XpcsQPartitionMap

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "qmap.h5")
        with h5py.File(path, "w") as file:
            file["/qmap/dynamic_roi_map"], file["/qmap/static_roi_map"] = dynamic, static
            file["/qmap/mask"] = dynamic > 0
        qmap = XpcsQPartitionMap(path)
    queue = {"queue_size": 512, "auto_queue": False, "queue_level": 60}
    correlator = MultitauCorrelator(SHAPE, FRAMES, max_count=4096, **queue)
    correlator.process(torch.from_numpy(frames.reshape(FRAMES, -1).astype(np.float32)))
    correlator.post_process()
    scattering, multitau = correlator.get_results()
    curves = qmap.normalize_multitau(multitau)
    images = qmap.normalize_scattering(scattering)
    return {
        "tau": np.asarray(curves["delay_list"]),
        "g2": curves["g2"],
        "g2_err": curves["g2_err"],
        "saxs_2d": images["saxs_2d"][0],
        "saxs_1d": images["saxs_1d"][0],
        "intensity": images["intensity_vs_time"][1],
    }


def scikit_beam(frames: np.ndarray, dynamic: np.ndarray) -> dict[str, np.ndarray]:
    from skbeam.core.correlation import multi_tau_auto_corr

    g2, tau = multi_tau_auto_corr(7, 8, dynamic, frames.astype(float))
    return {"tau": np.asarray(tau), "g2": np.asarray(g2)}


if __name__ == "__main__":
    counts, bins, partitions = run()
    found = {"frames": counts, "dynamic": bins.astype(np.uint8), "static": partitions.astype(np.uint8)}
    found |= {f"boost_{name}": value for name, value in boost_corr(counts, bins, partitions).items()}
    found |= {f"skbeam_{name}": value for name, value in scikit_beam(counts, bins).items()}
    np.savez_compressed(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("xpcs_peers.npz"), **found)
