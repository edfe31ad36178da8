"""Pictures of datasets, drawn in the killable process and remembered: a complete dataset never changes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from lightkeep.formats import sandbox
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import LightkeepError, NotFound

if TYPE_CHECKING:
    from lightkeep.facility import Facility

THUMBNAIL = 320
"""Pixels of the longer side: twice the size on the page, for dense screens."""
LARGEST = 2048
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Stack:
    """What there is to look at."""

    role: str
    """What the images are, e.g. `projections`."""
    count: int
    """Number of images."""
    height: int
    width: int
    """In pixels."""
    dtype: str
    label: str
    """What the values are."""
    unit: str
    steps: tuple[float, float]
    """Distance between neighbouring rows, and columns; 1 pixel where the file does not say."""
    step_unit: str
    low: float
    high: float
    """Contrast: the 0.5 and 99.5 percentiles of a few images."""


@dataclass
class Previews:
    """What was drawn lately. One object per server; safe to use from several threads."""

    remembered: int = 512
    """Number of descriptions and of thumbnails, 5 to 60 kB each."""
    _known: OrderedDict[tuple[str, str], Any] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def describe(self, facility: Facility, dataset: Dataset) -> Stack:
        """Return what there is to look at.

        Raises
        ------
        NotFound: the dataset holds no images that its format can show.
        """

        def look() -> Stack:
            return Stack(**_call("describe", facility, dataset))

        return cast(Stack, self._remember(("stack", dataset.id), look))

    def thumbnail(self, facility: Facility, dataset: Dataset) -> bytes:
        """Return the middle image as a small PNG."""

        def draw() -> bytes:
            stack = self.describe(facility, dataset)
            return self.draw(facility, dataset, index=stack.count // 2, longest=THUMBNAIL)

        return cast(bytes, self._remember(("thumbnail", dataset.id), draw))

    def draw(
        self,
        facility: Facility,
        dataset: Dataset,
        *,
        index: int,
        palette: str = "grey",
        longest: int = LARGEST,
        low: float | None = None,
        high: float | None = None,
    ) -> bytes:
        """Return one image as PNG; contrast from the percentiles of the stack where low and high are not given."""
        stack = self.describe(facility, dataset)
        low = stack.low if low is None else low
        high = stack.high if high is None else high
        png = _call(
            "render",
            facility,
            dataset,
            index=index,
            low=low,
            high=high if high > low else low + 1.0,
            palette=palette,
            longest=longest,
        )
        return cast(bytes, png)

    def _remember(self, key: tuple[str, str], make: Any) -> Any:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        value = make()
        with self._lock:
            self._known[key] = value
            while len(self._known) > 2 * self.remembered:
                self._known.popitem(last=False)
        return value


def main_file(facility: Facility, dataset: Dataset) -> Path:
    """Return where the dataset's main file lies on this machine.

    Raises
    ------
    NotFound: the dataset has none that a format knows.
    """
    if not dataset.main_file or not dataset.format:
        raise NotFound(f"dataset {dataset.name} has no file that a viewer could open")
    return local_path(facility, dataset.id, dataset.main_file)


def dataset_folder(file: Path, dataset: Dataset) -> Path:
    """Return the folder on the store below which everything belongs to the dataset."""
    return file.parents[len(PurePosixPath(dataset.main_file).parts) - 1]


@contextmanager
def shown_as(file: Path, dataset: Dataset) -> Iterator[None]:
    """Name a file in errors as the dataset does: where it lies on the server is nobody's business."""
    try:
        yield
    except LightkeepError as error:
        message = error.message.replace(str(file), dataset.main_file)
        raise type(error)(message, remedy=error.remedy) from error


def _call(name: str, facility: Facility, dataset: Dataset, **options: Any) -> Any:
    path = main_file(facility, dataset)
    with shown_as(path, dataset):
        function = f"lightkeep.lifecycle.pictures.picture:{name}"
        return sandbox.call(function, path, dataset.format, timeout_s=_TIMEOUT_S, **options)
