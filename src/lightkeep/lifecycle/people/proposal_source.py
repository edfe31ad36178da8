"""Proposals from a file (TOML, JSON, CSV) or a REST service.

A record has `number`, `station`, `title`, `starts`, `ends`, `esaf`, `doi`, and `people` with `last_name`,
`first_name`, `email`, `user` (or `badge`) and `role` (`pi` or `member`). The names that the Advanced Photon Source
uses (`experimenters`, `piFlag`, `experimentStartDate`, `activities` ...) are read as well.

    TOML   [[proposal]] tables, people as [[proposal.people]]
    JSON   one record, a list of them, or {"proposals": [...]}
    CSV    one line for each person; the columns of the proposal are the same on each of its lines
    URL    JSON; `{number}` in the address is replaced by the number

A service is outside: it has a deadline for everything together, an answer is bounded, it may send us on only to
itself, and addresses of this machine's own network card services (link-local) are refused.
"""

from __future__ import annotations

import csv
import http.client
import io
import ipaddress
import json
import ssl
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from datetime import time as clock_time
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from lightkeep.model.errors import ConfigError, InvalidInput, NotFound, SourceError
from lightkeep.model.proposals import Member, Proposal, in_utc

DEADLINE_S: Final = 20.0
"""For connecting, all redirects and the whole answer."""
MOST_BYTES: Final = 8 << 20
_REDIRECTS: Final = 3
_MOST_PEOPLE: Final = 500
_NAMES: Final[Mapping[str, Sequence[str]]] = {
    "number": ("number", "proposal", "gup", "gup_id", "proposalId", "id"),
    "station": ("station", "beamline", "beamlineName", "stationName"),
    "title": ("title", "proposalTitle", "esafTitle"),
    "starts": ("starts", "start", "startTime", "startDate", "experimentStartDate"),
    "ends": ("ends", "end", "endTime", "endDate", "experimentEndDate"),
    "esaf": ("esaf", "esafId"),
    "doi": ("doi",),
    "gup": ("gup", "gup_id"),
    "people": ("people", "experimenters", "experimentUsers"),
    "last_name": ("last_name", "lastName", "last"),
    "first_name": ("first_name", "firstName", "first"),
    "email": ("email", "mail"),
    "user": ("user", "username"),
    "badge": ("badge", "badgeNumber"),
}


def fetch(
    place: str, number: str = "", *, token: str = "", station_id: str = "", deadline_s: float = DEADLINE_S
) -> list[Proposal]:
    """Return the proposals at a place: one of that number, or all.

    Parameters
    ----------
    place: a path that ends in .toml, .json or .csv, or an address that begins with http:// or https://.
    token: sent as `Authorization: Bearer` to the address's own host, and nowhere else.
    station_id: for records that name none.

    Raises
    ------
    SourceError: the place cannot be read: missing, slow, sends us elsewhere, answers an error.
    InvalidInput: what it holds are no proposals. NotFound: it has none of that number.
    """
    if place.startswith(("http://", "https://")):
        text = _get(place.replace("{number}", quote(number, safe="")), token=token, deadline_s=deadline_s)
        records = _json(text, place)
    else:
        records = _file(Path(place))
    found = [_proposal(each, place, station_id) for each in records]
    if number:
        found = [each for each in found if each.number == number]
        if not found:
            raise NotFound(f"{place} has no proposal {number}")
    return found


def token_of(path: str) -> str:
    """Return the secret in a file, or an empty one when no file is named. ConfigError: it cannot be read."""
    if not path:
        return ""
    try:
        return Path(path).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"proposals.token_file {path} cannot be read: {error}", remedy="correct the setting"
        ) from error


def _file(path: Path) -> list[Mapping[str, Any]]:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text", remedy="save it as UTF-8") from error
    if len(raw) > MOST_BYTES:
        raise InvalidInput(f"{path} is larger than {MOST_BYTES >> 20} MiB: no list of proposals")
    if path.suffix == ".csv":
        return _csv(text, str(path))
    if path.suffix == ".json":
        return _json(text, str(path))
    if path.suffix != ".toml":
        raise InvalidInput(f"{path} is of no kind that is read", remedy="name a .toml, .json or .csv file")
    try:
        return _records(tomllib.loads(text), str(path))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path}: {error}", remedy="correct that line") from error


def _json(text: str, place: str) -> list[Mapping[str, Any]]:
    try:
        return _records(json.loads(text), place)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{place} holds no JSON: {error or 'nested too deeply'}") from error


def _records(parsed: Any, place: str) -> list[Mapping[str, Any]]:
    if isinstance(parsed, dict):
        parsed = parsed.get("proposal", parsed.get("proposals", [parsed]))
    if not isinstance(parsed, list) or not all(isinstance(each, dict) for each in parsed):
        raise InvalidInput(f"{place} holds no proposals", remedy="give a record, or a list of records")
    return parsed


def _csv(text: str, place: str) -> list[Mapping[str, Any]]:
    rows = csv.DictReader(io.StringIO(text))
    records: dict[tuple[str, str], dict[str, Any]] = {}
    for line in rows:
        row = {key: value for key, value in line.items() if key and value}
        number, esaf = _value(row, "number"), _value(row, "esaf")
        if not number:
            raise InvalidInput(f"{place}, line {rows.line_num}: no number", remedy="name a column `number`")
        record = records.setdefault((number, esaf), {**row, "people": []})
        record["people"].append(row)
    return list(records.values())


# ---- records


def _proposal(record: Mapping[str, Any], place: str, station_id: str) -> Proposal:
    number = _value(record, "number") or _value(record, "esaf")
    where = f"{place}: proposal {number or '(without a number)'}"
    visits = record.get("activities")
    visit = visits[0] if isinstance(visits, list) and visits and isinstance(visits[0], dict) else {}
    merged = {**visit, **record}
    people = _first(record, "people")
    if not isinstance(people, list) or len(people) > _MOST_PEOPLE:
        raise InvalidInput(f"{where}: its people are no list of up to {_MOST_PEOPLE}")
    given = merged.get("identifiers") if isinstance(merged.get("identifiers"), dict) else {}
    schemes = {scheme: _value(merged, scheme) for scheme in ("gup", "esaf", "doi")}
    identifiers = {str(key): str(value) for key, value in {**schemes, **(given or {})}.items() if value}
    techniques = merged.get("techniques", ())
    return Proposal(
        number=number,
        station_id=_value(merged, "station") or station_id,
        people=tuple(_member(each, where) for each in people),
        title=_value(merged, "title")[:1000],
        starts_at=_time(_first(merged, "starts"), where),
        ends_at=_time(_first(merged, "ends"), where),
        identifiers=identifiers,
        techniques=tuple(map(str, techniques)) if isinstance(techniques, list) else (),
    )


def _member(record: Any, where: str) -> Member:
    if not isinstance(record, dict):
        raise InvalidInput(f"{where}: {record!r} is no person", remedy="write last_name, email and role")
    flag = str(record.get("piFlag", "")).strip().lower()
    role = str(record.get("role", "")).strip().lower()
    if role not in ("", "pi", "member"):
        raise InvalidInput(f"{where}: {role} is no role on a proposal", remedy="write pi or member")
    badge = _value(record, "badge")
    last, first = _value(record, "last_name"), _value(record, "first_name")
    if not last and not first:
        first, _, last = _value({"name": record.get("name", "")}, "name").rpartition(" ")
    return Member(
        last_name=last[:200],
        first_name=first[:200],
        email=_value(record, "email")[:320],
        user=_value(record, "user") or (f"d{badge}" if badge else ""),
        is_pi=role == "pi" or flag in ("y", "yes", "true"),
    )


def _first(record: Mapping[str, Any], name: str) -> Any:
    return next((record[key] for key in _NAMES.get(name, (name,)) if record.get(key) not in (None, "")), "")


def _value(record: Mapping[str, Any], name: str) -> str:
    found = _first(record, name)
    if isinstance(found, (dict, list)):
        found = found.get("id", "") if isinstance(found, dict) else ""
    return " ".join(str(found).split())


def _time(value: Any, where: str) -> datetime | None:
    if isinstance(value, datetime):
        return in_utc(value)
    if isinstance(value, date):
        return in_utc(datetime.combine(value, clock_time()))
    if not value:
        return None
    try:
        return in_utc(datetime.fromisoformat(str(value)))
    except ValueError as error:
        raise InvalidInput(
            f"{where}: {value!r} is no time", remedy="write it as 2026-11-22T08:00+00:00"
        ) from error


# ---- the service


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def left(self) -> float:
        rest = self._until - time.monotonic()
        if rest <= 0:
            raise TimeoutError("it took too long")
        return rest


def _get(address: str, *, token: str, deadline_s: float) -> str:
    deadline = _Deadline(deadline_s)
    first = urlsplit(address)
    for _ in range(_REDIRECTS + 1):
        try:
            status, location, body = _answer(urlsplit(address), token, deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceError(
                f"{first.hostname}: {error or type(error).__name__}", remedy="try again later"
            ) from error
        if status not in (301, 302, 303, 307, 308):
            break
        address = urljoin(address, location)
        if _origin(urlsplit(address)) != _origin(first):
            raise SourceError(f"{first.hostname} sends us on to another host: that is not followed")
    else:
        raise SourceError(f"{first.hostname} sends us on in circles")
    if status == http.client.NOT_FOUND:
        raise NotFound(f"{first.hostname} has no such proposal")
    if status != http.client.OK:
        raise SourceError(f"{first.hostname} answers {status}", remedy="check the address and the token")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{first.hostname} answers no UTF-8 text") from error


def _answer(address: SplitResult, token: str, deadline: _Deadline) -> tuple[int, str, bytes]:
    host = address.hostname or ""
    kind: Any = http.client.HTTPConnection
    more: dict[str, Any] = {}
    if address.scheme == "https":
        kind, more = http.client.HTTPSConnection, {"context": ssl.create_default_context()}
    connection = kind(host, address.port, timeout=deadline.left(), **more)
    try:
        connection.connect()
        _check_peer(connection.sock.getpeername()[0])
        headers = {"Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        target = (address.path or "/") + (f"?{address.query}" if address.query else "")
        connection.request("GET", target, headers=headers)
        connection.sock.settimeout(deadline.left())
        response = connection.getresponse()
        return response.status, response.getheader("Location", ""), b"".join(_body(response, connection, deadline))
    finally:
        connection.close()


def _body(response: http.client.HTTPResponse, connection: Any, deadline: _Deadline) -> Iterator[bytes]:
    size = 0
    while True:
        if connection.sock is not None:
            connection.sock.settimeout(deadline.left())
        deadline.left()
        piece = response.read1(1 << 16)
        if not piece:
            return
        size += len(piece)
        if size > MOST_BYTES:
            raise OSError(f"an answer of more than {MOST_BYTES >> 20} MiB")
        yield piece


def _check_peer(address: str) -> None:
    """Refuse what no proposal system is: link-local addresses answer with secrets of the machine itself."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or found
    if mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified:
        raise OSError(f"the address {address} is not one of a proposal system")


def _origin(address: SplitResult) -> tuple[str, str, int | None]:
    return address.scheme, address.hostname or "", address.port
