"""What every request passes: who asks, how often, how much, how long; and the headers that every answer has."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gramian.errors import GramianError
from gramian.serve.limits import LOOPBACK
from gramian.serve.problems import MEDIA_TYPE, Problem, as_problem, document
from gramian.serve.service import Service
from gramian.serve.store import ApiKey

__all__ = ["Guard", "Rates"]

log = logging.getLogger("gramian.serve")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
]
PRIVATE = ((b"cache-control", b"no-store"),)
# What may be seen without a key: the page itself (not what it shows), and whether the server lives.
OPEN = ("/", "/v1/health", "/v1/ready", "/v1/openapi.json")
NO_KEY = ApiKey(0, "", "admin")
CLIENTS = 10_000  # whose rates are remembered


class Rates:
    """A bucket of tokens for each client, refilled at ``rate`` per second up to ``burst``."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, float(burst)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take a token: 0 if there was one, else the seconds until there is."""
        if self._rate <= 0:
            return 0.0
        now = time.monotonic()
        tokens, then = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[client] = (tokens - 1 if wait == 0 else tokens, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return wait


class Guard:
    """ASGI middleware around the application (plain ASGI: it costs some microseconds)."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._rates = Rates(service.settings.rate, service.settings.burst)
        self._names = service.settings.names
        self._local = service.settings.host in LOOPBACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                private = PRIVATE if scope["path"].startswith("/v1/") else ()
                message["headers"] = [*message.get("headers", ()), *HEADERS, *private]
            await send(message)

        try:
            async with asyncio.timeout(self._service.settings.request_seconds):
                scope.setdefault("state", {})["key"] = await self._admitted(scope)
                await self._app(scope, self._limited(scope, receive), sending)
        except (Problem, GramianError, TimeoutError) as error:
            if status:  # the answer has begun, so the connection can only be cut
                raise
            await _answer(sending, _as_problem(error))
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._service.telemetry.observe(scope["method"], route, status, time.perf_counter() - began)

    async def _admitted(self, scope: Scope) -> ApiKey:
        """The key of the one who asks, or a Problem."""
        headers = dict(scope["headers"])
        self._same_site(headers)
        secret = _bearer(headers.get(b"authorization", b""))
        key = NO_KEY
        client = (scope.get("client") or ("",))[0]
        if self._service.settings.keys:
            wait = self._rates.take(f"address {client}") if not secret else 0.0
            found = await self._key(secret) if secret else None
            if found is not None:
                key, client = found, f"key {found.id}"
                wait = self._rates.take(client)
            elif secret:
                wait = self._rates.take(f"address {client}")
        else:
            wait = self._rates.take(client)
            found = key
        if wait > 0:
            text = "Too many requests: the rate limit is reached; wait as long as Retry-After says."
            raise Problem("too-many-requests", text, headers={"Retry-After": str(max(1, round(wait)))})
        if found is None and not _is_open(scope["path"]):
            text = "This server needs an API key: send it as 'Authorization: Bearer KEY' (gramian keys create)."
            raise Problem("unauthorized", text, headers={"WWW-Authenticate": "Bearer"})
        return key if found is not None else ApiKey(0, "", "read")

    async def _key(self, secret: str) -> ApiKey | None:
        feedback = self._service.feedback
        return None if feedback is None else await feedback.key(secret)

    def _same_site(self, headers: dict[bytes, bytes]) -> None:
        """Refuse what another web site sends through a visitor's browser."""
        host = headers.get(b"host", b"").decode("latin-1")
        if self._local and _hostname(host) not in (*LOOPBACK, *self._names):
            raise Problem(
                "forbidden", "This server answers to its own names only: 127.0.0.1, localhost, those of --name."
            )
        origin = headers.get(b"origin")
        site = "" if origin is None else origin.decode("latin-1").partition("://")[2]
        if origin is not None and site != host and _hostname(site) not in self._names:
            raise Problem("forbidden", "This request comes from a page of another site; that is not allowed.")

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """The body, as long as it is small enough and comes fast enough."""
        settings = self._service.settings
        text = f"The body is too large: the most is {settings.body_bytes:,} bytes; send it in parts."
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > settings.body_bytes:
                raise Problem("too-large", text)
        taken = 0
        whole = False

        async def limited() -> Message:
            nonlocal taken, whole
            if whole:
                return await receive()  # waits for the end of the connection
            try:
                async with asyncio.timeout(settings.body_seconds):
                    message = await receive()
            except TimeoutError:
                raise Problem("timeout", "The body did not arrive in time; send it faster, or in parts.") from None
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > settings.body_bytes:
                raise Problem("too-large", text)
            return message

        return limited


def _hostname(host: str) -> str:
    """The name in a Host header, without the port."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].lower()


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith("/page/")


def _bearer(header: bytes) -> str:
    scheme, _, secret = header.decode("latin-1").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _as_problem(error: BaseException) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, GramianError):
        return as_problem(error)
    return Problem(
        "unavailable", "The answer took too long and was given up; ask for less.", headers={"Retry-After": "1"}
    )


async def _answer(send: Send, problem: Problem) -> None:
    body = json.dumps(document(problem)).encode()
    headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **(problem.headers or {})}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
