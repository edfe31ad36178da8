"""What every command starts with: the settings, the facility, on whose behalf, and which experiment."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lightkeep import config
from lightkeep.model.errors import Forbidden, InvalidInput, NotFound, SignInRequired
from lightkeep.model.experiments import ExperimentState
from lightkeep.model.people import SERVICE, Person, Principal

if TYPE_CHECKING:
    from lightkeep.catalog import View
    from lightkeep.facility import Facility
    from lightkeep.model.datasets import Dataset

_SHOWN = 4
"""Experiments that an error names before it says `and others`."""


@dataclass
class Session:
    """One command line: how to answer, and the settings to use."""

    as_json: bool = False
    config_file: str | None = None

    def load(self) -> config.Config:
        """Read the settings in force."""
        return config.load(Path(self.config_file) if self.config_file else None)

    @contextmanager
    def opened(self) -> Iterator[Work]:
        """Open the facility on behalf of the operating system's user."""
        from lightkeep.facility import open_facility

        with open_facility(self.load()) as facility:
            yield Work(facility, principal(facility))


@dataclass(frozen=True)
class Work:
    """An open facility and the person at the keyboard."""

    facility: Facility
    principal: Principal

    @property
    def view(self) -> View:
        """The catalogue as this person may see it."""
        return self.facility.catalog.view(self.principal)

    def experiment(self, asked: str | None) -> str:
        """Return the experiment asked for, or the only open one that this person may see."""
        if asked:
            return self.view.experiment(asked).id
        open_ones = list(islice(self._open_experiments(), _SHOWN + 1))
        if len(open_ones) == 1:
            return open_ones[0]
        if not open_ones:
            raise NotFound(
                "no experiment is open",
                remedy="make one: lightkeep experiment create 2026-11-lee-81234 --station 2-BM",
            )
        others = " and others" if len(open_ones) > _SHOWN else ""
        raise InvalidInput(
            f"which experiment? {', '.join(open_ones[:_SHOWN])}{others} are open",
            remedy=f"say which one: --experiment {open_ones[0]}",
        )

    def _open_experiments(self) -> Iterator[str]:
        offset = 0
        while page := self.view.experiments(limit=1000, offset=offset).items:
            yield from (each.id for each in page if each.state is ExperimentState.OPEN)
            offset += len(page)

    def dataset(self, asked: str, experiment: str | None = None) -> Dataset:
        """Return a dataset by its id, by EXPERIMENT/NAME, or by its name.

        A name alone means the dataset in the only open experiment, or else the only one of that name.
        """
        if asked.startswith("ds_"):
            return self.view.dataset(asked)
        head, slash, name = asked.partition("/")
        if not slash:
            if experiment is None:
                return self._named(asked)
            head, name = self.experiment(experiment), asked
        found = self.view.dataset_named(head, name)
        if found is None:
            raise NotFound(
                f"no dataset `{name}` in experiment {head}",
                remedy=f"`lightkeep ls --experiment {head}` lists them",
            )
        return found

    def _named(self, name: str) -> Dataset:
        open_ones = list(islice(self._open_experiments(), 2))
        if len(open_ones) == 1 and (here := self.view.dataset_named(open_ones[0], name)):
            return here
        found = self.view.named(name, limit=_SHOWN + 1)
        if len(found) == 1:
            return found[0]
        if not found:
            raise NotFound(f"no dataset is named `{name}`", remedy="`lightkeep ls` and `lightkeep find` show them")
        places = ", ".join(each.experiment_id for each in found[:_SHOWN])
        others = " and others" if len(found) > _SHOWN else ""
        raise InvalidInput(
            f"which dataset? {places}{others} have one named `{name}`",
            remedy=f"say which one: {found[0].experiment_id}/{name}",
        )


def os_person() -> Person:
    """Return the operating system's user as a person."""
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:  # a container's user without an entry
        return Person(f"uid-{os.geteuid()}", f"uid {os.geteuid()}")
    name = entry.pw_gecos.split(",")[0].strip() or entry.pw_name
    return Person(entry.pw_name.lower(), name)


def principal(facility: Facility) -> Principal:
    """Return the principal of the operating system's user.

    Raises
    ------
    SignInRequired: that user is not a person of this facility.
    Forbidden: the person's account is closed.
    """
    user = os_person().id
    person = next((each for each in facility.catalog.view(SERVICE).people() if each.id == user), None)
    if person is None:
        raise SignInRequired(
            f"the user `{user}` is not known to this facility",
            remedy=f"ask an administrator to run: lightkeep person add {user}",
        )
    if not person.is_active:
        raise Forbidden(f"the account of `{user}` is closed", remedy="ask an administrator of the facility")
    return Principal(user)
