"""What one may not see does not exist: in any list, count, search, facet and look-up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from lightkeep.catalog import parse
from lightkeep.model.datasets import DatasetKind
from lightkeep.model.errors import Forbidden, LightkeepError, NotFound, SignInRequired
from lightkeep.model.experiments import Experiment
from lightkeep.model.people import SERVICE, Grant, Role, Scope, Verb
from lightkeep.model.runs import Run

PRINCIPALS = ("collaborator", "member", "pi", "scientist", "manager", "admin", "nobody", "anonymous", "lightkeep")
QUERIES = ("", "gold", "tooth", "technique:xpcs", "energy:8..30keV", "sample:gold*", "-kind:raw", "state:any")

everyone = pytest.mark.parametrize("who", PRINCIPALS)


@everyone
def test_each_role_lists_its_experiments_and_no_other(standing: Any, who: str) -> None:
    page = standing.view(who).experiments()
    assert {e.id for e in page} == standing.seen[who]
    assert page.total == len(standing.seen[who])


@everyone
@pytest.mark.parametrize("query", QUERIES)
def test_lists_counts_and_facets_agree_for_every_role(standing: Any, who: str, query: str) -> None:
    view = standing.view(who)
    page = view.datasets(parse(query))
    assert {d.experiment_id for d in page} <= standing.seen[who]
    assert page.total == len(page.items)
    station = {e.id: e.station_id for e in standing.view("lightkeep").experiments()}
    expected = {
        "station": Counter(station[d.experiment_id] for d in page),
        "technique": Counter(d.technique for d in page),
        "kind": Counter(d.kind.value for d in page),
        "format": Counter(d.format for d in page),
        "month": Counter(d.created_at.strftime("%Y-%m") for d in page),
    }
    assert {name: dict(values) for name, values in view.facets(parse(query)).items()} == expected


@everyone
def test_counters_of_an_experiment_are_those_of_its_list(standing: Any, who: str) -> None:
    view = standing.view(who)
    for experiment in view.experiments():
        listed = view.datasets(experiment_id=experiment.id)
        assert experiment.datasets == listed.total
        assert experiment.files == sum(d.files for d in listed)
        assert experiment.size == sum(d.size for d in listed)


@everyone
def test_every_look_up_of_something_unseen_answers_as_if_it_did_not_exist(standing: Any, who: str) -> None:
    view, everything = standing.view(who), standing.view("lightkeep")
    for experiment in ("a1", "a2", "b1", "open"):
        is_seen = experiment in standing.seen[who]
        (dataset, *_) = everything.datasets(experiment_id=experiment)
        path = everything.files(dataset.id).items[0].path
        looks: list[Callable[[str], Any]] = [
            view.dataset,
            view.files,
            lambda id_, path=path: view.file(id_, path),
            view.skipped,
            view.children,
            lambda id_: view.require(Verb.SEE, dataset_id=id_),
        ]
        for look in looks:
            assert outcome(look, dataset.id, hide=dataset.id)[0] == ("answer" if is_seen else "NotFound")
            if not is_seen:
                assert outcome(look, dataset.id, hide=dataset.id) == outcome(look, "ds_none", hide="ds_none")
        assert bool(view.replicas(dataset.id)) == is_seen
        assert (view.dataset_named(experiment, "tooth") is not None) == is_seen
        if not is_seen:
            assert outcome(view.experiment, experiment, hide=experiment) == outcome(
                view.experiment, "none", hide="none"
            )


def outcome(call: Callable[[str], Any], argument: str, *, hide: str) -> tuple[str, str]:
    """How a call ends, with the name that was asked for taken out of the message."""
    try:
        call(argument)
    except LightkeepError as error:
        return type(error).__name__, str(error).replace(hide, "")
    return "answer", ""


@pytest.mark.parametrize("who", [name for name in PRINCIPALS if name not in ("admin", "lightkeep")])
def test_something_invisible_changes_no_answer_at_all(new_house: Callable[[], Any], who: str) -> None:
    plain, other = new_house(), new_house()
    add_secrets(other)
    assert everything_seen(other, who) == everything_seen(plain, who)


def add_secrets(house: Any) -> None:
    """An experiment of its own, and more in one that exists: what only station B's people and the admin see."""
    with house.catalog.change(SERVICE) as tx:
        tx.add_experiment(Experiment("b2", "B", "Gold wire, secret"))
        tx.add_grant(Grant("admin", Role.PI, Scope.EXPERIMENT, "b2"))
    seen = house.view("lightkeep").dataset_named("open", "tooth")
    for experiment in ("b1", "b2"):
        made = house.add_dataset(experiment, "secret", kind=DatasetKind.DERIVED, parents=(seen.id,))
        with house.catalog.change(SERVICE) as tx:
            run = tx.add_run(Run(house.catalog.ids.new("run"), experiment, made.id, "tomography"))
            tx.record("dataset.downloaded", made.id, experiment)
            tx.record("doctor.ran", run.id)


def everything_seen(house: Any, who: str) -> list[Any]:
    """Every answer of a view to every question that does not name an invisible thing."""
    view = house.view(who)
    answers: list[Any] = [
        view.experiments(text="gold"),
        view.experiments(station_id="B"),
        view.stations(),
        view.stores(),
        view.people(),
        view.grants(),
        view.runs(),
        view.events(limit=1000),
        view.can(Verb.MANAGE),
    ]
    for query in (*QUERIES, "secret", "experiment:b*"):
        answers += [view.datasets(parse(query), limit=3), view.facets(parse(query))]
    for id_ in ("b1", "b2", "open"):
        answers += [
            view.datasets(experiment_id=id_),
            view.facets(experiment_id=id_),
            view.runs(experiment_id=id_),
            view.events(experiment_id=id_),
            view.grants(id_),
            outcome(view.experiment, id_, hide="-"),
            view.can(Verb.SEE, experiment_id=id_),
        ]
    dataset = view.dataset_named("open", "tooth")
    return [*answers, dataset, view.children(dataset.id), view.files(dataset.id)]


def test_a_verb_that_is_not_given_is_forbidden_on_what_is_seen(standing: Any) -> None:
    with pytest.raises(Forbidden, match="member may not share experiment a1"):
        standing.view("member").require(Verb.SHARE, experiment_id="a1")
    standing.view("pi").require(Verb.SHARE, experiment_id="a1")


def test_a_verb_is_refused_to_the_anonymous_by_asking_them_to_sign_in(standing: Any) -> None:
    standing.view("anonymous").require(Verb.READ, experiment_id="open")
    with pytest.raises(SignInRequired):
        standing.view("anonymous").require(Verb.PROCESS, experiment_id="open")
    with pytest.raises(NotFound):
        standing.view("anonymous").require(Verb.PROCESS, experiment_id="a1")


def test_a_verb_reaches_datasets_and_runs_through_their_experiment(house: Any) -> None:
    dataset = house.view("pi").dataset_named("a1", "tooth")
    with house.catalog.change(SERVICE) as tx:
        run = tx.add_run(Run("run_1", "a1", dataset.id, "tomography"))
    for name, may in (("collaborator", False), ("member", True), ("admin", True)):
        view = house.view(name)
        assert bool(view.can(Verb.PROCESS, dataset_id=dataset.id)) is may
        assert bool(view.can(Verb.PROCESS, run_id=run.id)) is may
    assert not house.view("nobody").can(Verb.SEE, run_id=run.id)


def test_stations_and_the_facility_take_grants_at_their_own_height(standing: Any) -> None:
    assert standing.view("manager").can(Verb.MANAGE, station_id="A")
    assert not standing.view("manager").can(Verb.MANAGE, station_id="B")
    assert not standing.view("manager").can(Verb.MANAGE)
    assert not standing.view("pi").can(Verb.WRITE, station_id="A")
    assert standing.view("admin").can(Verb.MANAGE)
    assert standing.view("admin").can(Verb.DESTROY, station_id="B")
    assert standing.view("anonymous").can(Verb.SEE, station_id="A")
    with pytest.raises(NotFound):
        standing.view("admin").require(Verb.SEE, station_id="none")


def test_a_role_that_is_taken_away_counts_at_once(house: Any) -> None:
    view = house.view("pi")
    assert view.can(Verb.SEE, experiment_id="a1")
    with house.catalog.change(SERVICE) as tx:
        tx.remove_grant(Grant("pi", Role.PI, Scope.EXPERIMENT, "a1"))
    assert not view.can(Verb.SEE, experiment_id="a1")
    assert {e.id for e in view.experiments()} == {"open"}


def test_the_public_sees_data_of_a_released_experiment_but_not_its_team_or_trail(house: Any) -> None:
    with house.catalog.change(SERVICE) as tx:
        tx.add_grant(Grant("member", Role.PI, Scope.EXPERIMENT, "open"))
    for name in ("anonymous", "nobody"):
        view = house.view(name)
        assert view.datasets(experiment_id="open").total == 2
        assert view.events(experiment_id="open") == []
        assert view.grants("open") == []
        assert "member" not in {person.id for person in view.people()}
    assert [g.person_id for g in house.view("member").grants("open")] == ["member"]


def test_people_are_seen_by_their_team_and_by_those_who_may_share(standing: Any) -> None:
    assert {p.id for p in standing.view("member").people()} == {"collaborator", "member", "pi"}
    assert "nobody" in {p.id for p in standing.view("pi").people()}
    assert [p.id for p in standing.view("nobody").people()] == ["nobody"]
    assert standing.view("anonymous").people() == []


def test_events_of_no_experiment_are_for_managers_of_the_facility(standing: Any) -> None:
    assert all(e.experiment_id == "a1" for e in standing.view("member").events(limit=1000))
    assert all(e.experiment_id in {"a1", "a2"} for e in standing.view("manager").events(limit=1000))
    seen = standing.view("admin").events(limit=1000)
    assert [e.seq for e in seen] == list(range(1, len(seen) + 1))
