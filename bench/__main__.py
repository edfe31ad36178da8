"""python -m bench [all|PART ...]: run benchmarks, print a table, write build/bench/<part>.json."""

from __future__ import annotations

import signal
import sys

from rich.console import Console

from bench._harness import measure, parts


def main(wanted: list[str]) -> int:
    """Run the parts that are named, or all; return 1 when a goal is missed, 2 when a part does not exist."""
    known = parts()
    names = list(known) if wanted in ([], ["all"]) else wanted
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # temporary files are removed on the way out
    console = Console()
    figures = [figure for name in names for figure in measure(name, known[name], console)]
    return int(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
