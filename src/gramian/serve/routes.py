"""The API, version 1. A route says what comes in and goes out; the service does the rest."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic_core import to_json

from gramian.core.plain import Plain
from gramian.serve import schemas
from gramian.serve.problems import MEDIA_TYPE, Problem
from gramian.serve.service import Service
from gramian.serve.store import ApiKey

__all__ = ["router"]

TEXTS = {
    400: "The body is not JSON.",
    401: "An API key is needed.",
    403: "The API key may not do this, or another site sent the request.",
    404: "An id is unknown.",
    408: "The body did not arrive in time.",
    409: "It does not fit what is there.",
    413: "The body is too large.",
    415: "The body is of another type.",
    422: "The input is not what it must be.",
    429: "Too many requests.",
    503: "Not now: starting, overloaded, or without its database.",
}


def problems(*statuses: int) -> dict[int | str, Plain]:
    """The problem documents that a route may answer with, besides those that any may."""
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {
        status: {"description": TEXTS[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({401, 403, 422, 429, 503, *statuses})
    }


BODY = problems(400, 404, 408, 413, 415)
router = APIRouter(prefix="/v1", default_response_class=Response)


def service(request: Request, role: str = "read", *, ready: bool = True) -> Service:
    """The service, if it is ready and the key of the request may do what it asks for.

    Raises:
        Problem: It is not, or may not.
    """
    found: Service = request.app.state.service
    key: ApiKey = request.state.key
    if not key.may(role):
        raise Problem("forbidden", f"This API key may not do this: its role is {key.role!r}, {role!r} is needed.")
    if ready and not found.ready:
        text = "The server is starting: its kernels are being compiled; try again in a few seconds."
        raise Problem("unavailable", text, headers={"Retry-After": "2"})
    return found


def answer(data: object, status: int = 200) -> Response:
    """Plain data as JSON, written by pydantic's fast writer; numbers that are not finite become null."""
    return Response(to_json(data, inf_nan_mode="null"), status, media_type="application/json")


@router.get("/health", response_model=schemas.StateAnswer, tags=["server"], responses=problems())
async def health() -> Response:
    """Whether the process lives."""
    return answer({"status": "alive"})


@router.get("/ready", response_model=schemas.StateAnswer, tags=["server"], responses=problems())
async def ready(request: Request) -> Response:
    """Whether it can answer: the kernels are compiled, and the database is there."""
    found: Service = request.app.state.service
    if not found.ready:
        raise Problem(
            "unavailable", "The server is starting: its kernels are being compiled.", headers={"Retry-After": "2"}
        )
    if found.feedback is not None:
        await found.feedback.check()
    return answer({"status": "ready"})


@router.get("/model", response_model=schemas.Card, tags=["model"], responses=problems())
async def model(request: Request) -> Response:
    """The model card: recipe, sizes, scale, and what can be asked of this model."""
    found = service(request)
    return answer({**found.live.card(), "feedback": found.feedback is not None})


@router.post("/recommend", response_model=schemas.Recommendations, tags=["people"], responses=BODY)
async def recommend(request: Request, asked: schemas.Recommended) -> Response:
    """The best items for a known user, or for somebody new from a few ratings."""
    version, source, rows = await service(request).recommend(asked)
    return answer({"model": version, "from": source, "items": rows})


@router.post("/predict", response_model=schemas.Predictions, tags=["people"], responses=BODY)
async def predict(request: Request, asked: schemas.Predicted) -> Response:
    """Predicted ratings of pairs, or of items for somebody new, with intervals where the model has some."""
    found = service(request)
    version, rows = await found.predict(asked)
    level = asked.level if found.live.can.intervals else None
    return answer({"model": version, "level": level, "predictions": rows})


@router.post("/explain", response_model=schemas.ExplanationAnswer, tags=["people"], responses=BODY)
async def explain(request: Request, asked: schemas.Explained) -> Response:
    """Why: the rated items that pull a prediction most, from the factors."""
    return answer(await service(request).explain(asked))


@router.post("/ask", response_model=schemas.NextItems, tags=["people"], responses=BODY)
async def ask(request: Request, asked: schemas.Questions) -> Response:
    """Which items' ratings would tell most about somebody (of models that keep draws)."""
    return answer(await service(request).ask_next(asked, asked.n))


Count = Annotated[int, Query(ge=1, le=100)]


@router.get("/items", response_model=schemas.Items, tags=["items"], responses=problems())
async def search(
    request: Request,
    q: Annotated[str, Query(min_length=1, max_length=200, description="Words of the title.", examples=["toy story"])],
    n: Count = 10,
) -> Response:
    """Items whose title has these words, most rated first."""
    found = service(request)
    return answer({"items": await found.workers.run(found.live.search, q, n)})


@router.get("/items/{item}/similar", response_model=schemas.Neighbours, tags=["items"], responses=problems(404))
async def similar(request: Request, item: Annotated[schemas.Text, Path(examples=["318"])], n: Count = 10) -> Response:
    """The items whose factors point the same way."""
    found = service(request)
    live = found.live
    return answer({"model": live.version, "items": await found.workers.run(live.similar, item, n)})


@router.get("/features", response_model=schemas.FeaturesAnswer, tags=["model"], responses=problems())
async def features(request: Request, top: Count = 10) -> Response:
    """The latent features by their strongest items at both ends, strongest feature first."""
    found = service(request)
    live = found.live
    return answer({"model": live.version, "features": await found.workers.run(live.features, top)})


@router.get("/map", response_model=schemas.ItemMap, tags=["model"], responses=problems())
async def item_map(request: Request, n: Annotated[int, Query(ge=1, le=2000)] = 300) -> Response:
    """The most rated items along the two leading latent features."""
    found = service(request)
    live = found.live
    return answer({"model": live.version, "items": await found.workers.run(live.item_map, n)})


@router.get("/history", response_model=schemas.HistoryAnswer, tags=["model"], responses=problems())
async def history(request: Request) -> Response:
    """The record of the training, epoch by epoch."""
    live = service(request).live
    return answer({"model": live.version, "epochs": list(live.model.history)})


@router.get("/calibration", response_model=schemas.Calibrated, tags=["model"], responses=problems())
async def calibrated(request: Request) -> Response:
    """Errors and calibration on test ratings, where the server was given some; null until they are measured."""
    found = service(request)
    nothing = {"errors": None, "calibration": None}
    return answer({"model": found.live.version, "measuring": found.measuring, **(found.measured or nothing)})


@router.post(
    "/ratings",
    response_model=schemas.Kept,
    status_code=201,
    tags=["feedback"],
    responses={**problems(400, 404, 408, 409, 413, 415), 200: {"model": schemas.Kept, "description": "Kept before."}},
)
async def rate(
    request: Request,
    sent: schemas.Rating,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            pattern=r"^[\x21-\x7e]+$",
            description="The client's name for this write: sent again with the same ratings, it changes nothing.",
        ),
    ] = None,
) -> Response:
    """Keep new ratings; when the answer comes they are on disk, and recommendations follow them at once."""
    found = service(request, "write")
    receipt = await found.keep(sent, request.state.key.id, idempotency_key)
    kept = {"accepted": receipt.count, "repeated": receipt.repeated, "write": receipt.write}
    return answer(kept, 200 if receipt.repeated else 201)


@router.get("/users/{user}/ratings", response_model=schemas.UserRatings, tags=["feedback"], responses=problems())
async def user_ratings(request: Request, user: Annotated[schemas.Text, Path(examples=["15"])]) -> Response:
    """A user's stored feedback: what holds now, and how it came (who sent it, when)."""
    found = service(request)
    if found.feedback is None:
        raise Problem("unavailable", "This server keeps no ratings: start it with --db to turn feedback on.")
    typed = str(found.live.users.typed(user))
    now, audit = await found.feedback.audit(typed)
    return answer({"user": typed, "ratings": now, "audit": audit})


@router.post("/reload", response_model=schemas.Reloaded, tags=["server"], responses=problems(409))
async def reload(request: Request) -> Response:
    """Read the model file again; a damaged one is refused, and the old model is served on."""
    version, changed = await service(request, "admin").reload()
    return answer({"model": version, "changed": changed})
