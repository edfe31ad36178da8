"""What `formats.inspect` does inside the killable process."""

from __future__ import annotations

import os
from pathlib import Path

from lightkeep import formats
from lightkeep.formats import hdf5
from lightkeep.formats.metadata import gather
from lightkeep.model.datasets import Metadata
from lightkeep.model.errors import SourceError


def look(path: Path, within: Path | None = None) -> formats.Inspection:
    """Return what the file holds; see `formats.inspect`."""
    try:
        os.stat(path)
    except OSError as error:
        raise SourceError(
            f"{path}: {(error.strerror or 'cannot be read').lower()}", remedy="check the path"
        ) from error
    is_hdf5 = hdf5.is_hdf5(path)
    if is_hdf5:  # whatever its layout, and before anybody reads through its links
        hdf5.open_safe(path, [within] if within else []).close()
    name = formats.detect(path)
    if not name:
        return formats.Inspection("", metadata=_plain(path) if is_hdf5 else Metadata())
    with formats.get(name).open(path) as source:
        arrays = {role: (tuple(array.shape), str(array.dtype)) for role, array in source.arrays.items()}
        return formats.Inspection(name, source.technique, source.metadata, arrays)


def _plain(path: Path) -> Metadata:
    """What an HDF5 file of no known layout says about itself."""
    with hdf5.open_plain(path) as file, hdf5.reading(path):
        return gather(file, {}, {}).metadata()
