"""Objects that the suites put on a store, and how."""

from __future__ import annotations

import io
import os

from lightkeep.model.stores import Replicated, Store

ODD = [
    "plain.h5",
    "a/deep/er/path.tif",
    "-rf",
    "with\nnewline",
    " space at both ends ",
    os.fsdecode(b"not utf-8 \xff\xfe"),
    "é as one",
    "é as two",
    "CASE",
    "case",
    "\u202eright to left",
    "n" * 255,
    "/".join(["d" * 200] * 30),
    "~tilde*?[x]$(y)`z`",
]


def keep(store: Store, **contents: bytes) -> dict[str, Replicated]:
    """Publish objects in one group; return the results by the key asked for (`__` in a name is a slash)."""
    return keep_all(store, {key.replace("__", "/"): content for key, content in contents.items()})


def keep_all(store: Store, contents: dict[str, bytes]) -> dict[str, Replicated]:
    """Publish objects in one group; return the results by the key asked for."""
    with store.stage() as staging:
        for key, content in contents.items():
            staging.write(key, io.BytesIO(content), size=len(content))
        staging.sync()
        staging.verify()
        return {each.asked: each for each in staging.publish()}


def content_of(store: Store, key: str) -> bytes:
    """Return an object's bytes."""
    with store.open(key) as file:
        return file.read()
