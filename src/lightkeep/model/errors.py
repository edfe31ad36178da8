"""Every error that Lightkeep raises on purpose::

    LightkeepError
    ├── NotFound            the thing does not exist, or this person may not see it (the two are one answer)
    ├── Forbidden           the person sees the thing but may not do this to it
    ├── SignInRequired      no person is known for this request
    ├── Conflict            the thing exists already, or is not in the state that the verb needs
    │   └── Archived        the bytes are safe, but far away: restore them first
    ├── InvalidInput        a value from outside is wrong: a parameter, a query, a name
    │   └── BadFile         a file's content is not what its format promises
    │       └── UnsafeFile  the file tries to reach outside itself, or is built to exhaust the reader
    ├── ConfigError         the configuration cannot be used
    ├── StorageError        a store could not do what it must
    │   ├── StoreFull       no space, no inode or no quota left on the store
    │   ├── StoreUnavailable  the store is not mounted, is another store, or cannot be reached
    │   │   └── CatalogUnavailable  the catalogue's server does not answer
    │   └── Corrupt         bytes read back differ from what was written
    ├── MailError           a message could not be handed over now; the outbox tries again
    ├── SourceError         the side that is read from failed: missing, unreadable, changed while it was read
    └── RunFailed           a technique or an engine failed
        └── RunCancelled    somebody cancelled the run

A message says what happened and to which thing; `remedy` says what to do next. Faces show both. Foreign
exceptions are mapped once, at the edge that owns the dependency, with `raise ... from`.
"""

from __future__ import annotations

from typing import Any, ClassVar


class LightkeepError(Exception):
    """The root. Catch it in a face, to show `message` and `remedy`; nowhere else."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, remedy: str = "", **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors travel between processes: rebuild from message, remedy and data."""
        return _rebuild, (type(self), self.message, self.remedy, self.data)


def _rebuild(cls: type[LightkeepError], message: str, remedy: str, data: dict[str, Any]) -> LightkeepError:
    return cls(message, remedy=remedy, **data)


class NotFound(LightkeepError):
    """It does not exist or may not be seen; catch it to answer 404."""

    code = "not_found"


class Forbidden(LightkeepError):
    """Seen but not allowed; catch it to answer 403."""

    code = "forbidden"


class SignInRequired(LightkeepError):
    """Nobody is signed in; catch it to show the sign-in page or answer 401."""

    code = "sign_in_required"


class Conflict(LightkeepError):
    """Exists already, or is in the wrong state; catch it where a verb is repeated on purpose."""

    code = "conflict"


class Archived(Conflict):
    """The bytes are in the archive only; catch it to offer a restore."""

    code = "archived"


class InvalidInput(LightkeepError):
    """A value from outside is wrong; catch it to point at the field."""

    code = "invalid_input"


class BadFile(InvalidInput):
    """A file is not what its format promises; catch it to go on with the next file."""

    code = "bad_file"


class UnsafeFile(BadFile):
    """A file reaches outside itself or is a bomb; never retried."""

    code = "unsafe_file"


class ConfigError(LightkeepError):
    """The configuration cannot be used; catch it at start."""

    code = "config"


class StorageError(LightkeepError):
    """A store failed; catch it to try another store."""

    code = "storage"


class StoreFull(StorageError):
    """No room on the store; nothing was kept of what was being written."""

    code = "store_full"


class StoreUnavailable(StorageError):
    """The store is not there, or is not the one it should be: never read this as 'the files are gone'."""

    code = "store_unavailable"


class CatalogUnavailable(StoreUnavailable):
    """The catalogue's server does not answer; catch it to try the same again: no work has failed."""

    code = "catalog_unavailable"


class Corrupt(StorageError):
    """Bytes differ from their checksum; catch it to quarantine, never to delete."""

    code = "corrupt"


class MailError(LightkeepError):
    """A message could not be handed to the mail server now; catch it to try again later."""

    code = "mail"


class SourceError(LightkeepError):
    """The side that is read from failed; nothing was registered."""

    code = "source"


class RunFailed(LightkeepError):
    """A technique or an engine failed; the run is kept, with its reason, to inspect and start again."""

    code = "run_failed"


class RunCancelled(RunFailed):
    """Somebody cancelled the run."""

    code = "run_cancelled"
