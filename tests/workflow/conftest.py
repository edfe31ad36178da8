"""The scripts beside the tests, which run in processes of their own, are collected for their doctests too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "plugin")]
