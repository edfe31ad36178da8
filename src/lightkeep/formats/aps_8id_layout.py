"""Where the result files of beamline 8-ID keep what, as xpcs-viewer 1.2 and boost-corr 0.1 have it."""

from __future__ import annotations

from typing import Final

QMAP: Final = "xpcs/qmap"
DELAYS: Final = "xpcs/multitau/delay_list"
MAPS: Final = "xpcs/twotime/correlation_map"
BINS: Final = "xpcs/twotime/processed_bins"
TIME: Final = "xpcs/twotime/time"
CONFIGS: Final = {"multitau": "xpcs/multitau/config", "twotime": "xpcs/twotime/config"}
INTENSITY: Final = "xpcs/spatial_mean/intensity_vs_time"
"""(2, frame): the frame's number, and its intensity."""
RAW: Final = "xpcs/rawdata_path"

PLACES: Final = {
    "g2": "xpcs/multitau/normalized_g2",
    "g2_err": "xpcs/multitau/normalized_g2_err",
    "g2_partial": "xpcs/multitau/normalized_g2_static",
    "pairs": "xpcs/multitau/pairs",
    "saxs_2d": "xpcs/temporal_mean/scattering_2d",
    "saxs_1d": "xpcs/temporal_mean/scattering_1d",
    "saxs_1d_segments": "xpcs/temporal_mean/scattering_1d_segments",
    "intensity": INTENSITY,
    "intensity_q": "xpcs/spatial_mean/intensity_vs_time_q",
    "g2_twotime": "xpcs/twotime/normalized_g2",
    "g2_twotime_segments": "xpcs/twotime/normalized_g2_segments",
}
"""Output -> dataset. `normalized_g2_partial` is another thing (g2 of parts of the run), and not written."""
LED: Final = ("saxs_2d", "saxs_1d")
"""With an axis of one in front in the file."""
SWAPPED: Final = ("g2_twotime_segments",)
"""With the first two axes exchanged in the file: (delay, segment, bin)."""
ROI_MAPS: Final = ("dynamic_roi_map", "static_roi_map", "mask")
UNKNOWN_TIME: Final = "frame"
"""Unit of a frame time of 1 where nobody knows it: delays are in frames then."""
