"""The programs `hsi` and `htar` of a simulated tape library. Begun by the files that `TapeLibrary` makes.

It needs the standard library only, and starts in some milliseconds. What it keeps is described in `testing.tape`.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from io import FileIO

BLOCK = 1 << 16
CODES = {
    "HPSS_ENOENT": 72,
    "HPSS_ENOTDIR": 72,
    "HPSS_EIO": 74,
    "HPSS_ENOSPC": 74,
    "HPSS_EAGAIN": 75,
    "HPSS_EEXIST": 64,
    "HPSS_EINVAL": 64,
}


class Refused(Exception):
    """A command's error, as HPSS names it."""


class Library:
    """The library's folder, and the session that this process has with it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.settings = {name: float(value) for name, value in read_lines(f"{folder}/settings")}
        self.held: list[int] = []

    def path(self, name: str) -> str:
        """Return where the archive's path is on this disk."""
        if not name.startswith("/") or ".." in name.split("/"):
            raise Refused("HPSS_EINVAL", name)
        return f"{self.folder}/files{name}"

    def slot(self, kind: str, count: int) -> int:
        """Take one of some locks; -1 when none is free."""
        for number in range(count):
            lock = os.open(f"{self.folder}/{kind}-{number}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self.held.append(lock)
            return number
        return -1

    def fault(self, command: str) -> str:
        """Count a command and return the kind of fault that is due, or nothing."""
        kind, number = "", 0
        with open(f"{self.folder}/counts", "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(f"{command}\n")
            file.seek(0)
            number = file.read().split().count(command)
        for name, each, when, times in read_lines(f"{self.folder}/faults"):
            if name == command and int(when) <= number < int(when) + int(times):
                kind = each
        if kind == "hang":
            time.sleep(3600)
        if kind == "die":
            os.kill(os.getpid(), 9)
        if kind == "temporary":
            raise Refused("HPSS_EAGAIN", "too many sessions")
        if kind == "error":
            raise Refused("HPSS_EIO", command)
        if kind == "full":
            raise Refused("HPSS_ENOSPC", command)
        return kind

    def note(self, text: str) -> None:
        """Write a line into the journal."""
        with open(f"{self.folder}/journal", "a") as file:
            file.write(text + "\n")

    def place_of(self, path: str) -> tuple[int, int]:
        """Return (tape, position in bytes) of a file, which gets them when it is first asked for."""
        with open(f"{self.folder}/tapes", "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            tape, end = 1, 0
            inode = str(os.stat(path).st_ino)
            for line_ in file.read().splitlines():
                known, tape, at, size = (int(word) for word in line_.split())
                if str(known) == inode:
                    return tape, at
                end = at + size
            size = os.path.getsize(path)
            if end and end + size > self.settings["tape_size"]:
                tape, end = tape + 1, 0
            file.write(f"{inode} {tape} {end} {size}\n")
            return tape, end

    def mount(self, path: str, offset: int, kind: str) -> None:
        """Get a drive, the file's tape into it, and the tape to the place."""
        tape, position = self.place_of(path)
        while (drive := self.slot("drive", int(self.settings["drives"]))) < 0:
            time.sleep(0.01)
        lock = self.held[-1]
        loaded = os.pread(lock, 100, 0).split()
        if kind == "mount":
            self.note(f"failed {tape}")
            raise Refused("HPSS_EIO", f"mount of tape {tape} failed")
        at = int(loaded[1]) if loaded and int(loaded[0]) == tape else 0
        if not loaded or int(loaded[0]) != tape:
            time.sleep(self.settings["mount_s"])
            self.note(f"mount {tape} {drive}")
        time.sleep(abs(position + offset - at) * self.settings["seek_s_per_gb"] / 1e9)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{tape} {position + offset}".encode(), 0)


def read_lines(path: str) -> list[list[str]]:
    """Return the words of each line of a file."""
    with open(path) as file:
        return [text.split() for text in file]


def put(library: Library, source: str, target: str) -> None:
    kind = library.fault("put")
    path = library.path(target)
    if os.path.isdir(path):
        raise Refused("HPSS_EEXIST", target)
    kept = 0
    with open(0 if source == "-" else source, "rb", 0) as data, open_new(path, target) as file:
        while block := data.read(BLOCK):
            if kind == "half" and kept >= library.settings["half"]:
                os.kill(os.getpid(), 9)
            if kind == "flip" and not kept:
                block = bytes([block[0] ^ 1]) + block[1:]
            if kind != "lost":
                file.write(block)
            kept += len(block)
    library.note(f"put {target}")
    if kind == "late":
        raise Refused("HPSS_EIO", "put")


def open_new(path: str, target: str) -> FileIO:
    try:
        return FileIO(path, "wb")
    except FileNotFoundError:
        raise Refused("HPSS_ENOENT", target) from None
    except NotADirectoryError:
        raise Refused("HPSS_ENOTDIR", target) from None


def get(library: Library, target: str, source: str) -> None:
    kind = library.fault("get")
    path = library.path(source)
    if not os.path.isfile(path):
        raise Refused("HPSS_ENOENT", source)
    library.mount(path, 0, kind)
    library.note(f"get {source}")
    size = os.path.getsize(path)
    given = 0
    with open(path, "rb", 0) as file, open(os.dup(1) if target == "-" else target, "wb", 0) as out:
        while block := file.read(BLOCK):
            if kind == "flip" and not given:
                block = bytes([block[0] ^ 1]) + block[1:]
            if kind in ("media", "short") and given + len(block) > size // 2:
                out.write(block[: max(0, size // 2 - given)])
                if kind == "media":
                    raise Refused("HPSS_EIO", f"media error on {source}")
                return
            out.write(block)
            given += len(block)


def ls(library: Library, options: str, name: str) -> None:
    library.fault("ls")
    path = library.path(name).rstrip("/")
    if not os.path.lexists(path):
        raise Refused("HPSS_ENOENT", name)
    if "d" in options or os.path.isfile(path):
        show(line(path, name))
    elif "R" in options:
        for folder, _, _ in sorted(os.walk(path)):
            shown = folder.removeprefix(f"{library.folder}/files")
            show(f"{shown}:")
            for entry in sorted(os.listdir(folder)):
                show(line(f"{folder}/{entry}", entry))
            show("")
    else:
        for entry in sorted(os.listdir(path)):
            show(line(f"{path}/{entry}", entry))


def show(text: str) -> None:
    sys.stdout.write(text + "\n")


def line(path: str, name: str) -> str:
    status = os.lstat(path)
    is_folder = os.path.isdir(path)
    day = time.strftime("%b %e %H:%M:%S %Y", time.localtime(status.st_mtime))
    mode = "drwxr-x---" if is_folder else "-rw-r-----"
    return f"{mode}   1 beamline  staff    42  8ID TAPE {status.st_size:>12} {day} {name}"


def mv(library: Library, old: str, new: str) -> None:
    kind = library.fault("mv")
    try:
        os.rename(library.path(old), library.path(new))
    except FileNotFoundError:
        raise Refused("HPSS_ENOENT", old) from None
    except NotADirectoryError:
        raise Refused("HPSS_ENOTDIR", new) from None
    except OSError:
        raise Refused("HPSS_EEXIST", new) from None
    library.note(f"mv {old} {new}")
    if kind == "late":
        os.kill(os.getpid(), 9)


def mkdir(library: Library, name: str) -> None:
    library.fault("mkdir")
    try:
        os.makedirs(library.path(name), exist_ok=True)
    except (NotADirectoryError, FileExistsError):
        raise Refused("HPSS_ENOTDIR", name) from None


def rm(library: Library, name: str) -> None:
    library.fault("rm")
    try:
        os.unlink(library.path(name))
    except (FileNotFoundError, NotADirectoryError):
        raise Refused("HPSS_ENOENT", name) from None
    except OSError:
        raise Refused("HPSS_EINVAL", name) from None
    library.note(f"rm {name}")


def hsi(library: Library, text: str) -> int:
    """Carry out the commands of one session; return the exit code."""
    code = 0
    for command in text.split(";"):
        words = command.split()
        try:
            if words[0] == "put":
                put(library, words[1], words[3])
            elif words[0] == "get":
                get(library, words[1], words[3])
            elif words[0] == "ls":
                ls(library, words[1], words[2])
            elif words[0] == "mv":
                mv(library, words[1], words[2])
            elif words[0] == "mkdir":
                mkdir(library, words[2])
            elif words[0] == "rm":
                rm(library, words[1])
            else:
                raise Refused("HPSS_EINVAL", words[0])
        except Refused as error:
            code = complain(words[0], error)
    return code


def complain(verb: str, error: Refused) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"*** {verb}: HPSS error on {error.args[1]} [-5: {error.args[0]}]\n")
    return CODES[error.args[0]]


def htar(library: Library, arguments: list[str]) -> int:
    """Make an index (-X) or take a member out (-x) of a tar, as far as its names are plain."""
    import json
    import tarfile

    flags, archive = arguments[0], arguments[1]
    try:
        kind = library.fault("htar")
        path = library.path(archive)
        if "X" in flags:
            library.mount(path, 0, kind)
            with tarfile.open(path) as tar:
                members = {each.name: [each.offset_data, each.size] for each in tar if not each.pax_headers}
            with open(f"{path}.idx", "w") as file:
                json.dump(members, file)
            return 0
        with open(f"{path}.idx") as file:
            offset, size = json.load(file)[arguments[2]]
        library.mount(path, offset, kind)
        library.note(f"htar {archive} {arguments[2]}")
        os.makedirs(os.path.dirname(arguments[2]), exist_ok=True)
        with open(path, "rb") as file, open(arguments[2], "wb") as out:
            file.seek(offset)
            out.write(file.read(size))
    except Refused as error:
        return complain("htar", error)
    except (OSError, KeyError, tarfile.TarError) as error:
        sys.stderr.write(f"ERROR: htar: {error!r} [HPSS_ENOENT]\n")
        return 70
    return 0


def main(folder: str, program: str, arguments: list[str]) -> int:
    """Have a session, if one is free."""
    library = Library(folder)
    if library.slot("session", int(library.settings["sessions"])) < 0:
        sys.stderr.write("*** hsi: too many concurrent sessions for this user\n")
        return 75
    return hsi(library, arguments[-1]) if program == "hsi" else htar(library, arguments)


def begin(folder: str, program: str) -> None:
    """Run a program of the library and end this process."""
    try:
        code = main(folder, program, sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        code = 74
    sys.stderr.flush()
    os._exit(code)  # in no time: nothing here is left to be cleaned up
