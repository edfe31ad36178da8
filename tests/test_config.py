"""Where a setting's value comes from, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightkeep import config
from lightkeep.config import Config
from lightkeep.model.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "lightkeep.toml"
    path.write_text(text)
    return path


def test_the_root_alone_is_a_complete_configuration(tmp_path: Path) -> None:
    made = Config(root=tmp_path)
    assert made.catalog_url == f"sqlite:///{tmp_path}/catalog.db"
    assert made.workflow_url == f"sqlite:///{tmp_path}/workflow.db"
    assert made.engine.name == "processes"


def test_a_database_file_is_relative_to_the_root(tmp_path: Path) -> None:
    made = Config(root=tmp_path, catalog_url="sqlite:///db/x.db", workflow_url="sqlite:////srv/y.db")
    assert made.catalog_url == f"sqlite:///{tmp_path}/db/x.db"
    assert made.workflow_url == "sqlite:////srv/y.db"
    assert Config(tmp_path, catalog_url="postgresql+psycopg://db/x").catalog_url == "postgresql+psycopg://db/x"


def test_the_file_is_found_from_any_folder_below(tmp_path: Path) -> None:
    write(tmp_path, "[http]\nport = 9000\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    found = config.load(environ={}, folder=tmp_path / "a" / "b")
    assert found.http.port == 9000
    assert found.root == tmp_path


def test_the_root_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    found = config.load(write(tmp_path, 'root = "data"\n'), environ={})
    assert found.root == tmp_path / "data"


def test_the_environment_overrides_the_file_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, '[engine]\nname = "inline"\n[http]\nport = 9000\n')
    found = config.load(path, environ={"LIGHTKEEP_HTTP_PORT": "9100", "LIGHTKEEP_ROOT": str(tmp_path / "x")})
    assert (found.http.port, found.engine.name, found.root) == (9100, "inline", tmp_path / "x")
    assert found.origins["http.port"] == "LIGHTKEEP_HTTP_PORT"
    assert found.origins["engine.name"] == str(path)
    assert "ingest.quiet_s" not in found.origins


def test_a_facility_may_be_named_by_the_environment_alone(tmp_path: Path) -> None:
    assert config.load(environ={"LIGHTKEEP_ROOT": str(tmp_path)}, folder=Path("/")).root == tmp_path


def test_no_file_anywhere_says_how_to_make_a_facility(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(environ={"XDG_CONFIG_HOME": str(tmp_path)}, folder=tmp_path)
    assert "lightkeep init" in caught.value.remedy


def test_the_users_own_file_is_the_last_that_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "xdg" / "lightkeep").mkdir(parents=True)
    write(tmp_path / "xdg" / "lightkeep", f'root = "{tmp_path}/here"\n')
    found = config.load(environ={"XDG_CONFIG_HOME": str(tmp_path / "xdg")}, folder=tmp_path)
    assert found.root == tmp_path / "here"


@pytest.mark.parametrize(
    ("text", "says", "remedy"),
    [
        ("[http]\nprot = 1\n", "`http.prot` is not a setting", "`http.port`"),
        ("[htp]\nport = 1\n", "`htp` is not a setting", "`http.port`"),
        ("[http]\nport = \n", "line 2", "correct that line"),
        ('[http]\nport = "x"\n', "http.port must be a whole number, not 'x'", "TCP port"),
        ("[http]\nport = true\n", "http.port must be a whole number", "TCP port"),
        ("[http]\nport = 70000\n", "at most 65535", "TCP port"),
        ("[ingest]\nquiet_s = -1\n", "ingest.quiet_s must not be negative", "Seconds"),
        ("[ingest]\nquiet_s = nan\n", "ingest.quiet_s must not be negative or infinite", "Seconds"),
        ("http = 3\n", "`http` is not a setting", "http."),
        ("root = 3\n", "root must be a path in quotes", "Folder"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_place(tmp_path: Path, text: str, says: str, remedy: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        config.load(path, environ={})
    assert str(path) in caught.value.message
    assert says in caught.value.message
    assert remedy in caught.value.remedy
    assert "\n" not in caught.value.message


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lightkeep.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(path, environ={})


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        config.load(environ={"LIGHTKEEP_CONFIG": str(tmp_path / "nowhere.toml")})


def test_a_misspelt_variable_is_an_error_and_a_foreign_one_is_not(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    config.load(path, environ={"LIGHTKEEP_SHARED_DATA": "/data"})
    with pytest.raises(ConfigError) as caught:
        config.load(path, environ={"LIGHTKEEP_HTTP_PROT": "1"})
    assert "LIGHTKEEP_HTTP_PORT" in caught.value.remedy


def test_a_variable_that_is_not_a_number_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="LIGHTKEEP_HTTP_PORT: `many` is not a number"):
        config.load(write(tmp_path, ""), environ={"LIGHTKEEP_HTTP_PORT": "many"})


def test_the_starter_file_gives_the_defaults(tmp_path: Path) -> None:
    found = config.load(write(tmp_path, config.starter()), environ={})
    assert found.http == Config(root=tmp_path).http
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line else line for line in config.starter().splitlines()
    )
    assert config.load(write(tmp_path, uncommented), environ={}).ingest == Config(root=tmp_path).ingest


def test_every_setting_is_in_the_reference() -> None:
    page = (Path(__file__).parents[1] / "docs" / "reference" / "configuration.md").read_text()
    missing = [s.key for s in config.settings() if f"`{s.key}`" not in page or f"`{s.variable}`" not in page]
    assert missing == []


def test_a_current_folder_that_is_gone_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="the current folder cannot be used"):
        config.load(environ={})


@pytest.mark.parametrize("text", ["false", "False"])
def test_a_switch_is_read_from_the_environment_and_from_the_file(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "[purge]\nenabled = false\n")
    assert config.load(path, environ={}).purge.enabled is False
    path = write(tmp_path, "")
    assert config.load(path, environ={"LIGHTKEEP_PURGE_ENABLED": text}).purge.enabled is False
    with pytest.raises(ConfigError, match="LIGHTKEEP_PURGE_ENABLED must be true or false, not 'no'"):
        config.load(path, environ={"LIGHTKEEP_PURGE_ENABLED": "no"})
    with pytest.raises(ConfigError, match="must be true or false, not 0"):
        config.load(write(tmp_path, "[purge]\nenabled = 0\n"), environ={})
