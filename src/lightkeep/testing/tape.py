"""A simulated tape library: real programs `hsi` and `htar` over a folder, with drives, mounts, seeks and faults.

    library = TapeLibrary.make(folder, mount_s=0.05, drives=2)
    record = HpssStore.initialise(library.location("/home/beamline/lightkeep"), "tape", ids=ids)
    library.fault("get", "media", when=2)      the second get gives half of its bytes and an error
    library.mounts()                           the tapes in the order in which they were mounted

In the folder: `files/` (the archive's tree), `bin/` (the programs), `settings`, `counts` (commands so far),
`faults`, `tapes` (inode, tape, position, bytes), `journal` (what was done), `session-*` and `drive-*` (locks; a
drive's names the tape in it): text of words, because the programs should start in some milliseconds.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

PROGRAM = Path(__file__).with_name("tape_library.py")


@dataclass(frozen=True, slots=True)
class TapeLibrary:
    """A library in a folder."""

    folder: Path

    @classmethod
    def make(
        cls,
        folder: Path,
        *,
        drives: int = 2,
        sessions: int = 15,
        mount_s: float = 0.0,
        seek_s_per_gb: float = 0.0,
        tape_size: int = 10**9,
        half: int = 1 << 16,
    ) -> TapeLibrary:
        """Make an empty library.

        Parameters
        ----------
        mount_s: seconds until a tape is in a drive.
        seek_s_per_gb: seconds for winding over 10^9 bytes.
        tape_size: bytes on one tape; files go on them in the order in which they are first read.
        half: bytes after which a put of the fault `half` dies.
        """
        settings = {
            "drives": drives,
            "sessions": sessions,
            "mount_s": mount_s,
            "seek_s_per_gb": seek_s_per_gb,
            "tape_size": tape_size,
            "half": half,
        }
        (folder / "files").mkdir(parents=True)
        (folder / "bin").mkdir()
        (folder / "settings").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        (folder / "journal").touch()
        library = cls(folder)
        library.clear_faults()
        for name in ("hsi", "htar"):
            program = folder / "bin" / name
            program.write_text(
                f"#!{sys.executable} -IS\nimport sys\nsys.path.append({str(PROGRAM.parent)!r})\n"
                f"import {PROGRAM.stem}\n{PROGRAM.stem}.begin({str(folder)!r}, {name!r})\n"
            )
            program.chmod(0o755)
        return library

    def location(self, root: str, *, has_htar: bool = False, **options: float | str) -> str:
        """Return the location of a store in this library."""
        programs = {"hsi": f"{self.folder}/bin/hsi"} | ({"htar": f"{self.folder}/bin/htar"} if has_htar else {})
        wanted = {"spool": f"{self.folder}/spool", "pause_s": 0.01, **options}
        return f"{root}?{urlencode(programs | wanted)}"

    def fault(self, command: str, kind: str, *, when: int = 1, times: int = 1) -> None:
        """Let the `when`-th command of a name from now on go wrong, and `times - 1` after it.

        Commands: put, get, ls, mv, mkdir, rm, htar. Kinds, of all: `temporary` (no session), `error`,
        `full`, `hang`, `die`; of put: `half` (dies half-way), `flip`, `lost` (keeps nothing and says that all is
        well), `late` (an error when all is kept); of get: `mount`, `media` (half, then an error), `short` (half,
        and all is well), `flip`; of mv: `late` (dies when it is done).
        """
        (self.folder / "counts").write_text("")
        with (self.folder / "faults").open("a") as file:
            file.write(f"{command} {kind} {when} {times}\n")

    def clear_faults(self) -> None:
        """Let nothing go wrong from now on."""
        (self.folder / "counts").write_text("")
        (self.folder / "faults").write_text("")

    def journal(self) -> list[str]:
        """What was done: `mount TAPE DRIVE`, `get PATH`, `put PATH`, `mv OLD NEW`, `rm PATH`, `htar PATH MEMBER`.

        In the order in which it was done.
        """
        return (self.folder / "journal").read_text().splitlines()

    def mounts(self) -> list[int]:
        """Tapes in the order in which they were mounted."""
        return [int(line.split()[1]) for line in self.journal() if line.startswith("mount ")]

    def file(self, path: str) -> Path:
        """Return where the library keeps an archive's path, for a test that damages it."""
        return self.folder / "files" / path.lstrip("/")
