"""Which file of a folder says what the folder is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightkeep.analysis.xpcs.blocks import FrameBlock
from lightkeep.formats import eiger_writer, imm, metadata_8id, rigaku
from lightkeep.lifecycle.intake.examine import look_into
from lightkeep.lifecycle.replicas.walk import SourceTree
from lightkeep.model.datasets import Metadata
from lightkeep.model.quantity import Quantity

SMALL = [FrameBlock(0, np.ones((3, 4, 5), np.uint16))]
Write = Callable[[Path], Path]


def module(path: Path) -> Path:
    return rigaku.write_run(path, [FrameBlock(0, np.ones((1, 512, 1024), np.uint16))])


def modules(path: Path) -> Path:
    frames = np.zeros((2, *rigaku.SHAPE_3M), np.uint16)
    frames[:, 3, ::2] = 1
    return rigaku.write_run_3m(path, [FrameBlock(0, frames)])


@pytest.mark.parametrize(
    ("name", "write", "format_"),
    [
        ("run.bin", module, "rigaku"),
        ("run.bin.000", modules, "rigaku"),
        ("run.imm", lambda path: imm.write_run(path, SMALL, shape=(4, 5)), "imm"),
        ("run.h5", lambda path: eiger_writer.write_run(path, SMALL, shape=(4, 5)), "eiger"),
        (
            "run_master.h5",
            lambda path: eiger_writer.write_master(path, SMALL, shape=(4, 5), frames=3, frames_per_file=2),
            "eiger",
        ),
    ],
)
def test_a_run_with_its_metadata_is_known_by_the_file_that_leads_to_all_frames(
    tmp_path: Path, name: str, write: Write, format_: str
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write(folder / name)
    facts = {"frame_time": Quantity.of(2e-5, "s")}
    texts = {"title": "a long title that makes the metadata the largest file " * 100}
    metadata_8id.write_metadata(folder / "run_metadata.hdf", Metadata(facts, texts))
    with SourceTree(folder) as tree:
        look = look_into(tree, tree.walk())
    assert look.key is not None
    assert (look.key.path, look.format, look.technique) == (name, format_, "xpcs")
    assert look.metadata.quantities["frame_time"].value_si == 2e-5
