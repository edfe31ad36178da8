"""Every file of a dataset, every dataset of an experiment, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightkeep.catalog import View, query
from lightkeep.model.datasets import Dataset, File
from lightkeep.model.people import SERVICE

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_PAGE = 1000


def all_files(view: View, dataset_id: str, *, prefix: str = "") -> Iterator[File]:
    """Yield the manifest, or what of it begins with prefix, in the order of paths. Raises NotFound."""
    offset = 0
    while True:
        page = view.files(dataset_id, limit=_PAGE, offset=offset, prefix=prefix)
        yield from page.items
        offset += len(page.items)
        if not page.items or offset >= page.total:
            return


def complete_datasets(facility: Facility, experiment_id: str) -> Iterator[Dataset]:
    """Yield the complete datasets of an experiment, by name."""
    view = facility.catalog.view(SERVICE)
    offset = 0
    while page := view.datasets(
        query.Query(), experiment_id=experiment_id, limit=_PAGE, offset=offset, order="name"
    ).items:
        yield from page
        offset += len(page)
