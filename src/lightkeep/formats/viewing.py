"""What `viewer` does inside the sandbox: h5grove's content functions on a file that was found safe."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5grove.content import DatasetContent, GroupContent, ResolvedEntityContent, create_content
from h5grove.encoders import Response, encode, orjson_encode
from h5grove.models import LinkResolution
from h5grove.utils import NotFoundError, QueryArgumentError, hdf_path_join, parse_link_resolution_arg

from lightkeep.formats import hdf5
from lightkeep.formats.text import clean, one_line
from lightkeep.model.errors import InvalidInput, NotFound

LARGEST = 256 << 20
"""Bytes of one answer."""

Stamp = tuple[str, int, int, int, int]
"""Path, device, inode, size, modification time in ns: the same stamp is the same content."""


@dataclass(frozen=True)
class Answer:
    """The body of a response, and how to send it."""

    content: bytes
    media_type: str
    disposition: str = ""
    """Content-Disposition header; set when the browser should save it."""


def answer(
    path: Path, allowed: Collection[Path], kind: str, h5path: str, options: Mapping[str, Any], *, is_safe: bool
) -> tuple[Answer, list[Stamp]]:
    """Return the answer, and the stamps of all files that the check reached (none when it `is_safe` already)."""
    with hdf5.open_plain(path) as file, hdf5.reading(path):
        reached = [] if is_safe else sorted(hdf5.check_safe(file, allowed))
        try:
            response = _KINDS[kind](file, h5path, options)
        except (NotFoundError, KeyError) as error:
            raise NotFound(f"{path.name} has no {one_line(h5path)}", remedy="look at its tree") from error
        except (QueryArgumentError, IndexError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"{kind} of {one_line(h5path)}: {one_line(error)[:200]}", remedy="correct it"
            ) from error
    headers = response.headers
    found = Answer(response.content, headers["Content-Type"], headers.get("Content-Disposition", ""))
    return found, [stamp(each) for each in reached]


def stamp(path: Path) -> Stamp:
    """Return what tells whether a file is still the one that was checked."""
    found = os.stat(path)
    return str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _meta(file: h5py.File, h5path: str, options: Mapping[str, Any]) -> Response:
    return _json(create_content(file, h5path, _links(options)).metadata())


def _attr(file: h5py.File, h5path: str, options: Mapping[str, Any]) -> Response:
    content = create_content(file, h5path)
    if not isinstance(content, ResolvedEntityContent):
        raise NotFoundError(h5path)
    return _json(content.attributes(options.get("attr_keys")))


def _data(file: h5py.File, h5path: str, options: Mapping[str, Any]) -> Response:
    content = _dataset(file, h5path, options)
    data = content.data(options.get("selection"), bool(options.get("flatten")), options.get("dtype", "origin"))
    encoding = options.get("format", "json")
    return _json(data) if encoding == "json" else encode(data, encoding)


def _stats(file: h5py.File, h5path: str, options: Mapping[str, Any]) -> Response:
    return _json(_dataset(file, h5path, options).data_stats(options.get("selection")))


def _paths(file: h5py.File, h5path: str, options: Mapping[str, Any]) -> Response:
    base = create_content(file, h5path, _links(options))
    if not isinstance(base, GroupContent):
        raise QueryArgumentError("it is not a group")
    paths = [base.path]
    group = file[h5path]  # must live as long as the visit
    group.id.links.visit(lambda name: paths.append(hdf_path_join(h5path, one_line(name))))
    return _json(paths)


_KINDS: dict[str, Callable[[h5py.File, str, Mapping[str, Any]], Response]] = {
    "meta": _meta,
    "attr": _attr,
    "data": _data,
    "stats": _stats,
    "paths": _paths,
}


def _links(options: Mapping[str, Any]) -> LinkResolution:
    return parse_link_resolution_arg(options.get("resolve_links"), fallback=LinkResolution.ONLY_VALID)


def _dataset(file: h5py.File, h5path: str, options: Mapping[str, Any]) -> DatasetContent:
    content = create_content(file, h5path)
    if not isinstance(content, DatasetContent):
        raise QueryArgumentError("it is not a dataset")
    if options.get("selection") is None and file[h5path].nbytes > LARGEST:
        raise QueryArgumentError("it is too large to send whole: select a part")
    return content


def _json(content: Any) -> Response:
    """JSON of anything; text that is no valid Unicode is cleaned, as `formats.text` does."""
    try:
        body = orjson_encode(content)
    except TypeError:  # orjson's own error is one
        body = orjson_encode(_cleaned(content))
    return Response(body, {"Content-Type": "application/json"})


def _cleaned(content: Any) -> Any:
    if isinstance(content, dict):
        return {clean(key): _cleaned(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_cleaned(value) for value in content]
    if isinstance(content, np.ndarray) and content.dtype.kind in "OSUV":
        return _cleaned(content.tolist())
    if isinstance(content, str | bytes):
        return clean(content)
    return content
