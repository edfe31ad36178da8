"""Engines of lightkeep.toml: named, checked, chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lightkeep import config, engines
from lightkeep.engines.slurm import SlurmEngine
from lightkeep.facility import Facility, create_facility
from lightkeep.lifecycle.processing.engines import engines as look
from lightkeep.model.errors import ConfigError
from lightkeep.model.people import Person

REALTIME = '[engines.realtime]\nkind = "slurm"\npartition = "realtime"\nwalltime = "30:00"\ncpus = 8\n'


@pytest.fixture
def facility(tmp_path: Path) -> Callable[[str], Facility]:
    """Make a facility of a lightkeep.toml."""

    def made(text: str) -> Facility:
        file = tmp_path / "lightkeep.toml"
        file.write_text(text)
        return create_facility(config.load(file, environ={}), admin=Person("ada", "Ada"))

    return made


def test_an_engine_of_lightkeep_toml_is_made_with_its_options(facility: Callable[[str], Facility]) -> None:
    with facility(REALTIME) as made:
        engine = made.engine("realtime")
        assert isinstance(engine, SlurmEngine)
        assert engine.folder == made.config.root / "engines" / "realtime"
        assert {"realtime", "inline", "processes", "slurm", "dask"} <= set(made.engine_names())


@pytest.mark.parametrize(
    ("text", "words", "remedy"),
    [
        ("[engines.fast]\nworkers = 2\n", "engines.fast. says no kind", "kind ="),
        ('[engines.fast]\nkind = "slurm"\npartitions = "x"\n', "`partitions` is not an option", "`partition`"),
        ('[engines.fast]\nkind = "slurm"\nworkers = "two"\n', "`workers` cannot be 'two'", "a whole number"),
        ('[engines.fast]\nkind = "slurm"\nextra = "-x"\n', "`extra` cannot be '-x'", "a list of texts"),
        ('[engines.fast]\nkind = "slurm"\nwalltime = "soon"\n', "walltime `soon`", "minutes"),
        ('[engines.fast]\nkind = "slurm"\nrunner = 1\n', "`runner` cannot be 1", ""),
        ('[engines.fast]\nkind = "mainframe"\n', "no engine 'mainframe'", "processes"),
        ('[engines.fast]\nkind = "dask"\ncluster = "pbs"\n', "no cluster `pbs`", "`slurm`"),
        ('[engines.fast]\nkind = "slurm"\ntechniques = [1]\n', "must be a list of names", "xpcs"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_with_its_remedy(
    facility: Callable[[str], Facility], text: str, words: str, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught, facility(text) as made:
        made.engine("fast")
    assert remedy in caught.value.remedy


def test_a_run_goes_to_the_engine_whose_lists_name_its_technique_and_station(
    facility: Callable[[str], Facility],
) -> None:
    tables = (
        '[engines.near]\nkind = "processes"\ntechniques = ["xpcs"]\nstations = ["8-ID-I"]\n'
        '[engines.big]\nkind = "processes"\ntechniques = ["xpcs", "tomography"]\n'
    )
    with facility(tables) as made:
        assert made.engine_for("xpcs", "8-ID-I") == "near"
        assert made.engine_for("xpcs", "2-BM") == "big"
        assert made.engine_for("tomography", "8-ID-I") == "big"
        assert made.engine_for("average", "8-ID-I") == "processes"


def test_each_engine_says_how_it_is_and_one_that_is_away_says_why(
    facility: Callable[[str], Facility], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with facility(REALTIME + '[engines.farm]\nkind = "dask"\naddress = "tcp://127.0.0.1:9"\n') as made:
        found = {each.name: each for each in look(made)}
    assert list(found) == ["inline", "processes", "realtime", "farm"]
    assert found["processes"].is_default
    assert found["processes"].is_ready
    assert not found["realtime"].is_ready
    assert "no `sinfo` on this machine" in found["realtime"].state
    assert "no Dask scheduler at tcp://127.0.0.1:9" in found["farm"].state


def test_options_are_the_constructors_own() -> None:
    assert engines.options_of("processes")["workers"] is int
    assert engines.options_of("inline") == {}
