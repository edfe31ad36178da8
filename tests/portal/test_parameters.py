"""A run's parameters on its pages."""

from __future__ import annotations

from typing import Any

import pytest

from lightkeep.catalog import View
from lightkeep.model.datasets import Dataset, Metadata
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.runs import Run
from lightkeep.portal import words
from lightkeep.portal.parameters import Parameter, parameters
from lightkeep.testing.populated import EXPERIMENT, Populated

_IN_FORCE = {"window": "ramp", "row_end": 64, "pixel_size_um": 1.17, "center": 134.7934, "theta_step_deg": None}


def _shown(
    technique: str = "tomography", asked: dict[str, Any] | None = None, **facts: Any
) -> dict[str, Parameter]:
    run = Run("run_1", "demo", "ds_1", technique, params=asked or {}, resolved=_IN_FORCE | (asked or {}))
    rest = {f"process/facts/{name}": value for name, value in facts.items()}
    result = Dataset("ds_2", "demo", "slices", metadata=Metadata(rest=rest))
    return {each.label: each for each in parameters(run, result)}


def test_parameters_stand_in_the_techniques_order_with_their_units() -> None:
    shown = _shown()
    assert list(shown) == ["Rotation centre", "Window", "Row end", "Pixel size"]
    assert [each.unit for each in shown.values()] == ["px", "", "px", "um"]


def test_only_what_nobody_gave_and_nothing_defaults_is_from_the_data() -> None:
    derived = [label for label, each in _shown(asked={"row_end": 32}).items() if each.is_derived]
    assert derived == ["Rotation centre", "Pixel size"]


def test_what_nobody_gave_is_told_apart_from_what_somebody_did() -> None:
    assert [label for label, each in _shown(asked={"row_end": 32}).items() if each.is_default] == ["Window"]
    assert not _shown(asked={"window": "ramp"})["Window"].is_default
    assert not any(each.is_default for each in _shown("a-technique-that-is-gone").values())


def test_a_dataset_is_named_to_who_may_see_it(house: Populated) -> None:
    run = Run("run_1", EXPERIMENT, house.raw.id, "xpcs", params={"qmap": house.raw.id})

    def q_map(view: View | None) -> str:
        return next(str(each.value) for each in parameters(run, view=view) if each.label == "Q map")

    assert (
        q_map(house.facility.catalog.view(SERVICE)) == f'<a href="/datasets/{house.raw.id}">{house.raw.name}</a>'
    )
    assert q_map(house.facility.catalog.view(Principal("nobody"))) == q_map(None) == house.raw.id


def test_a_compared_value_says_how_exact_it_is_and_what_each_method_found() -> None:
    centre = _shown(sigma=0.05, center_per_method='{"mirror": 134.7934, "wedge": 134.7523}')["Rotation centre"]
    assert str(centre.value) == "134.79 ± 0.05"
    assert centre.methods == (("mirror", "134.79"), ("wedge", "134.75"))


def test_facts_about_a_value_that_somebody_gave_are_not_shown() -> None:
    centre = _shown(asked={"center": 130.0}, sigma=0.05, center_per_method='{"mirror": 134.79}')["Rotation centre"]
    assert (str(centre.value), centre.methods, centre.is_derived) == ("130", (), False)


@pytest.mark.parametrize("methods", ["{", "[1]", '{"mirror": "<b>"}', '{"mirror": NaN}', "[" * 20_000, 3.0])
def test_facts_of_another_kind_are_left_out(methods: object) -> None:
    centre = _shown(sigma=float("inf"), center_per_method=methods)["Rotation centre"]
    assert (str(centre.value), centre.methods) == ("134.793", ())


def test_a_technique_that_is_not_installed_shows_its_parameters_by_name() -> None:
    assert "Pixel size um" in _shown(technique="gone")


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (122.4, "122"),
        (-15.04, "\u221215"),
        (0, "0"),
        (0.001234, "0.00123"),
        (-2.5e-4, "\u22122.5\u00d710⁻⁴"),
        (99_940.0, "99900"),
        (99_960.0, "1\u00d710⁵"),
    ],
)
def test_the_ends_of_a_scale_have_three_digits(value: float, printed: str) -> None:
    assert words.brief(value) == printed
