"""The three Linux calls that Python does not offer, and what their failure means."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_RENAME_NOREPLACE: Final = 1
_RENAMEAT2: Final = {"x86_64": 316, "aarch64": 276, "ppc64le": 357, "s390x": 347, "riscv64": 276}
PAGE: Final = mmap.PAGESIZE


def sync_filesystem(descriptor: int) -> None:
    """Write all that is dirty on the descriptor's filesystem to its device and wait; raises OSError.

    Since Linux 5.8 an I/O error that happened after `descriptor` was opened is reported here, once.
    """
    if _LIBC.syncfs(descriptor) != 0:
        _fail("syncfs")


def rename_new(source: str, target: str, *, source_folder: int, target_folder: int) -> None:
    """Rename without replacing: raises FileExistsError when the target exists, whatever it is.

    Where the filesystem cannot (EINVAL on some network filesystems), a hard link and an unlink do the same:
    link(2) never replaces either.
    """
    arguments = source_folder, os.fsencode(source), target_folder, os.fsencode(target), _RENAME_NOREPLACE
    if hasattr(_LIBC, "renameat2"):
        result = _LIBC.renameat2(*arguments)
    else:
        result = _LIBC.syscall(_RENAMEAT2[os.uname().machine], *arguments)
    if result == 0:
        return
    if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
        _fail("renameat2", target)
    os.link(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder, follow_symlinks=False)
    os.unlink(source, dir_fd=source_folder)


def resident_pages(descriptor: int, size: int, *, start: int = 0) -> int | None:
    """Return how many of a file's pages this machine's memory holds, or None where the kernel does not say.

    Parameters
    ----------
    size: bytes from `start` on that are asked about.
    start: a multiple of the page size.
    """
    if size == 0:
        return 0
    mapped = _LIBC_MMAP(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, start)
    if mapped == ctypes.c_void_p(-1).value:
        return None
    try:
        flags = (ctypes.c_ubyte * -(-size // PAGE))()
        if _LIBC.mincore(ctypes.c_void_p(mapped), ctypes.c_size_t(size), flags) != 0:
            return None
        return sum(flag & 1 for flag in bytes(flags))
    finally:
        _LIBC.munmap(ctypes.c_void_p(mapped), ctypes.c_size_t(size))


def _fail(call: str, name: str | None = None) -> None:
    code = ctypes.get_errno()
    raise OSError(code, f"{call}: {os.strerror(code)}", name)


_LIBC_MMAP: Final = _LIBC.mmap
_LIBC_MMAP.restype = ctypes.c_void_p
_LIBC_MMAP.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
]  # fmt: skip
