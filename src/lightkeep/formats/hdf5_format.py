"""What all formats that are HDF5 inside share: recognised and opened in one way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import h5py

from lightkeep.formats import hdf5
from lightkeep.formats.reader import Reader
from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Source


class Hdf5Format(Reader, ABC):
    """A reader of HDF5."""

    def matches(self, path: Path) -> bool:
        """True when the file is HDF5 and holds this layout."""
        if not hdf5.is_hdf5(path):
            return False
        try:
            with hdf5.open_plain(path) as file:
                return self.holds(file)
        except (BadFile, *hdf5.FOREIGN):
            return False

    def grows(self, path: Path) -> bool:
        """True when the file is being written with SWMR and holds this layout."""
        if not hdf5.is_hdf5(path):
            return False
        try:
            with hdf5.open_growing(path) as file:
                return self.holds(file)
        except (BadFile, *hdf5.FOREIGN):
            return False

    def open(self, path: Path) -> Source:
        """Open lazily; the file may lead to other files below its own folder.

        Raises
        ------
        SourceError: missing or unreadable. UnsafeFile: see `hdf5.check_safe`.
        BadFile: not HDF5, cut short, another layout, or content that does not fit together.
        """
        file = hdf5.open_safe(path, [path.parent])
        try:
            with hdf5.reading(path):
                return self.source(path, file)
        except BaseException:
            file.close()
            raise

    @abstractmethod
    def holds(self, file: h5py.File) -> bool:
        """True when the file has this layout; follows no link out of the file."""

    @abstractmethod
    def source(self, path: Path, file: h5py.File) -> Source:
        """Return the source of an open file that was found safe, or raise BadFile."""
