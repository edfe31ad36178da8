"""A folder of TIFF files, one per slice, as float32: what ImageJ, Dragonfly, Avizo and everybody else opens."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tifffile

from lightkeep.model.errors import InvalidInput, StorageError, StoreFull
from lightkeep.model.formats import Result, Source


class TiffStack:
    """Writer of stacks and images."""

    name: ClassVar[str] = "tiff-stack"
    can_read: ClassVar[bool] = False
    can_write: ClassVar[bool] = True

    def matches(self, path: Path) -> bool:  # noqa: ARG002 -- the protocol's
        """False: results are read back from NeXus."""
        return False

    def open(self, path: Path) -> Source:
        """Not offered."""
        raise InvalidInput(f"{path}: tiff-stack is only written", remedy="open the NeXus file beside it")

    def write(self, folder: Path, result: Result) -> list[Path]:
        """Write the default output as `<output>/<output>_00000.tiff`, one file per index of its first axis.

        An image is one file; a curve none.

        Raises
        ------
        StoreFull: no room. StorageError: it cannot be written.
        """
        data = result.outputs[result.default].data
        if len(data.shape) not in (2, 3):
            return []
        stack = folder / result.default
        stack.mkdir(parents=True, exist_ok=True)
        indices = range(data.shape[0]) if len(data.shape) == 3 else [...]
        paths = []
        for number, index in enumerate(indices):
            paths.append(stack / f"{result.default}_{number:05d}.tiff")
            _write(paths[-1], np.asarray(data[index], np.float32), result)
        return paths


FORMAT = TiffStack()


def _write(path: Path, image: Any, result: Result) -> None:
    try:
        tifffile.imwrite(path, image, photometric="minisblack", software=result.software, metadata=None)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(f"{path}: no room to write it", remedy="free space, or use another store") from error
        raise StorageError(f"{path}: cannot be written: {error.strerror}", remedy="check the folder") from error
