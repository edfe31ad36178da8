"""Where an NXtomo file keeps what, and which of a file's entries is one."""

from __future__ import annotations

import h5py

from lightkeep.formats import hdf5
from lightkeep.formats.metadata import Field, value_of

QUANTITIES = {
    "energy": Field(("beam/incident_energy", "instrument/beam/incident_energy"), "keV"),
    "exposure_time": Field(("instrument/detector/count_time", "instrument/detector/exposure_time"), "s"),
    "pixel_size": Field(("instrument/detector/x_pixel_size", "instrument/detector/real_x_pixel_size"), "m"),
    "distance": Field(("instrument/detector/distance",), "m"),
    "magnification": Field(("instrument/detector/magnification",)),
    "current": Field(("instrument/source/current",), "mA"),
    "temperature": Field(("sample/temperature",), "K"),
}  # fmt: skip
TEXTS = {
    "title": Field(("title",)),
    "sample": Field(("sample/name",)),
    "description": Field(("sample/description",)),
    "instrument": Field(("instrument/name",)),
    "source": Field(("instrument/source/name",)),
    "beamline": Field(("instrument/beamline", "beamline")),
    "detector": Field(("instrument/detector/description", "instrument/detector/model")),
    "user": Field(("user/name",)),
    "proposal": Field(("experiment_identifier",)),
    "start_time": Field(("start_time",)),
    "end_time": Field(("end_time",)),
}


def entry_of(file: h5py.File) -> h5py.Group | None:
    """The first entry, or subentry, that is an NXtomo."""
    entries = hdf5.groups_in(file)
    for group in [*entries, *(group for entry in entries for group in hdf5.groups_in(entry))]:
        if value_of(hdf5.own(group, "definition")) == "NXtomo" or hdf5.has(group, "instrument/detector/image_key"):
            return group
    return None
