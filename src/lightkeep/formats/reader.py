"""What all formats share that only read."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Result


class Reader:
    """A format that reads; one that writes too says so and replaces `write`."""

    name: ClassVar[str]
    can_read: ClassVar[bool] = True
    can_write: ClassVar[bool] = False

    def write(self, folder: Path, result: Result) -> list[Path]:  # noqa: ARG002 -- the protocol's
        """Not offered, unless the format says `can_write`."""
        raise InvalidInput(
            f"{self.name} does not write results", remedy="use a format that does: nexus", folder=str(folder)
        )
