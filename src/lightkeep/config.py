"""The only reader of configuration files and of the environment.

A value is taken from the first of these that gives it:

    LIGHTKEEP_*            e.g. LIGHTKEEP_HTTP_PORT=9000 for `port` in `[http]`
    lightkeep.toml         $LIGHTKEEP_CONFIG, or the first one from the current folder upward,
                           or $XDG_CONFIG_HOME/lightkeep/lightkeep.toml
    the default            written beside each field below

Every field is a setting, and every setting is a field: `settings()` lists them for `config show` and the docs.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from lightkeep.model.errors import ConfigError

FILE_NAME = "lightkeep.toml"
_PREFIX = "LIGHTKEEP_"


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Where runs are computed."""

    name: str = _setting(
        "processes", "Engine for runs that do not name one: `processes`, `inline`, or a NAME of `[engines.NAME]`."
    )
    workers: int = _setting(0, "Tasks that run at once; 0 means one per core that this process may use.")


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How queued work is shared out among workers."""

    lease_s: float = _setting(30.0, "Seconds of silence after which a worker's work is given to another one.")
    runs: int = _setting(1, "Runs that one worker does at once; each may use all cores.")


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Where the portal and the HTTP API listen."""

    host: str = _setting("127.0.0.1", "Address to listen on; 0.0.0.0 makes the portal visible to the network.")
    port: int = _setting(8750, "TCP port; 0 means any free one.")


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """How measured files are taken in."""

    store: str = _setting("central", "Id of the store that new datasets are copied to.")
    quiet_s: float = _setting(2.0, "Seconds that a file must have been unchanged before it is taken in.")


@dataclass(frozen=True, slots=True)
class PurgeConfig:
    """What may be deleted at most; what may be deleted at all is said by the policies."""

    enabled: bool = _setting(True, "False: nothing is deleted, whatever the policies say.")
    max_fraction: float = _setting(0.1, "Part of a store's capacity that one plan may take.")
    max_files: int = _setting(100_000, "Files that one plan may name.")
    max_bytes_per_day: int = _setting(0, "Bytes that one store may lose in a day; 0 means any number.")


@dataclass(frozen=True, slots=True)
class ScrubConfig:
    """How often every copy is read back, and how fast."""

    days: int = _setting(25, "Days after which a copy is read back again; policies count copies of 30 days.")
    tape_days: int = _setting(180, "The same for copies on tape.")
    rate: int = _setting(100_000_000, "Bytes per second and store, on average; 0 means as fast as it goes.")


@dataclass(frozen=True, slots=True)
class ArchiveConfig:
    """How archive units are made, and how long what is restored from them stays near."""

    target: int = _setting(100_000_000_000, "Bytes of members from which on a unit is complete.")
    cap: int = _setting(500_000_000_000, "Bytes that a unit may have, unless one file is larger.")
    restore_days: int = _setting(30, "Days that a restored copy stays when nobody says how many.")


@dataclass(frozen=True, slots=True)
class MailConfig:
    """How notices are sent."""

    host: str = _setting("", "SMTP server; empty: mails are written as files into `mail` in root.")
    port: int = _setting(25, "TCP port of the SMTP server.")
    starttls: bool = _setting(False, "Demand encryption of the SMTP server before anything is sent.")
    sender: str = _setting("lightkeep@localhost", "Address that mails come from, and that bounces go to.")
    base_url: str = _setting("", "Address of the portal in mails; empty: that of `[http]`.")


@dataclass(frozen=True, slots=True)
class ProposalsConfig:
    """Where experiments and their people come from."""

    source: str = _setting("", "File or address of the facility's proposals; `{number}` stands for the number.")
    token_file: str = _setting("", "File with the token that is sent to that address.")


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """What server and workers say of themselves."""

    log_level: str = _setting("warning", "Least of `debug`, `info`, `warning`, `error` that goes to stderr.")
    log_format: str = _setting("text", "`text`, or `json` for one object a line.")
    traces: str = _setting("", "OpenTelemetry collector, OTLP over HTTP: http://localhost:4318; empty: none.")


@dataclass(frozen=True, slots=True)
class Config:
    """One facility's settings. `Config(root)` alone is a complete configuration for a laptop."""

    root: Path = field(
        metadata={"help": "Folder that holds the facility; relative to the folder of the file that names it."}
    )
    catalog_url: str = _setting("", "Database of the catalogue; empty means SQLite's `catalog.db` in root.")
    workflow_url: str = _setting("", "Database of the workflows; empty means SQLite's `workflow.db` in root.")
    engine: EngineConfig = field(default_factory=EngineConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    proposals: ProposalsConfig = field(default_factory=ProposalsConfig)
    purge: PurgeConfig = field(default_factory=PurgeConfig)
    scrub: ScrubConfig = field(default_factory=ScrubConfig)
    archive: ArchiveConfig = field(default_factory=ArchiveConfig)
    mail: MailConfig = field(default_factory=MailConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    engines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, metadata={"is_setting": False})
    """Engines of the facility's own, from `[engines.NAME]`: `kind`, its options, and `techniques` and `stations`
    whose runs go there when they name none."""
    file: Path | None = field(default=None, metadata={"is_setting": False})
    """The file that was read, if any."""
    origins: Mapping[str, str] = field(default_factory=dict, metadata={"is_setting": False})
    """Key -> where its value came from: a file, a variable's name; a key that is absent has its default."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).expanduser().absolute())
        for name in ("catalog", "workflow"):
            url = getattr(self, f"{name}_url") or f"sqlite:///{name}.db"
            head, is_file, path = url.partition("sqlite:///")
            object.__setattr__(self, f"{name}_url", f"{head}{is_file}{self.root / path}" if is_file else url)

    @property
    def scratch(self) -> Path:
        """Folder for results on their way to a store; anything in it may be lost."""
        return self.root / "scratch"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as `config show` and the documentation list it."""

    key: str
    """As in the file, e.g. `http.port` for `port` in `[http]`."""
    variable: str
    """Environment variable that overrides it."""
    kind: type
    default: Any
    """None for the one that has no default."""
    help: str


def settings(cls: Any = Config, prefix: str = "") -> Iterator[Setting]:
    """List every setting in the order of the file."""
    kinds = get_type_hints(cls)
    for each in fields(cls):
        kind = kinds[each.name]
        if is_dataclass(kind):
            yield from settings(kind, f"{each.name}.")
        elif each.metadata.get("is_setting", True):
            key = prefix + each.name
            default = None if each.default is MISSING else each.default
            variable = _PREFIX + key.upper().replace(".", "_")
            yield Setting(key, variable, kind, default, each.metadata["help"])


def load(
    path: Path | None = None, *, environ: Mapping[str, str] = os.environ, folder: Path | None = None
) -> Config:
    """Read the configuration.

    Parameters
    ----------
    path: the file to read; found as the module's docstring says when it is None.
    environ: the environment.
    folder: where the search upward starts; the current folder when it is None.

    Raises
    ------
    ConfigError: no file and no LIGHTKEEP_ROOT; the file cannot be read or parsed; a key is not known or
        its value is of the wrong kind.
    """
    folder = folder or _here()
    path = path or find_file(environ, folder)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if path is not None:
        path = path.absolute()
        values = _from_file(path)
        origins = dict.fromkeys(values, str(path))
    for key, variable, value in _from_environment(environ):
        values[key] = value
        origins[key] = variable
    if path is not None and origins.get("root") != "LIGHTKEEP_ROOT":
        values["root"] = path.parent / Path(values.get("root", "")).expanduser()
        origins["root"] = str(path)
    if "root" not in values:
        raise ConfigError(
            f"no {FILE_NAME} from {folder} upward",
            remedy="make a facility here with `lightkeep init`, or name one with LIGHTKEEP_CONFIG=path/to/it",
        )
    engines = _engine_tables(path) if path is not None else {}
    config: Config = _build(Config, values)
    return replace(config, engines=engines, file=path, origins=origins)


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(
            f"the current folder cannot be used: {error.strerror}", remedy="change to another"
        ) from error


def find_file(environ: Mapping[str, str], folder: Path) -> Path | None:
    """Return the configuration file that applies in a folder, or None."""
    if named := environ.get("LIGHTKEEP_CONFIG"):
        return Path(named)
    home = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/")) / ".config")
    folders = [folder.absolute(), *folder.absolute().parents, home / "lightkeep"]
    return next((each / FILE_NAME for each in folders if os.path.isfile(each / FILE_NAME)), None)


def starter(root: str = ".") -> str:
    """Return the text of a first lightkeep.toml: the root, and every other setting commented out."""
    lines = [
        "# Settings of this Lightkeep facility; `lightkeep config show` prints those in force.",
        f'root = "{root}"',
    ]
    section = ""
    for each in settings():
        if each.key == "root":
            continue
        head, _, name = each.key.rpartition(".")
        if head != section:
            lines += ["", f"[{head}]"]
            section = head
        lines += [f"# {each.help}", f"# {name} = {_toml(each.default)}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _engine_tables(path: Path) -> dict[str, dict[str, Any]]:
    """Return the tables `[engines.NAME]`. What is in them is for the engine that `kind` names to check."""
    tables = _tree(path).get("engines", {})
    for name, table in tables.items() if isinstance(tables, dict) else [("", tables)]:
        if not (isinstance(table, dict) and isinstance(table.get("kind"), str)):
            raise ConfigError(
                f"{path}: [engines.{name}] says no kind", remedy='write kind = "slurm", or another kind of engine'
            )
        for key in ("techniques", "stations"):
            if not all(isinstance(each, str) for each in table.get(key, [])):
                raise ConfigError(f"{path}: engines.{name}.{key} must be a list of names", remedy='like ["xpcs"]')
    return dict(tables)


def _tree(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", remedy="check LIGHTKEEP_CONFIG, or make a facility with `lightkeep init`"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text", remedy="save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*?) \(at line (\d+), column \d+\)", str(error))
        text, line = (found[1], f" line {found[2]}") if found else (str(error), "")
        raise ConfigError(f"{path}{line}: {text}", remedy="correct that line; text values need quotes") from error


def _from_file(path: Path) -> dict[str, Any]:
    """Return key -> checked value of a file."""
    tree = {name: value for name, value in _tree(path).items() if name != "engines"}
    known = {each.key: each for each in settings()}
    sections = {key.rpartition(".")[0] for key in known}
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and name in sections:
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return {key: _checked(_known(key, known, str(path)), value, f"{path}: {key}") for key, value in flat.items()}


def _known(key: str, known: Mapping[str, Setting], place: str) -> Setting:
    if key in known:
        return known[key]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else "`lightkeep config show` lists the settings"
    raise ConfigError(f"{place}: `{key}` is not a setting", remedy=hint)


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, Any]]:
    """Yield (key, variable, value). A variable that nearly names a setting is an error, others are not ours."""
    known = {each.variable: each for each in settings()}
    for variable in sorted(environ):
        if variable in known:
            text = environ[variable]
            yield known[variable].key, variable, _parsed(known[variable], text)
        elif variable.startswith(_PREFIX) and variable != "LIGHTKEEP_CONFIG":
            for near in difflib.get_close_matches(variable, known, n=1, cutoff=0.88):
                raise ConfigError(f"{variable} is not a setting", remedy=f"did you mean `{near}`?")


def _parsed(setting: Setting, text: str) -> Any:
    if setting.kind in (int, float):
        try:
            return _checked(setting, setting.kind(text), setting.variable)
        except ValueError as error:
            raise ConfigError(
                f"{setting.variable}: `{text}` is not a number", remedy=f"give a number; {setting.help}"
            ) from error
    if setting.kind is bool:
        return _checked(setting, {"true": True, "false": False}.get(text.lower(), text), setting.variable)
    return _checked(setting, text, setting.variable)


_WANTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    Path: "a path in quotes",
}


def _checked(setting: Setting, value: Any, place: str) -> Any:
    """Return the value as its field wants it, or raise ConfigError naming the place."""
    kind = setting.kind
    is_switch = isinstance(value, bool)
    is_number = isinstance(value, (int, float) if kind is float else int) and not is_switch
    is_right = is_switch if kind is bool else is_number if kind in (int, float) else isinstance(value, str)
    if not is_right:
        raise ConfigError(f"{place} must be {_WANTED[kind]}, not {value!r}", remedy=setting.help)
    if is_number and not 0 <= value < float("inf"):
        raise ConfigError(f"{place} must not be negative or infinite: {value!r}", remedy=setting.help)
    if setting.key == "http.port" and value > 65535:
        raise ConfigError(f"{place} must be at most 65535, not {value!r}", remedy=setting.help)
    return kind(value)


def _build(cls: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    kinds = get_type_hints(cls)
    arguments = {}
    for each in fields(cls):
        kind = kinds[each.name]
        if is_dataclass(kind):
            arguments[each.name] = _build(kind, values, f"{each.name}.")
        elif prefix + each.name in values:
            arguments[each.name] = values[prefix + each.name]
    return cls(**arguments)
