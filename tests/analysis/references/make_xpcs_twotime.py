"""Writes xpcs_twotime.npz: what boost-corr makes of the two-time correlation of one small run.

Run it in an environment of its own: numpy, torch and boost-corr 0.1.7 (--no-deps). The run is that of
make_xpcs_peers.py, cut to 60 frames; one frame has no counts in one static partition.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

FRAMES = 60


def correlate(frames: np.ndarray, dynamic: np.ndarray, static: np.ndarray, smooth: str) -> dict[str, np.ndarray]:
    import torch
    from boost_corr.twotime import TwotimeCorrelator

    order = np.flatnonzero(static.ravel())
    order = order[np.argsort(static.ravel()[order], kind="stable")]

    def slices(labels: np.ndarray) -> list[slice]:
        edges = np.searchsorted(labels.ravel()[order], np.arange(1, labels.max() + 2))
        return [slice(int(begin), int(end)) for begin, end in pairwise(edges)]

    bins = np.arange(1, dynamic.max() + 1)
    places = {"dq_idx": bins, "dq_slc": slices(dynamic), "sq_idx": bins, "sq_slc": slices(static)}
    correlator = TwotimeCorrelator(places, len(frames), det_size=static.shape)
    correlator.process(torch.from_numpy(frames.reshape(len(frames), -1)[:, order].astype(np.float32)))
    correlator.compute_smooth_data(smooth)
    *maps, curves = correlator.get_twotime_generator()
    return {
        "c2": np.stack([next(iter(one.values())) for one in maps]),
        "g2": curves["c2_g2"],
        "g2_segments": curves["c2_g2_segments"].swapaxes(0, 1),
    }


if __name__ == "__main__":
    here = Path(__file__).parent
    run = np.load(here / "xpcs_peers.npz")
    frames, dynamic, static = run["frames"][:FRAMES].copy(), run["dynamic"], run["static"]
    frames[17][static == 3] = 0
    found = {"frames": frames, "dynamic": dynamic, "static": static}
    for name in ("sqmap", "dqmap"):
        found |= {f"{name}_{key}": value for key, value in correlate(frames, dynamic, static, name).items()}
    np.savez_compressed(here / "xpcs_twotime.npz", **found)
