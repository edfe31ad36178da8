"""What every technique must do. Subclass `TechniqueSuite` in a test module and give a small measurement."""

# ruff: noqa: S101, S603 -- a suite is a test that ships

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from lightkeep import formats, techniques
from lightkeep.lifecycle.processing.pieces import blocks
from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Output, Source
from lightkeep.model.techniques import Preflight

Outputs = Mapping[str, NDArray[Any]]


def source_of(folder: Path, **arrays: Any) -> Source:
    """Return a measurement that lies in memory; a technique cannot tell. What streams by itself stays as it is."""
    held = {name: array if hasattr(array, "blocks") else np.asarray(array) for name, array in arrays.items()}
    return Source(folder / "scan.h5", "memory", "", held)


class TechniqueSuite:
    """Subclass it, name the class `Test...`, set `name`, and override the two methods that raise."""

    name: ClassVar[str]
    """Name of the technique, as its entry point says."""
    params: ClassVar[Mapping[str, Any]] = {}
    """Parameters for the example; the defaults should do."""

    def example(self, folder: Path) -> Source:
        """Return a small measurement, with at least 5 indices along SPLIT."""
        raise NotImplementedError

    def unusable(self, folder: Path) -> Sequence[Source]:
        """Return measurements that the technique must refuse."""
        raise NotImplementedError

    def technique(self) -> Any:
        """Return the technique's module."""
        return techniques.get(self.name)

    def test_it_is_found_by_its_entry_point(self) -> None:
        (entry,) = entry_points(group="lightkeep.techniques", name=self.name)
        assert entry.load() is self.technique()
        assert self.technique().__name__.rpartition(".")[2] == self.name

    def test_its_module_imports_no_numerics(self) -> None:
        code = f"import sys, {self.technique().__name__}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert {"numpy", "scipy", "numba", "h5py"}.isdisjoint(done.stdout.split()), "import them in the functions"

    def test_every_parameter_explains_itself_and_has_a_default(self) -> None:
        fields = self.technique().Params.model_json_schema().get("properties", {})
        for name, schema in fields.items():
            assert schema.get("description", "").endswith("."), name
            assert "default" in schema, name
            if {"number", "integer"} & _types(schema):
                assert schema.get("unit"), f"{name}: json_schema_extra={{'unit': ...}}"

    def test_an_unknown_parameter_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="no_such_parameter"):
            self.technique().Params(no_such_parameter=1)

    def test_its_outputs_and_their_writers_exist(self) -> None:
        technique = self.technique()
        assert technique.OUTPUTS
        for spec in technique.OUTPUTS.values():
            assert spec.axes
            assert spec.label
            assert spec.view in ("image", "stack", "curve")
        assert technique.RESULTS
        assert all(formats.get(name).can_write for name in technique.RESULTS)

    def test_the_preflight_says_what_comes_out(self, tmp_path: Path) -> None:
        source = self.example(tmp_path)
        found = self.preflight(source)
        outputs = self.compute(source, found, [(0, found.length)])
        assert set(outputs) == set(found.shapes) == set(found.dtypes) <= set(self.technique().OUTPUTS)
        assert outputs
        for name in outputs:
            spec = self.technique().OUTPUTS[name]
            assert outputs[name].shape == tuple(found.shapes[name])
            assert outputs[name].dtype == found.dtypes[name]
            assert outputs[name].ndim == len(spec.axes)
            if self.technique().SPLIT in spec.axes:
                assert found.shapes[name][spec.axes.index(self.technique().SPLIT)] == found.length

    def test_the_preflights_parameters_can_be_stored_and_give_themselves(self, tmp_path: Path) -> None:
        found = self.preflight(self.example(tmp_path))
        stored = json.loads(json.dumps(dict(found.params), allow_nan=False))
        json.dumps(dict(found.facts), allow_nan=False)
        assert set(stored) == set(self.technique().Params.model_fields)
        again = self.technique().preflight(self.example(tmp_path), self.technique().Params(**stored))
        assert dict(again.params) == dict(found.params)
        assert found.memory_bytes > 0
        assert found.seconds > 0

    def test_pieces_are_the_whole(self, tmp_path: Path) -> None:
        """Byte for byte where each index stands for itself; to rounding where states are merged."""
        source = self.example(tmp_path)
        found = self.preflight(source)
        whole = self.compute(source, found, [(0, found.length)])
        for size in _sizes(found):
            pieces = self.compute(source, found, _cuts(found.length, size))
            for name in whole:
                if self.is_incremental():
                    np.testing.assert_allclose(pieces[name], whole[name], rtol=1e-12, err_msg=name)
                else:
                    assert pieces[name].tobytes() == whole[name].tobytes(), f"{name}, {size} at a time"

    def test_states_merge_in_any_grouping(self, tmp_path: Path) -> None:
        if not self.is_incremental():
            return
        technique, source = self.technique(), self.example(tmp_path)
        found = self.preflight(source)
        params = technique.Params(**found.params)

        def states() -> list[Any]:
            return [self.push(source, found, cut) for cut in _cuts(found.length, 1)]

        first = _arrays(technique.finish(reduce(technique.merge, states()), params))
        backwards = _arrays(
            technique.finish(reduce(lambda a, b: technique.merge(b, a), reversed(states())), params)
        )
        for name in first:
            np.testing.assert_allclose(backwards[name], first[name], rtol=1e-12, err_msg=name)

    def test_unusable_data_are_refused_in_one_line_with_a_remedy(self, tmp_path: Path) -> None:
        for source in self.unusable(tmp_path):
            with pytest.raises(InvalidInput) as caught:
                self.preflight(source)
            assert "\n" not in caught.value.message
            assert caught.value.remedy, caught.value.message

    def is_incremental(self) -> bool:
        """True for start, push, merge, finish; False for run."""
        return hasattr(self.technique(), "start")

    def preflight(self, source: Source) -> Preflight:
        """Ask with the example's parameters."""
        technique = self.technique()
        found: Preflight = technique.preflight(source, technique.Params(**self.params))
        return found

    def push(self, source: Source, found: Preflight, cut: tuple[int, int]) -> Any:
        """Return the state after frames begin to end."""
        technique = self.technique()
        params = technique.Params(**found.params)
        state = technique.start(source, params, *cut)
        for block, begin, _ in blocks(technique, source, params, *cut):
            state = technique.push(state, block, begin)
        return state

    def compute(self, source: Source, found: Preflight, cuts: Sequence[tuple[int, int]]) -> Outputs:
        """Do the work cut by cut and put it together, as `lifecycle.processing.process` does."""
        technique = self.technique()
        params = technique.Params(**found.params)
        if self.is_incremental():
            state = reduce(technique.merge, (self.push(source, found, cut) for cut in cuts))
            return _arrays(technique.finish(state, params))
        parts = [technique.run(source, params, lambda _fraction, _text: None, *cut) for cut in cuts]
        return dict(_joined(technique, parts))


def _arrays(outputs: Mapping[str, Any]) -> Outputs:
    """Return the values of outputs, those that came with their scales included."""
    return {name: np.asarray(each.data if isinstance(each, Output) else each) for name, each in outputs.items()}


def _joined(technique: Any, parts: Sequence[Outputs]) -> Iterator[tuple[str, NDArray[Any]]]:
    for name in parts[0]:
        spec = technique.OUTPUTS[name]
        if technique.SPLIT in spec.axes:
            yield name, np.concatenate([part[name] for part in parts], axis=spec.axes.index(technique.SPLIT))
        else:
            yield name, parts[0][name]


def _types(schema: Mapping[str, Any]) -> set[str]:
    return {each.get("type", "") for each in schema.get("anyOf", [schema])}


def _sizes(found: Preflight) -> set[int]:
    """Sizes of pieces to try: even ones where the technique asks for a size, as engines do; else any."""
    return {2, 4, found.piece} if found.piece else {1, 2, 3}


def _cuts(length: int, size: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + size, length)) for begin in range(0, length, size)]
