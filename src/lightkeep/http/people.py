"""Who one is, signing in for scripts, and who else there is."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from lightkeep.http.desk import AtDesk, Name, Seen, Who, token_of
from lightkeep.http.shapes import GrantShape, MeShape, PersonShape, SignInRequest, TokenRequest, TokenShape
from lightkeep.lifecycle.people import sign_in
from lightkeep.model.errors import SignInRequired

router = APIRouter(tags=["people"])


@router.get("/me")
def me(who: Who, view: Seen) -> MeShape:
    """Who asks."""
    if who.is_anonymous:
        return MeShape(id="anonymous", name="", is_anonymous=True)
    return MeShape(id=who.id, name=view.person(who.id).name, is_anonymous=False)


@router.post("/sessions", status_code=201)
def open_session(desk: AtDesk, request: Request, asked: SignInRequest) -> TokenShape:
    """Sign in with a password; the token goes into `Authorization: Bearer`."""
    address = request.client.host if request.client else ""
    token = sign_in.sign_in(desk.facility, asked.user, asked.password, attempts=desk.attempts, address=address)
    return TokenShape(token=token)


@router.delete("/sessions/current", status_code=204)
def close_session(desk: AtDesk, request: Request) -> Response:
    """Sign out: the token of this request stops working at once."""
    sign_in.sign_out(desk.facility, token_of(request))
    return Response(status_code=204)


@router.post("/tokens", status_code=201)
def make_token(desk: AtDesk, who: Who, asked: TokenRequest) -> TokenShape:
    """Make an API token for oneself; it is shown once."""
    if who.is_anonymous:
        raise SignInRequired("nobody is signed in", remedy="sign in first")
    return TokenShape(token=sign_in.new_api_token(desk.facility, who.id, label=asked.label, days=asked.days))


@router.get("/people")
def people(view: Seen) -> list[PersonShape]:
    """The people that one may know of."""
    return [PersonShape.model_validate(each) for each in view.people()]


@router.get("/experiments/{experiment_id}/grants")
def grants(view: Seen, experiment_id: Name) -> list[GrantShape]:
    """Who has which role on an experiment."""
    view.experiment(experiment_id)
    return [GrantShape.model_validate(each) for each in view.grants(experiment_id)]
