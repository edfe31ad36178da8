"""Every file of a dataset, page by page."""

from __future__ import annotations

from collections.abc import Iterator

from lightkeep.catalog import View
from lightkeep.model.datasets import File

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
