"""A facility is made once and opened cheaply."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lightkeep.config import Config, EngineConfig
from lightkeep.facility import create_facility, open_facility
from lightkeep.model.errors import ConfigError, NotFound
from lightkeep.model.people import SERVICE, Person, Principal, Role, Verb

ADMIN = Person("ada", "Ada")


def test_a_new_facility_has_a_catalogue_a_store_and_an_administrator(tmp_path: Path) -> None:
    with create_facility(Config(tmp_path / "new"), admin=ADMIN) as facility:
        assert list(facility.stores) == ["central"]
        facility.stores["central"].check_identity()
        facility.catalog.view(Principal("ada")).require(Verb.MANAGE)
        assert [grant.role for grant in facility.catalog.view(SERVICE).grants()] == [Role.FACILITY_ADMIN]


def test_making_it_twice_changes_nothing(tmp_path: Path) -> None:
    with create_facility(Config(tmp_path), admin=ADMIN) as facility:
        before = facility.catalog.view(SERVICE).events(), facility.stores["central"].record
    with create_facility(Config(tmp_path), admin=Person("eve", "Eve")) as facility:
        assert (facility.catalog.view(SERVICE).events(), facility.stores["central"].record) == before


def test_what_holds_password_hashes_is_for_its_owner_only(tmp_path: Path) -> None:
    root = tmp_path / "new"
    create_facility(Config(root), admin=ADMIN).close()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    for path in root.glob("catalog.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_folder_without_a_facility_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no facility") as caught:
        open_facility(Config(tmp_path))
    assert "lightkeep init" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make a facility"):
        create_facility(Config(tmp_path / "file" / "x"), admin=ADMIN)


def test_an_unknown_store_is_named_with_those_that_exist(tmp_path: Path) -> None:
    with create_facility(Config(tmp_path), admin=ADMIN) as facility, pytest.raises(NotFound) as caught:
        facility.stores["centrl"]
    assert "centrl" in caught.value.message
    assert "central" in caught.value.remedy


def test_the_configured_engine_is_the_one_given_without_a_name(tmp_path: Path) -> None:
    config = Config(tmp_path, engine=EngineConfig("processes", workers=3))
    with create_facility(config, admin=ADMIN) as facility:
        assert (facility.engine().name, facility.engine().workers()) == ("processes", 3)
        assert (facility.engine("inline").name, facility.engine("inline").workers()) == ("inline", 1)


def test_opening_it_imports_no_numerics(tmp_path: Path) -> None:
    create_facility(Config(tmp_path), admin=ADMIN).close()
    code = f"""
import sys
from lightkeep.config import Config
from lightkeep.facility import open_facility
with open_facility(Config({str(tmp_path)!r})) as facility:
    facility.stores["central"].check_identity()
print(*{{"numpy", "h5py", "scipy", "numba", "alembic", "dbos"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
