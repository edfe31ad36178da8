"""What a user may choose of XPCS: the command line, the API and the portal's form are made from these lines."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field


def _numbers(value: Any) -> Any:
    """Return the whole numbers of `3, 7-9`; what is no text stays as it is."""
    if isinstance(value, str):
        value = value.strip("()[] ").split(",")
    if not isinstance(value, list | tuple):
        return value
    found: list[Any] = []
    for each in value:
        first, dash, last = str(each).strip().partition("-")
        is_range = dash and first.isdecimal() and last.isdecimal()
        found += range(int(first), int(last) + 1) if is_range else [each] if str(each).strip() else []
    return found


Numbers = Annotated[tuple[int, ...], BeforeValidator(_numbers)]


def _asked(
    default: Any,
    text: str,
    unit: str = "",
    *,
    title: str | None = None,
    reads: str = "",
    group: str = "",
    **more: Any,
) -> Any:
    about = {"unit": unit, "reads": reads, "group": group}
    extra: dict[str, Any] = {key: value for key, value in about.items() if value}
    return Field(default, title=title, description=text, json_schema_extra=extra or None, **more)


_BINS = "Bins without a q map"
_FRAMES = "Frames"
_CORRELATION = "Correlation"
_FILE = "What the file says"


class Params(BaseModel, extra="forbid"):
    """How to correlate; whatever is left out is derived from the data."""

    mode: Literal["multitau", "twotime", "both"] = _asked(
        "multitau", "Multi-tau: g2 over all delays. Two-time: for samples that change while they are measured."
    )
    qmap: str | None = Field(
        None,
        title="Q map",
        description="Dataset with the q bins and the mask; bins about the beam when left out.",
        json_schema_extra={"input": "qmap"},
    )
    preset: Literal["sa-xpcs", "sa-xpcs-wedges", "wa-xpcs"] = _asked(
        "sa-xpcs", "Bins without a q map: rings, rings cut into wedges, or boxes on the detector."
    )
    q_min: float | None = _asked(
        None, "Of the bins, without a q map.", "1/angstrom", title="Lowest q", ge=0, group=_BINS
    )
    q_max: float | None = _asked(
        None, "Of the bins, without a q map.", "1/angstrom", title="Highest q", gt=0, group=_BINS
    )
    begin: int = _asked(0, "Counted from 0.", "frame", title="First frame", ge=0, group=_FRAMES)
    end: int | None = _asked(
        None, "Frame after the last one; all when left out.", "frame", title="End", gt=0, group=_FRAMES
    )
    stride: int = _asked(1, "Take every so many frames only.", "frames", ge=1, group=_FRAMES)
    average: int = _asked(1, "Put so many frames together into one.", "frames", ge=1, group=_FRAMES)
    bad_frames: Numbers | None = _asked(None, "Frames to leave out, such as 17, 200-210.", group=_FRAMES)
    delays_per_level: int = _asked(
        4, "Delays of each level of the multi-tau scheme.", "delays", ge=1, le=64, group=_CORRELATION
    )
    scheme: Literal["aps", "hadoop", "sutton"] = _asked("aps", "Which delays are calculated.", group=_CORRELATION)
    normalise: Literal["partition", "pooled", "ratio_of_sums"] = _asked(
        "partition",
        "How the pixels of a bin become one curve: as at APS, in scikit-beam, or at ESRF.",
        group=_CORRELATION,
    )
    bins: Numbers | None = _asked(
        None, "Numbers from 1, such as 1, 5-8; all when left out.", title="Two-time bins"
    )
    smooth: Literal["static", "dynamic", "average", "none"] = _asked(
        "static", "Two-time: what the frames are divided by before they are correlated.", group=_CORRELATION
    )
    method: Literal["auto", "gemm", "events"] = _asked(
        "auto", "Two-time: dense, sparse, or as the data suggest.", group=_CORRELATION
    )
    frame_time_s: float | None = _asked(
        None, "From the file when left out.", "s", title="Frame time", gt=0, group=_FILE
    )
    bin_time_s: float | None = _asked(
        None, "Length of a frame, for tables of events with times; from the file when left out.", "s",
        title="Bin time", reads="events", gt=0, group=_FILE)  # fmt: skip
    pixel_order: Literal["row", "column"] | None = _asked(
        None,
        "Along what a Rigaku module numbers its pixels; along rows when left out.",
        reads="rigaku",
        group=_FILE,
    )
    beam_center_x: float | None = _asked(
        None, "Column of the beam; from the file when left out.", "px", group=_FILE
    )
    beam_center_y: float | None = _asked(None, "Row of the beam; from the file when left out.", "px", group=_FILE)
    pixel_size_um: float | None = _asked(None, "From the file when left out.", "um", gt=0, group=_FILE)
    distance_m: float | None = _asked(
        None, "Sample to detector; from the file when left out.", "m", gt=0, group=_FILE
    )
    energy_kev: float | None = _asked(
        None, "From the file when left out.", "keV", title="Energy", gt=0, group=_FILE
    )
    arm_horizontal_deg: float = _asked(
        0.0, "Angle of the detector arm towards larger columns.", "deg", group=_FILE
    )
    arm_vertical_deg: float = _asked(0.0, "Angle of the detector arm towards smaller rows.", "deg", group=_FILE)
