"""The application: routes, page, problem documents and guard, put together."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import signal
from collections.abc import AsyncIterator
from importlib.resources import files

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gramian.core.plain import Plain
from gramian.errors import GramianError
from gramian.serve.guard import Guard
from gramian.serve.problems import MEDIA_TYPE, Problem, as_problem, document
from gramian.serve.routes import router, service
from gramian.serve.schemas import ProblemDocument
from gramian.serve.service import Service

__all__ = ["create_app"]

log = logging.getLogger("gramian.serve")
ABOUT = """Ratings predicted, items recommended, reasons given. Errors are problem documents (RFC 9457) whose
`detail` is one sentence: what was wrong, what was found, what to do."""
TYPES = {
    "html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml", "webmanifest": "application/manifest+json",
}  # fmt: skip


def create_app(made: Service) -> Guard:
    """The ASGI application of a service."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(made.start())
        with contextlib.suppress(NotImplementedError, RuntimeError, AttributeError, ValueError):
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(_reload_quietly(made)))
        yield
        starting.cancel()
        made.close()

    app = FastAPI(
        title="Gramian",
        version="1",
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.service = made
    app.include_router(router)
    _add_page(app)
    _add_document(app)
    _add_problems(app)

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        text = service(request, ready=False).telemetry.text()
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return Guard(app, made)


async def _reload_quietly(made: Service) -> None:
    """Reload at a signal: what goes wrong is in the log already, and the old model is served on."""
    with contextlib.suppress(Exception):
        await made.reload()


def _add_page(app: FastAPI) -> None:
    """The page's files, read once."""
    folder = files("gramian.serve").joinpath("page")
    found = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name.rpartition(".")[2] in TYPES}
    marks = {name: f'"{hashlib.sha256(content).hexdigest()[:16]}"' for name, content in found.items()}

    def file(request: Request, name: str) -> Response:
        if name not in found:
            raise Problem("not-found", f"There is no page {name!r} here.")
        headers = {"ETag": marks[name], "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == marks[name]:
            return Response(status_code=304, headers=headers)
        return Response(found[name], media_type=TYPES[name.rpartition(".")[2]], headers=headers)

    @app.get("/", include_in_schema=False)
    async def start(request: Request) -> Response:
        return file(request, "index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(request: Request, name: str) -> Response:
        return file(request, name)


def _add_document(app: FastAPI) -> None:
    """The OpenAPI document: problem documents for every error, and the API key."""
    plain = app.openapi

    def described() -> Plain:
        made = plain()
        parts = made.setdefault("components", {})
        schemas = parts.setdefault("schemas", {})
        schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"key": []}, {}]
        return made

    app.openapi = described  # type: ignore[method-assign]

    @app.get("/v1/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(json.dumps(app.openapi()), media_type="application/json")


def _add_problems(app: FastAPI) -> None:
    def respond(problem: Problem) -> Response:
        body = json.dumps(document(problem))
        return Response(body, problem.status, headers=dict(problem.headers or {}), media_type=MEDIA_TYPE)

    @app.exception_handler(Problem)
    async def own(_: Request, error: Problem) -> Response:
        return respond(error)

    @app.exception_handler(GramianError)
    async def ours(_: Request, error: GramianError) -> Response:
        return respond(as_problem(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return respond(_invalid(error))

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> Response:
        kinds = {404: "not-found", 405: "method-not-allowed", 415: "wrong-media-type"}
        return respond(
            Problem(kinds.get(error.status_code, "bad-request"), f"{error.detail}.", headers=dict(error.headers or {}))
        )

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return respond(Problem("internal", "Something went wrong that should not; the server's log says what."))


def _invalid(error: RequestValidationError) -> Problem:
    """One sentence about the first thing that is wrong, and a list of all."""
    found = [
        {"where": ".".join(str(part) for part in one["loc"]), "what": str(one["msg"])} for one in error.errors()[:20]
    ]
    first = found[0]
    if error.errors()[0]["type"] == "json_invalid":
        return Problem("bad-request", "The body is not JSON; send a JSON object.")
    more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    text = f"The request is not what it must be: {first['where']}: {first['what']}{more}; see /v1/openapi.json."
    return Problem("bad-input", text, errors=found)
